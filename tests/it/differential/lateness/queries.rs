//! Random queries that group by, partition by, join on and order by columns with LATENESS, and what is derived from them: a plan frees state of most.
//!
//! A column is taken for bounded by its name ([`PREFIX`]): queries call so what they think is. Where they are wrong (a column of an outer join, say),
//! state must stay.

use arrow::datatypes::{DataType, Field, SchemaRef};
use backstay::sql::Program;

use super::super::aggregates::aggregate;
use super::super::expressions::{KINDS, Kind, Scope, predicate, scalar};
use super::super::{joins, queries, windows};
use super::stream::PREFIX;
use crate::rng::Rng;

/// Relations of a program that a query reads.
struct Maker<'a> {
    rng: &'a mut Rng,
    program: &'a Program,
}

/// A table or view with a bounded column.
#[derive(Clone, Copy)]
struct Relation<'a> {
    name: &'a str,
    alias: &'static str,
    schema: &'a SchemaRef,
}

impl Relation<'_> {
    fn scope(&self) -> Scope {
        let mut scope = Scope::default();
        for field in self.schema.fields() {
            scope.add(format!("{}.{}", self.alias, field.name()), field.data_type());
        }
        scope
    }

    fn from(&self) -> String {
        format!("{} AS {}", self.name, self.alias)
    }

    /// All columns, named `c0` and on.
    fn all(&self) -> String {
        let names = self.schema.fields().iter().enumerate();
        names.map(|(i, f)| format!("{}.{} AS c{i}", self.alias, f.name())).collect::<Vec<_>>().join(", ")
    }

    fn bounded(&self) -> Vec<&Field> {
        self.schema.fields().iter().map(AsRef::as_ref).filter(|f: &&Field| f.name().starts_with(PREFIX)).collect()
    }
}

/// A query over what `program` has.
pub(super) fn query(rng: &mut Rng, program: &Program) -> String {
    if rng.once_in(8) {
        return queries::query(rng, program);
    }
    let kind = rng.below(12);
    let mut maker = Maker { rng, program };
    let query = match kind {
        0 | 1 => maker.grouped(),
        2 => maker.windowed(),
        3 => maker.sessions(),
        4 => maker.distinct(),
        5 => maker.ranked(),
        6 | 7 => maker.joined(),
        8 => maker.matched(),
        9 => maker.as_of(),
        10 => maker.union(),
        _ => maker.plain(),
    };
    query.unwrap_or_else(|| queries::query(rng, program))
}

