//! Queries of a connection, simple and extended.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use futures_util::Sink;
use pgwire::api::portal::{Format, Portal};
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use pgwire::api::results::{
    DescribePortalResponse, DescribeResponse, DescribeStatementResponse, FieldInfo, Response, Tag,
};
use pgwire::api::stmt::{QueryParser, StoredStatement};
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore, Type};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;

use super::super::Manager;
use super::super::managed::Managed;
use super::ask::{ask, decode};
use super::gate::Visitor;
use super::startup::database;
use super::statement::{Kind, Statement};
use super::{catalog, dialect, error, fatal, parameters, rows};

/// What answers queries.
#[derive(Debug)]
pub(super) struct Session {
    manager: Arc<Manager>,
    visitor: Arc<Visitor>,
    parser: Arc<OneStatement>,
}

impl Session {
    pub(super) fn new(manager: Arc<Manager>, visitor: Arc<Visitor>) -> Self {
        Self { manager, visitor, parser: Arc::new(OneStatement) }
    }

    /// The pipeline of a connection. It may have been deleted meanwhile.
    fn pipeline(&self, client: &impl ClientInfo) -> PgWireResult<Arc<Managed>> {
        self.manager.find(database(client)).map_err(|e| error("3D000", e.message))
    }

    /// The rows of a statement whose parameters are in `sql`, or only its columns; nothing, if it has none.
    async fn rows(
        &self,
        client: &impl ClientInfo,
        kind: &Kind,
        sql: &str,
        only_columns: bool,
    ) -> PgWireResult<Option<RecordBatch>> {
        if !self.visitor.is_in() {
            return Err(fatal("28000", "this connection was refused"));
        }
        match kind {
            Kind::Pipeline => {
                let (pipeline, sql) = (self.pipeline(client)?, dialect::without_public(sql)?);
                Ok(Some(ask(&pipeline, &sql, only_columns).await?))
            }
            Kind::Catalog => {
                let pipeline = self.pipeline(client)?;
                let relations = pipeline.compiled().await.relations().to_vec();
                let answer = self.manager.compiler.catalog(pipeline.name(), sql.to_owned(), relations).await;
                let rows = answer.map_err(|refusal| error(&refusal.state, refusal.message))?;
                decode(&rows).map(Some).map_err(|e| error("XX000", format!("the catalog's answer: {e}")))
            }
            Kind::Show(name) => {
                let value = match name.as_str() {
                    "all" => return Err(error("0A000", "SHOW ALL is not supported; name a setting")),
                    name => catalog::setting(name)
                        .ok_or_else(|| error("42704", format!("there is no setting \"{name}\"")))?,
                };
                let schema = Arc::new(Schema::new(vec![Field::new(name, DataType::Utf8, false)]));
                let column = Arc::new(StringArray::from(vec![value]));
                let rows = RecordBatch::try_new(schema, vec![column]).map_err(|e| error("XX000", e.to_string()))?;
                Ok(Some(rows))
            }
            Kind::Refused(word) => Err(error(
                "25006",
                format!("{word}: only queries are answered here; rows come in by connectors and by POST …/ingress"),
            )),
            Kind::Begin | Kind::End(_) | Kind::Quiet(_) => Ok(None),
        }
    }

    async fn execute(
        &self,
        client: &impl ClientInfo,
        kind: &Kind,
        sql: &str,
        format: &Format,
    ) -> PgWireResult<Response> {
        if let Some(rows) = self.rows(client, kind, sql, false).await? {
            return Ok(Response::Query(rows::response(&rows, format)?));
        }
        Ok(match kind {
            Kind::Begin => Response::TransactionStart(Tag::new("BEGIN")),
            Kind::End(command) => Response::TransactionEnd(Tag::new(command)),
            Kind::Quiet(command) => Response::Execution(Tag::new(command)),
            _ => Response::EmptyQuery,
        })
    }

