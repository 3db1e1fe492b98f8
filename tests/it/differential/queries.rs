//! Random queries over the tables and views of a program.
//!
//! Left out: MIN and MAX of floats, where DataFusion's answer depends on the order of rows if there is a NaN; groups and keys of
//! computed floats (see `expressions`).

use std::fmt::Write;

use arrow::datatypes::SchemaRef;
use backstay::sql::Program;

use super::aggregates::aggregate;
use super::expressions::{KINDS, Kind, Scope, leaf, predicate, scalar};
use super::joins;
use super::windows;
use crate::rng::Rng;

/// Makes the query of one view.
struct Maker<'a> {
    rng: &'a mut Rng,
    program: &'a Program,
    aliases: u32,
}

/// A query over what `program` has.
pub(super) fn query(rng: &mut Rng, program: &Program) -> String {
    Maker { rng, program, aliases: 0 }.query()
}

impl<'a> Maker<'a> {
    fn query(&mut self) -> String {
        match self.rng.below(7) {
            6 => {
                let (name, schema) = self.one_relation();
                windows::ordered(self.rng, name, schema)
            }
            0 => self.set_operation(),
            1 | 2 => self.grouped(),
            3 => {
                let width = 1 + self.rng.below(3);
                let (from, scope) = self.from(2);
                let kinds: Vec<Kind> = (0..width).map(|_| scope.kind(self.rng)).collect();
                format!("SELECT DISTINCT {} {from}{}", self.groups(&scope, &kinds), self.filter(&scope))
            }
            _ => {
                let (from, scope) = self.from(3);
                let width = 1 + self.rng.below(4);
                let kinds: Vec<Kind> = (0..width).map(|_| scope.kind(self.rng)).collect();
                self.select(from, &scope, &kinds)
            }
        }
    }

    /// Columns of these kinds out of a scope.
    fn select(&mut self, from: String, scope: &Scope, kinds: &[Kind]) -> String {
        let columns =
            kinds.iter().enumerate().map(|(i, &kind)| format!("{} AS c{i}", scalar(self.rng, scope, kind, 2)));
        let columns: Vec<String> = columns.collect();
        format!("SELECT {} {from}{}", columns.join(", "), self.filter(scope))
    }

    /// Columns that rows can be grouped by.
    fn groups(&mut self, scope: &Scope, kinds: &[Kind]) -> String {
        let columns = kinds.iter().enumerate().map(|(i, &kind)| format!("{} AS c{i}", self.group(scope, kind)));
        columns.collect::<Vec<_>>().join(", ")
    }

    fn group(&mut self, scope: &Scope, kind: Kind) -> String {
        match kind {
            Kind::Float => leaf(self.rng, scope, kind),
            _ => scalar(self.rng, scope, kind, 1),
        }
    }