impl<'a> Maker<'a> {
    /// One with a bounded column, if any view has one; tables do.
    fn relation(&mut self, alias: &'static str) -> Relation<'a> {
        let tables = self.program.tables.iter().map(|t| (&t.name, &t.schema));
        let views = self.program.views.iter().map(|v| (&v.name, &v.schema));
        let all: Vec<Relation<'a>> =
            tables.chain(views).map(|(name, schema)| Relation { name, alias, schema }).collect();
        let bounded: Vec<Relation<'a>> = all.iter().filter(|r| !r.bounded().is_empty()).copied().collect();
        if self.rng.once_in(10) { self.rng.one_of(&all) } else { self.rng.one_of(&bounded) }
    }

    /// A monotone expression over a bounded column of a relation, and its kind. `None`: it has none.
    fn time(&mut self, of: Relation<'_>) -> Option<(String, Kind)> {
        let columns = of.bounded();
        if columns.is_empty() {
            return None;
        }
        let field = self.rng.one_of(&columns);
        let column = format!("{}.{}", of.alias, field.name());
        let which = self.rng.below(6);
        Some(match field.data_type() {
            DataType::Timestamp(..) => match which {
                0 => (format!("({column} + INTERVAL '1 hour')"), Kind::Timestamp),
                1 => (format!("({column} - INTERVAL '90 minutes')"), Kind::Timestamp),
                2 => (format!("CAST({column} AS DATE)"), Kind::Date),
                // What it makes of what lies below a NULL may be a panic of the oracle's.
                3 | 4 if !field.is_nullable() => {
                    (format!("date_trunc('{}', {column})", self.rng.one_of(&["hour", "day"])), Kind::Timestamp)
                }
                _ => (column, Kind::Timestamp),
            },
            DataType::Date32 => match which {
                0 => (format!("CAST({column} AS TIMESTAMP)"), Kind::Timestamp),
                1 => (format!("({column} + INTERVAL '1 day')"), Kind::Date),
                _ => (column, Kind::Date),
            },
            other if other.is_integer() => match which {
                0 => (format!("CAST({column} AS BIGINT)"), Kind::Int),
                1 => (format!("({column} + 1)"), Kind::Int),
                _ => (column, Kind::Int),
            },
            // A view's column that something else has become of.
            _ => return None,
        })
    }

    /// A column besides the time: mostly of a fixed width, which may stand before it in a key.
    fn key(&mut self, scope: &Scope) -> Option<String> {
        let kind = scope.kind(self.rng);
        scope.column(self.rng, kind)
    }

    /// A time and sometimes a key, in any order, each once.
    fn keys(&mut self, time: &str, scope: &Scope) -> Vec<(String, String)> {
        let mut keys = vec![(time.to_owned(), format!("{PREFIX}0"))];
        if self.rng.once_in(2)
            && let Some(key) = self.key(scope).filter(|key| key != time)
        {
            keys.insert(self.rng.below(2) as usize, (key, "c0".to_owned()));
        }
        keys
    }

    fn filter(&mut self, scope: &Scope) -> String {
        if self.rng.once_in(3) { format!(" WHERE {}", predicate(self.rng, scope, 1)) } else { String::new() }
    }

    fn aggregates(&mut self, scope: &Scope) -> String {
        let count = 1 + self.rng.below(3);
        (0..count).map(|i| format!("{} AS a{i}", aggregate(self.rng, scope))).collect::<Vec<_>>().join(", ")
    }

    /// Columns of a scope, named `c0` and on.
    fn columns(&mut self, scope: &Scope, most: u64) -> String {
        let count = 1 + self.rng.below(most);
        let column = |i| {
            let kind = scope.kind(self.rng);
            format!("{} AS c{i}", scalar(self.rng, scope, kind, 1))
        };
        (0..count).map(column).collect::<Vec<_>>().join(", ")
    }

    fn grouped(&mut self) -> Option<String> {
        let relation = self.relation("r");
        let (time, _) = self.time(relation)?;
        Some(self.group_by(&time, &relation.scope(), &relation.from()))
    }

    /// Aggregates of what stands in FROM, by a time and sometimes a key.
    fn group_by(&mut self, time: &str, scope: &Scope, from: &str) -> String {
        let keys = self.keys(time, scope);
        let (select, by): (Vec<String>, Vec<&str>) =
            keys.iter().map(|(key, name)| (format!("{key} AS {name}"), key.as_str())).unzip();
        let (aggregates, filter) = (self.aggregates(scope), self.filter(scope));
        format!("SELECT {}, {aggregates} FROM {from}{filter} GROUP BY {}", select.join(", "), by.join(", "))
    }

    fn distinct(&mut self) -> Option<String> {
        let relation = self.relation("r");
        let (time, _) = self.time(relation)?;
        let scope = relation.scope();
        let select: Vec<String> =
            self.keys(&time, &scope).iter().map(|(key, name)| format!("{key} AS {name}")).collect();
        Some(format!("SELECT DISTINCT {} FROM {}{}", select.join(", "), relation.from(), self.filter(&scope)))
    }

    /// A bounded TIMESTAMP of a relation that has no window yet.
    fn timestamp(&mut self, of: Relation<'a>) -> Option<&'a str> {
        let is_time = |f: &&arrow::datatypes::FieldRef| {
            f.name().starts_with(PREFIX) && matches!(f.data_type(), DataType::Timestamp(_, None))
        };
        let times: Vec<&str> = of.schema.fields().iter().filter(is_time).map(|f| f.name().as_str()).collect();
        (!times.is_empty()).then(|| self.rng.one_of(&times))
    }

    fn windowed(&mut self) -> Option<String> {
        let relation = self.relation("r");
        let time = self.timestamp(relation)?;
        let window = match self.rng.below(3) {
            0 => format!("HOP(TABLE {}, DESCRIPTOR({time}), INTERVAL '1 hour', INTERVAL '6 hours')", relation.name),
            1 => {
                format!("TUMBLE(TABLE {}, DESCRIPTOR({time}), INTERVAL '6 hours', INTERVAL '7 minutes')", relation.name)
            }
            _ => format!("TUMBLE(TABLE {}, DESCRIPTOR({time}), INTERVAL '1 hour')", relation.name),
        };
        let bound = self.rng.one_of(&["window_start", "window_end"]);
        Some(self.group_by(&format!("r.{bound}"), &relation.scope(), &format!("{window} AS r")))
    }

    fn sessions(&mut self) -> Option<String> {
        let relation = self.relation("r");
        let time = self.timestamp(relation)?;
        let keys: Vec<&str> = (relation.schema.fields().iter())
            .filter(|f| matches!(f.data_type(), DataType::Utf8 | DataType::Int32 | DataType::Int64))
            .map(|f| f.name().as_str())
            .collect();
        let key = (!keys.is_empty() && self.rng.once_in(2)).then(|| self.rng.one_of(&keys));
        let partition = key.map_or_else(String::new, |key| format!(" PARTITION BY {key}"));
        let gap = self.rng.one_of(&["30 minutes", "1 hour", "6 hours"]);
        let from = format!("SESSION(TABLE {}{partition}, DESCRIPTOR({time}), INTERVAL '{gap}') AS r", relation.name);
        if self.rng.once_in(2) {
            return Some(format!("SELECT {}, r.window_end AS {PREFIX}0 FROM {from}", relation.all()));
        }
        let aggregates = self.aggregates(&relation.scope());
        let key = key.map_or_else(String::new, |key| format!(", r.{key}"));
        Some(format!(
            "SELECT r.window_end AS {PREFIX}0, r.window_start AS c0, {aggregates} FROM {from} GROUP BY r.window_end, r.window_start{key}"
        ))
    }

    /// Places in the order of a time's rows.
    fn ranked(&mut self) -> Option<String> {
        let relation = self.relation("r");
        let (time, _) = self.time(relation)?;
        let order = windows::total_order(self.rng, "r", relation.schema);
        let partition = match self.key(&relation.scope()).filter(|key| *key != time && self.rng.once_in(3)) {
            Some(key) => format!("PARTITION BY {key}, {time} "),
            None => format!("PARTITION BY {time} "),
        };
        let (all, from) = (relation.all(), relation.from());
        if self.rng.once_in(2) {
            let names: Vec<String> = (0..relation.schema.fields().len()).map(|i| format!("c{i}")).collect();
            return Some(format!(
                "SELECT {}, {PREFIX}0 FROM (SELECT {all}, {time} AS {PREFIX}0, row_number() OVER ({partition}ORDER BY {order}) AS n FROM {from}) AS w \
                 WHERE n <= {}",
                names.join(", "),
                1 + self.rng.below(3)
            ));
        }
        let over = (partition, order);
        let functions: Vec<String> = (0..1 + self.rng.below(2))
            .map(|i| format!("{} AS w{i}", windows::window_function(self.rng, "r", relation.schema, &over)))
            .collect();
        Some(format!("SELECT {all}, {time} AS {PREFIX}0, {} FROM {from}", functions.join(", ")))
    }

    /// Two relations and their times, which can be compared.
    fn pair(&mut self) -> Option<[(Relation<'a>, String); 2]> {
        for _ in 0..4 {
            let (left, right) = (self.relation("l"), self.relation("r"));
            if let (Some((l, of_left)), Some((r, of_right))) = (self.time(left), self.time(right))
                && of_left == of_right
            {
                return Some([(left, l), (right, r)]);
            }
        }
        None
    }

    /// An equality of columns of two scopes.
    fn equality(&mut self, left: &Scope, right: &Scope) -> Option<String> {
        let is_common = |k: &Kind| [left, right].iter().all(|s| s.0.iter().any(|c| c.1 == *k));
        let common: Vec<Kind> = KINDS.into_iter().filter(is_common).collect();
        if common.is_empty() {
            return None;
        }
        let kind = self.rng.one_of(&common);
        Some(format!("{} = {}", left.column(self.rng, kind)?, right.column(self.rng, kind)?))
    }

    fn joined(&mut self) -> Option<String> {
        let [(left, l), (right, r)] = self.pair()?;
        let (scope, right_scope) = (left.scope(), right.scope());
        let mut on = vec![format!("{l} = {r}")];
        if self.rng.once_in(2) {
            let at = self.rng.below(2) as usize;
            if let Some(more) = self.equality(&scope, &right_scope) {
                on.insert(at, more);
            }
        }
        let (join, keeps_right) = joins::kind(self.rng);
        let mut both = scope.clone();
        both.0.extend(right_scope.0);
        if join == "JOIN" && self.rng.once_in(6) {
            on.push(predicate(self.rng, &both, 1));
        }
        let columns = self.columns(if keeps_right { &both } else { &scope }, 3);
        let time = if join == "RIGHT JOIN" { r } else { l };
        Some(format!(
            "SELECT {columns}, {time} AS {PREFIX}0 FROM {} {join} {} ON {}",
            left.from(),
            right.from(),
            on.join(" AND ")
        ))
    }

    /// IN and EXISTS.
    fn matched(&mut self) -> Option<String> {
        let [(left, l), (right, r)] = self.pair()?;
        let (scope, inner) = (left.scope(), right.scope());
        let not = self.rng.one_of(&["", "NOT "]);
        let condition = match self.rng.once_in(2) {
            true => format!("{l} {not}IN (SELECT {r} FROM {}{})", right.from(), self.filter(&inner)),
            false => {
                let more = if self.rng.once_in(2) { self.equality(&scope, &inner) } else { None };
                let more = more.map_or_else(String::new, |more| format!(" AND {more}"));
                format!("{not}EXISTS (SELECT 1 FROM {} WHERE {l} = {r}{more})", right.from())
            }
        };
        let columns = self.columns(&scope, 3);
        Some(format!("SELECT {columns}, {l} AS {PREFIX}0 FROM {} WHERE {condition}", left.from()))
    }

    /// The nearest time of another relation. Only that: of rows that have the same one, any is the nearest.
    fn as_of(&mut self) -> Option<String> {
        for _ in 0..4 {
            let (left, right) = (self.relation("l"), self.relation("r"));
            let times = (left.bounded(), right.bounded());
            if times.0.is_empty() || times.1.is_empty() {
                continue;
            }
            let (of_left, of_right) = (self.rng.one_of(&times.0), self.rng.one_of(&times.1));
            let Some(on) = self.equality(&left.scope(), &right.scope()) else { continue };
            if of_left.data_type() != of_right.data_type() {
                continue;
            }
            let operator = self.rng.one_of(&[">=", ">", ">=", "<=", "<"]);
            let nearest = format!("r.{}", of_right.name());
            let mut all: Vec<String> = left.schema.fields().iter().map(|f| format!("l.{}", f.name())).collect();
            // A name that the left side may have is taken from it.
            all.retain(|column| column != "l.e");
            return Some(format!(
                "SELECT a.{time} AS {PREFIX}0, a.{first} AS c0, a.e AS c1 FROM (SELECT {}, {nearest} AS e FROM {} LEFT ASOF JOIN {} \
                 MATCH_CONDITION (l.{time} {operator} {nearest}) ON {on}) AS a",
                all.join(", "),
                left.from(),
                right.from(),
                time = of_left.name(),
                first = left.schema.field(0).name(),
            ));
        }
        None
    }

    fn union(&mut self) -> Option<String> {
        let [(left, l), (right, r)] = self.pair()?;
        let (scope, other) = (left.scope(), right.scope());
        let kind = scope.kind(self.rng);
        let side = |rng: &mut Rng, time: &str, of: Relation<'_>, scope: &Scope| {
            format!("SELECT {time} AS {PREFIX}0, {} AS c0 FROM {}", scalar(rng, scope, kind, 0), of.from())
        };
        let (left, right) = (side(self.rng, &l, left, &scope), side(self.rng, &r, right, &other));
        Some(format!("{left} UNION {}{right}", self.rng.one_of(&["ALL ", "ALL ", ""])))
    }

    fn plain(&mut self) -> Option<String> {
        let relation = self.relation("r");
        let (time, _) = self.time(relation)?;
        let scope = relation.scope();
        let (columns, filter) = (self.columns(&scope, 3), self.filter(&scope));
        Some(format!("SELECT {columns}, {time} AS {PREFIX}0 FROM {}{filter}", relation.from()))
    }
}
