//! The marker: a row of the table `backstay_sinks`, beside the sink's table, that says up to which step that holds the view.
//!
//! It changes in the same transactions as the sink's table. A process takes it over by its store's epoch: it waits for a transaction of a
//! predecessor's that holds the row, then raises the epoch, after which no transaction of that predecessor changes it any more.

use tokio_postgres::{Client, Row};

use crate::connector::postgres::session::{Failure, Session};
use crate::sql::quoted_text;

/// Whose marker it is.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) pipeline: String,
    pub(super) connector: String,
    pub(super) incarnation: uuid::Uuid,
    pub(super) epoch: i64,
}

/// The marker as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) incarnation: String,
    pub(super) epoch: i64,
    pub(super) step: u64,
    /// The sink's table.
    pub(super) target: String,
}

/// The table of markers of one schema.
#[derive(Debug)]
pub(super) struct Markers {
    /// With its schema, quoted.
    pub(super) table: String,
}

impl Markers {
    /// Those of a schema (quoted); makes their table if there is none.
    pub(super) fn of(session: &Session, schema: &str) -> Result<Self, Failure> {
        let table = format!("{schema}.backstay_sinks");
        let there: bool = session.run(async |client| {
            client.query_one("SELECT to_regclass($1::text) IS NOT NULL", &[&table]).await?.try_get(0)
        })?;
        if !there {
            let create = Self::declaration(&table);
            let made = session.statements(&create);
            // Another pipeline may have made it at the same time, of which IF NOT EXISTS takes no notice.
            if let Err(failure) = made
                && !failure.database().is_some_and(|e| ["23505", "42P07"].contains(&e.code().code()))
            {
                return Err(failure);
            }
        }
        Ok(Self { table })
    }

    fn declaration(table: &str) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (pipeline text NOT NULL, connector text NOT NULL, incarnation uuid NOT NULL, \
             epoch bigint NOT NULL, step bigint NOT NULL, target text NOT NULL, updated timestamptz NOT NULL DEFAULT now(), \
             PRIMARY KEY (pipeline, connector))"
        )
    }

    /// Within a transaction: the owner's marker, once no other transaction holds it.
    pub(super) fn lock(&self, session: &Session, owner: &Owner) -> Result<Option<Marker>, Failure> {
        let sql = format!(
            "SELECT incarnation::text, epoch, step, target FROM {} WHERE pipeline = $1 AND connector = $2 FOR UPDATE",
            self.table
        );
        let marker = |row: Row| {
            Ok(Marker {
                incarnation: row.try_get(0)?,
                epoch: row.try_get(1)?,
                step: u64::try_from(row.try_get::<_, i64>(2)?).unwrap_or(0),
                target: row.try_get(3)?,
            })
        };
        session.run(async |client| {
            client.query_opt(&sql, &[&owner.pipeline, &owner.connector]).await?.map(marker).transpose()
        })
    }

    /// Within a transaction: makes the marker. False: there is one.
    pub(super) fn insert(&self, session: &Session, owner: &Owner, step: u64, target: &str) -> Result<bool, Failure> {
        let sql = format!(
            "INSERT INTO {} (pipeline, connector, incarnation, epoch, step, target) VALUES ($1, $2, $3::text::uuid, $4, $5, $6) \
             ON CONFLICT DO NOTHING",
            self.table
        );
        let (incarnation, step) = (owner.incarnation.to_string(), step as i64);
        let changed = session.run(async |client| {
            let params: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
                [&owner.pipeline, &owner.connector, &incarnation, &owner.epoch, &step, &target];
            client.execute(&sql, &params).await
        })?;
        Ok(changed == 1)
    }

    /// Raises the locked marker's epoch to the owner's.
    pub(super) fn take_over(&self, session: &Session, owner: &Owner) -> Result<(), Failure> {
        let sql =
            format!("UPDATE {} SET epoch = $3, updated = now() WHERE pipeline = $1 AND connector = $2", self.table);
        session.run(async |client| {
            client.execute(&sql, &[&owner.pipeline, &owner.connector, &owner.epoch]).await.map(|_| ())
        })
    }

    /// Moves the marker to a step. False: it is not the owner's any more.
    pub(super) fn advance(&self, session: &Session, owner: &Owner, step: u64) -> Result<bool, Failure> {
        let sql = format!(
            "UPDATE {} SET step = $5, updated = now() WHERE pipeline = $1 AND connector = $2 AND incarnation = $3::text::uuid AND epoch = $4",
            self.table
        );
        let (incarnation, step) = (owner.incarnation.to_string(), step as i64);
        let changed = session.run(async |client| execute(client, &sql, owner, &incarnation, step).await)?;
        Ok(changed == 1)
    }

    /// Another sink into the same table, that holds it by key as well.
    pub(super) fn rival(&self, session: &Session, owner: &Owner, target: &str) -> Result<Option<String>, Failure> {
        let sql = format!(
            "SELECT connector || ' of pipeline ' || pipeline FROM {} WHERE target = $3 AND (pipeline, connector) <> ($1, $2) LIMIT 1",
            self.table
        );
        session.run(async |client| {
            client
                .query_opt(&sql, &[&owner.pipeline, &owner.connector, &target])
                .await?
                .map(|row| row.try_get(0))
                .transpose()
        })
    }

    /// The statement that forgets a marker, for a person to run.
    pub(super) fn forget(&self, owner: &Owner) -> String {
        format!(
            "DELETE FROM {} WHERE pipeline = {} AND connector = {}",
            self.table,
            quoted_text(&owner.pipeline),
            quoted_text(&owner.connector)
        )
    }
}

async fn execute(
    client: &Client,
    sql: &str,
    owner: &Owner,
    incarnation: &str,
    step: i64,
) -> Result<u64, tokio_postgres::Error> {
    client.execute(sql, &[&owner.pipeline, &owner.connector, &incarnation, &owner.epoch, &step]).await
}
