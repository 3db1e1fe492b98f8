//! `postgres_output` against a real server.

mod clusters;
mod contents;
mod crashes;
mod input;
mod refusals;
mod secure;
pub mod server;

use crate::cli::Place;
use server::{Database, Server};

/// A view's connector to a table of the database, with more settings (`, "key": …`).
fn sink(db: &Database, table: &str, more: &str) -> String {
    format!(
        r#"WITH ('connectors' = '[{{"name": "pg", "transport": {{"name": "postgres_output", "config": {{"uri": "{}", "table": "{table}"{more}}}}}}}]')"#,
        db.uri
    )
}

/// Sums by key, as in the tests of the command line, into table `v`.
fn sums(db: &Database, table: &str, more: &str) -> String {
    format!(
        "CREATE TABLE t (k VARCHAR NOT NULL, n BIGINT) WITH ('connectors' = '[{{\"transport\": {{\"name\": \"file_input\", \
         \"config\": {{\"path\": \"t.csv\"}}}}, \"format\": {{\"name\": \"csv\"}}}}]');\n\
         CREATE VIEW v {} AS SELECT k, sum(n) AS n FROM t GROUP BY k;\n",
        sink(db, table, more)
    )
}

const SUMS: &str = "CREATE TABLE v (k text PRIMARY KEY, n bigint)";

/// A place whose program sums into table `v` of a database of its own.
fn place(server: &std::sync::Arc<Server>) -> (Place, Database) {
    let (place, db) = (Place::new(), server.database());
    db.execute(SUMS);
    place.write("p.sql", &sums(&db, "v", ""));
    (place, db)
}
