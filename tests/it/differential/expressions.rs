//! Random scalar expressions over a scope of columns.
//!
//! Floats are only added and subtracted: other operations make −0.0, which DataFusion tells from 0.0 in groups and joins, and
//! of several NaNs one. Decimals too: their precision grows. No `date_trunc`: where overflows are checked the oracle's panics over what
//! lies in the slot of a NULL.

use arrow::datatypes::DataType;

use crate::rng::Rng;

/// Types among which values can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    Float,
    Decimal,
    Text,
    Date,
    Timestamp,
}

pub(super) const KINDS: [Kind; 7] =
    [Kind::Bool, Kind::Int, Kind::Float, Kind::Decimal, Kind::Text, Kind::Date, Kind::Timestamp];

impl Kind {
    fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Boolean => Self::Bool,
            integer if integer.is_integer() => Self::Int,
            DataType::Float32 | DataType::Float64 => Self::Float,
            DataType::Decimal128(..) => Self::Decimal,
            DataType::Utf8 => Self::Text,
            DataType::Date32 => Self::Date,
            DataType::Timestamp(..) => Self::Timestamp,
            _ => return None,
        })
    }
}

/// Columns that an expression can name, qualified.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope(pub Vec<(String, Kind)>);

impl Scope {
    pub(super) fn add(&mut self, column: String, data_type: &DataType) {
        self.0.extend(Kind::of(data_type).map(|kind| (column, kind)));
    }

    pub(super) fn column(&self, rng: &mut Rng, kind: Kind) -> Option<String> {
        let columns: Vec<&str> = self.0.iter().filter(|(_, k)| *k == kind).map(|(name, _)| name.as_str()).collect();
        (!columns.is_empty()).then(|| rng.one_of(&columns).to_owned())
    }

    /// A kind that a column has; integers, if there are no columns.
    pub(super) fn kind(&self, rng: &mut Rng) -> Kind {
        if self.0.is_empty() { Kind::Int } else { self.0[rng.below(self.0.len() as u64) as usize].1 }
    }
}

fn literal(rng: &mut Rng, kind: Kind) -> String {
    let n = rng.below(5);
    match kind {
        Kind::Bool => rng.one_of(&["true", "false"]).to_owned(),
        Kind::Int => n.to_string(),
        Kind::Float => format!("CAST({}.25 AS DOUBLE)", n),
        Kind::Decimal => format!("CAST({n}.5 AS DECIMAL(10, 2))"),
        Kind::Text => format!("'{}'", rng.one_of(&["", "a", "b", "ab", "x"])),
        Kind::Date => format!("DATE '2024-03-{:02}'", 18 + n),
        Kind::Timestamp => format!("TIMESTAMP '2024-03-{:02} 12:00:00'", 18 + n),
    }
}

/// A column of that kind if there is one, or else a literal.
pub(super) fn leaf(rng: &mut Rng, scope: &Scope, kind: Kind) -> String {
    match scope.column(rng, kind) {
        Some(column) if !rng.once_in(8) => column,
        _ => literal(rng, kind),
    }
}

/// An expression of that kind.
pub(super) fn scalar(rng: &mut Rng, scope: &Scope, kind: Kind, depth: u32) -> String {
    if kind == Kind::Bool {
        return predicate(rng, scope, depth);
    }
    if depth == 0 || rng.once_in(2) {
        return leaf(rng, scope, kind);
    }
    let below = |rng: &mut Rng| scalar(rng, scope, kind, depth - 1);
    match rng.below(6) {
        0 => {
            let (when, then, or) = (predicate(rng, scope, depth - 1), below(rng), below(rng));
            return format!("CASE WHEN {when} THEN {then} ELSE {or} END");
        }
        1 => return format!("coalesce({}, {})", below(rng), below(rng)),
        2 if kind != Kind::Float => return format!("nullif({}, {})", below(rng), below(rng)),
        _ => {}
    }
    match kind {
        Kind::Int => match rng.below(5) {
            0 => format!("({} * {})", below(rng), 1 + rng.below(3)),
            1 => format!("({} / {})", below(rng), 1 + rng.below(3)),
            2 => format!("character_length({})", scalar(rng, scope, Kind::Text, depth - 1)),
            3 => format!("({} % {})", below(rng), 2 + rng.below(3)),
            _ => {
                format!("(CAST({} AS BIGINT) {} {})", leaf(rng, scope, Kind::Int), rng.one_of(&["+", "-"]), below(rng))
            }
        },
        Kind::Float | Kind::Decimal => {
            format!("({} {} {})", below(rng), rng.one_of(&["+", "-"]), leaf(rng, scope, kind))
        }
        Kind::Text => match rng.below(3) {
            0 => format!("upper({})", below(rng)),
            1 => format!("substr({}, 1, 1)", below(rng)),
            _ => format!("({} || {})", leaf(rng, scope, kind), below(rng)),
        },
        Kind::Date => format!("CAST({} AS DATE)", leaf(rng, scope, Kind::Timestamp)),
        Kind::Timestamp | Kind::Bool => leaf(rng, scope, kind),
    }
}

/// A condition.
pub(super) fn predicate(rng: &mut Rng, scope: &Scope, depth: u32) -> String {
    if depth > 0 && rng.once_in(3) {
        let (a, b) = (predicate(rng, scope, depth - 1), predicate(rng, scope, depth - 1));
        return match rng.below(4) {
            0 => format!("({a} OR {b})"),
            1 => format!("NOT ({a})"),
            _ => format!("({a} AND {b})"),
        };
    }
    let kind = scope.kind(rng);
    let deeper = depth.saturating_sub(1);
    if rng.once_in(6)
        && let Some(condition) = super::time::condition(rng, scope)
    {
        return condition;
    }
    match rng.below(8) {
        0 => format!("{} IS {}NULL", leaf(rng, scope, kind), rng.one_of(&["", "NOT "])),
        // In parentheses, since the parser takes what stands behind FROM as far as it goes.
        1 => format!(
            "({} IS {}DISTINCT FROM {})",
            leaf(rng, scope, kind),
            rng.one_of(&["", "NOT "]),
            leaf(rng, scope, kind)
        ),
        2 if kind == Kind::Text => {
            format!("{} LIKE '{}'", leaf(rng, scope, kind), rng.one_of(&["a%", "%b", "_", "%"]))
        }
        2 => format!("{} BETWEEN {} AND {}", leaf(rng, scope, kind), literal(rng, kind), literal(rng, kind)),
        3 => format!(
            "{} {}IN ({}, {})",
            leaf(rng, scope, kind),
            rng.one_of(&["", "NOT "]),
            literal(rng, kind),
            literal(rng, kind)
        ),
        4 => scope.column(rng, Kind::Bool).unwrap_or_else(|| "true".to_owned()),
        _ => {
            let operator = rng.one_of(&["=", "<>", "<", "<=", ">", ">="]);
            let left = match kind {
                Kind::Bool => leaf(rng, scope, kind),
                _ => scalar(rng, scope, kind, deeper),
            };
            format!("{left} {operator} {}", leaf(rng, scope, kind))
        }
    }
}