    async fn columns(
        &self,
        client: &impl ClientInfo,
        kind: &Kind,
        sql: &str,
        format: &Format,
    ) -> PgWireResult<Option<Vec<FieldInfo>>> {
        let rows = self.rows(client, kind, sql, true).await?;
        rows.map(|rows| rows::columns(&rows.schema(), format)).transpose()
    }
}

#[async_trait]
impl SimpleQueryHandler for Session {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut responses = Vec::new();
        for statement in Statement::split(query)? {
            match self.execute(client, &statement.kind, &statement.text, &Format::UnifiedText).await {
                Ok(response) => responses.push(response),
                // What came before it has been answered; what comes after it is not done.
                Err(PgWireError::UserError(info)) => {
                    responses.push(Response::Error(info));
                    break;
                }
                Err(other) => return Err(other),
            }
        }
        if responses.is_empty() {
            responses.push(Response::EmptyQuery);
        }
        Ok(responses)
    }
}

/// Takes one statement from the text of a Parse message.
#[derive(Debug)]
pub(super) struct OneStatement;

#[async_trait]
impl QueryParser for OneStatement {
    type Statement = Statement;

    async fn parse_sql<C>(&self, _: &C, sql: &str, _: &[Option<Type>]) -> PgWireResult<Option<Statement>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let mut statements = Statement::split(sql)?.into_iter();
        match (statements.next(), statements.next()) {
            (_, Some(_)) => Err(error("42601", "a prepared statement is one statement")),
            (first, None) => Ok(first),
        }
    }

    /// Those that the client did not declare are texts, which take their type from where they stand.
    fn get_parameter_types(&self, statement: &Statement) -> PgWireResult<Vec<Type>> {
        Ok(vec![Type::TEXT; statement.parameters()])
    }

    /// Not asked for: [`Session`] describes by itself, since the pipeline knows.
    fn get_result_schema(&self, _: &Statement, _: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        Err(error("XX000", "columns are known to the pipeline only"))
    }
}

/// What a portal asks for, with its parameters in the text.
fn bound(portal: &Portal<Statement>) -> PgWireResult<(&Kind, String)> {
    let statement = &portal.statement.statement;
    Ok((&statement.kind, statement.with(&parameters::literals(portal)?)))
}

#[async_trait]
impl ExtendedQueryHandler for Session {
    type Statement = Statement;
    type QueryParser = OneStatement;

    fn query_parser(&self) -> Arc<OneStatement> {
        Arc::clone(&self.parser)
    }

    async fn do_query<C>(&self, client: &mut C, portal: &Portal<Statement>, _: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let (kind, sql) = bound(portal)?;
        self.execute(client, kind, &sql, &portal.result_column_format).await
    }

    async fn do_describe_statement<C>(
        &self,
        client: &mut C,
        stored: &StoredStatement<Statement>,
    ) -> PgWireResult<DescribeStatementResponse>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let (statement, count) = (&stored.statement, stored.statement.parameters());
        let declared = |i: usize| stored.parameter_types.get(i).cloned().flatten();
        let types = (0..count).map(|i| declared(i).unwrap_or(Type::TEXT)).collect();
        let sql = statement.with(&parameters::unknown(&stored.parameter_types, count));
        Ok(match self.columns(client, &statement.kind, &sql, &Format::UnifiedText).await? {
            Some(columns) => DescribeStatementResponse::new(types, columns),
            None => DescribeStatementResponse::no_data(),
        })
    }

    async fn do_describe_portal<C>(
        &self,
        client: &mut C,
        portal: &Portal<Statement>,
    ) -> PgWireResult<DescribePortalResponse>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let (kind, sql) = bound(portal)?;
        Ok(match self.columns(client, kind, &sql, &portal.result_column_format).await? {
            Some(columns) => DescribePortalResponse::new(columns),
            None => DescribePortalResponse::no_data(),
        })
    }
}