    fn filter(&mut self, scope: &Scope) -> String {
        let mut conditions = Vec::new();
        if self.rng.once_in(2) {
            conditions.push(predicate(self.rng, scope, 2));
        }
        if self.rng.once_in(6) {
            let (relation, inner) = self.relation();
            conditions.push(joins::condition(self.rng, scope, &relation, &inner));
        }
        if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) }
    }

    fn set_operation(&mut self) -> String {
        let kinds: Vec<Kind> = (0..1 + self.rng.below(2)).map(|_| self.rng.one_of(&KINDS)).collect();
        let operator = self.rng.one_of(&["UNION ALL", "UNION", "UNION ALL", "UNION", "INTERSECT", "EXCEPT"]);
        let mut sql = String::new();
        for part in 0..2 + self.rng.below(2) {
            if part > 0 {
                write!(sql, " {operator} ").unwrap();
            }
            let (from, scope) = self.from(1);
            let columns = self.groups(&scope, &kinds);
            write!(sql, "SELECT {columns} {from}{}", self.filter(&scope)).unwrap();
        }
        sql
    }

    fn grouped(&mut self) -> String {
        let (from, scope) = self.from(2);
        let mut columns = Vec::new();
        let mut groups = Vec::new();
        let has_sets = self.rng.once_in(4);
        for i in 0..self.rng.below(3) {
            let kind = scope.kind(self.rng);
            // Of what is computed the oracle does not always know that a set has it.
            let group = match has_sets {
                false => self.group(&scope, kind),
                true => match scope.column(self.rng, kind) {
                    Some(column) => column,
                    None => continue,
                },
            };
            columns.push(format!("{group} AS c{i}"));
            // A number would be a position.
            let is_position = !has_sets && (self.rng.once_in(3) || group.parse::<u64>().is_ok());
            if has_sets && groups.contains(&group) {
                // DataFusion takes a column once.
                columns.pop();
                continue;
            }
            groups.push(if is_position { (i + 1).to_string() } else { group });
        }
        for i in 0..1 + self.rng.below(3) {
            columns.push(format!("{} AS a{i}", aggregate(self.rng, &scope)));
        }
        let mut sql = format!("SELECT {} {from}{}", columns.join(", "), self.filter(&scope));
        if !groups.is_empty() {
            let all = groups.join(", ");
            let by = match self.rng.below(3) {
                _ if !has_sets => all,
                0 => format!("ROLLUP ({all})"),
                1 => format!("CUBE ({all})"),
                _ => format!("GROUPING SETS (({all}), ({}), ())", groups.last().unwrap()),
            };
            write!(sql, " GROUP BY {by}").unwrap();
        }
        if self.rng.once_in(3) {
            write!(sql, " HAVING {} > {}", self.rng.one_of(&["count(*)", "max(1)"]), self.rng.below(4)).unwrap();
        }
        sql
    }

    /// FROM with up to `most` relations.
    fn from(&mut self, most: u64) -> (String, Scope) {
        let (mut sql, mut scope) = self.relation();
        for _ in 1..1 + self.rng.below(most) {
            let (right, right_scope) = self.relation();
            let kinds: Vec<Kind> = KINDS
                .into_iter()
                .filter(|k| [&scope, &right_scope].iter().all(|s| s.0.iter().any(|c| c.1 == *k)))
                .collect();
            if kinds.is_empty() {
                break;
            }
            let mut on = Vec::new();
            for _ in 0..1 + self.rng.below(2) {
                let kind = self.rng.one_of(&kinds);
                let sides = (scope.column(self.rng, kind), right_scope.column(self.rng, kind));
                let (Some(l), Some(r)) = sides else { continue };
                let operator = if self.rng.once_in(6) { "IS NOT DISTINCT FROM" } else { "=" };
                on.push(format!("({l} {operator} {r})"));
            }
            let (join, keeps_right) = joins::kind(self.rng);
            let mut both = scope.clone();
            both.0.extend(right_scope.0);
            // It may have the clock in it, which the ON of other joins cannot.
            if self.rng.once_in(6) && join == "JOIN" {
                on.push(predicate(self.rng, &both, 1));
            }
            write!(sql, " {join} {right} ON {}", on.join(" AND ")).unwrap();
            if keeps_right {
                scope = both;
            }
        }
        (format!("FROM {sql}"), scope)
    }

    /// A table or a view.
    fn one_relation(&mut self) -> (&'a str, &'a SchemaRef) {
        let relations: Vec<_> = (self.program.tables.iter().map(|t| (t.name.as_str(), &t.schema)))
            .chain(self.program.views.iter().map(|v| (v.name.as_str(), &v.schema)))
            .collect();
        relations[self.rng.below(relations.len() as u64) as usize]
    }

    /// A relation's rows with the nearest time of another one's. Only the time: of rows that have the same one, any is the nearest.
    fn as_of(&mut self, left: (&str, &SchemaRef), alias: &str, scope: &mut Scope) -> Option<String> {
        let right = self.one_relation();
        let columns = |schema: &SchemaRef, side: &str| {
            let mut columns = Scope::default();
            schema.fields().iter().for_each(|f| columns.add(format!("{alias}{side}.{}", f.name()), f.data_type()));
            columns
        };
        let (l, r) = (columns(left.1, "l"), columns(right.1, "r"));
        let kinds = [Kind::Int, Kind::Timestamp, Kind::Date, Kind::Text];
        let both = |kind: &Kind| [&l, &r].iter().all(|scope| scope.0.iter().any(|c| c.1 == *kind));
        let kinds: Vec<Kind> = kinds.into_iter().filter(both).collect();
        if kinds.is_empty() {
            return None;
        }
        let (of_time, of_key) = (self.rng.one_of(&kinds), self.rng.one_of(&kinds));
        let (time, nearest) = (l.column(self.rng, of_time)?, r.column(self.rng, of_time)?);
        let (key, other_key) = (l.column(self.rng, of_key)?, r.column(self.rng, of_key)?);
        let operator = self.rng.one_of(&[">=", ">", "<=", "<"]);
        let all: Vec<String> = left.1.fields().iter().map(|f| format!("{alias}l.{}", f.name())).collect();
        scope.0.push((format!("{alias}.e"), of_time));
        Some(format!(
            "(SELECT {}, {nearest} AS e FROM {} AS {alias}l LEFT ASOF JOIN {} AS {alias}r MATCH_CONDITION ({time} {operator} {nearest}) \
             ON {key} = {other_key}) AS {alias}",
            all.join(", "),
            left.0,
            right.0,
        ))
    }

    /// A table, a view or a sub-query, with its alias.
    fn relation(&mut self) -> (String, Scope) {
        let (name, schema) = self.one_relation();
        let alias = format!("r{}", self.aliases);
        self.aliases += 1;
        let mut scope = Scope::default();
        for field in schema.fields() {
            scope.add(format!("{alias}.{}", field.name()), field.data_type());
        }
        if !self.rng.once_in(8) {
            return (format!("{name} AS {alias}"), scope);
        }
        if self.rng.once_in(2)
            && let Some(windows) = super::time::windows(self.rng, name, schema)
        {
            for column in ["window_start", "window_end"] {
                scope.0.push((format!("{alias}.{column}"), Kind::Timestamp));
            }
            return (format!("{windows} AS {alias}"), scope);
        }
        if self.rng.once_in(3)
            && let Some(joined) = self.as_of((name, schema), &alias, &mut scope)
        {
            return (joined, scope);
        }
        if self.rng.once_in(3) {
            let column = self.rng.below(schema.fields().len() as u64) as usize;
            let field = schema.field(column);
            scope.add(format!("{alias}.e"), field.data_type());
            let name_of = |f: &arrow::datatypes::FieldRef| format!("{alias}.{}", f.name());
            let all: Vec<String> = schema.fields().iter().map(name_of).collect();
            let array = match self.rng.below(3) {
                0 => format!("make_array({0}, {0})", all[column]),
                1 => format!("make_array({0}, NULL, {0})", all[column]),
                // No row, or one.
                _ => format!("CASE WHEN {0} IS NULL THEN NULL ELSE make_array({0}) END", all[column]),
            };
            return (
                format!("(SELECT {}, unnest({array}) AS e FROM {name} AS {alias}) AS {alias}", all.join(", ")),
                scope,
            );
        }
        // Its columns keep their names.
        let filter = predicate(self.rng, &scope, 1);
        (format!("(SELECT * FROM {name} AS {alias} WHERE {filter}) AS {alias}"), scope)
    }
}
