//! The OpenAPI document: made from the same declarations as the routes, so that neither can be there without the other.
//!
//! What all routes have in common is added here: the key, and the standard body of errors.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as Document, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use crate::server::error::ErrorBody;

/// What is not said at a route.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Backstay",
        description = "Pipelines of SQL views that are kept up to date, exactly once. Feldera's REST API, as far as it goes.",
    ),
    components(schemas(ErrorBody)),
    modifiers(&Key),
    security(("key" = []), ()),
    tags(
        (name = "pipelines", description = "Pipelines as things, and what they are to do"),
        (name = "data", description = "What a running pipeline is asked and given"),
        (name = "service", description = "The service itself"),
    ),
)]
pub(super) struct Api;

/// The API key, for a service that has one.
struct Key;

impl Modify for Key {
    fn modify(&self, document: &mut Document) {
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        document.components.get_or_insert_default().add_security_scheme("key", scheme);
    }
}

/// Adds to every operation the answer that any may give instead of its own.
pub(super) fn complete(mut document: Document) -> Document {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
    let error = ResponseBuilder::new().description("What is wrong").content("application/json", body).build();
    for path in document.paths.paths.values_mut() {
        let operations = [&mut path.get, &mut path.put, &mut path.post, &mut path.patch, &mut path.delete];
        for operation in operations.into_iter().filter_map(Option::as_mut) {
            operation.responses.responses.insert("default".to_owned(), RefOr::T(error.clone()));
        }
    }
    document
}
