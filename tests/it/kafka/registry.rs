//! A schema registry for tests: what Confluent's answers to the two questions that Backstay has. It is not the real one, which no registry of packages has.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

/// What is known: subject and schema of each id from 1 on.
#[derive(Default)]
pub struct Known {
    schemas: Mutex<Vec<(String, String)>>,
    is_down: AtomicBool,
}

pub struct Registry {
    pub url: String,
    pub known: Arc<Known>,
    _runtime: tokio::runtime::Runtime,
}

type Answer = (StatusCode, Json<Value>);

fn allowed(known: &Known, headers: &HeaderMap) -> Result<(), Answer> {
    if known.is_down.load(Ordering::Relaxed) {
        return Err((StatusCode::SERVICE_UNAVAILABLE, Json(json!({"error_code": 50003, "message": "not now"}))));
    }
    // me:secret/7
    match headers.get("authorization").is_some_and(|v| v == "Basic bWU6c2VjcmV0Lzc=") {
        true => Ok(()),
        false => Err((StatusCode::UNAUTHORIZED, Json(json!({"error_code": 401, "message": "who are you?"})))),
    }
}

async fn schema(State(known): State<Arc<Known>>, Path(id): Path<usize>, headers: HeaderMap) -> Result<Answer, Answer> {
    allowed(&known, &headers)?;
    match id.checked_sub(1).and_then(|i| known.schemas.lock().unwrap().get(i).cloned()) {
        Some((_, schema)) => Ok((StatusCode::OK, Json(json!({"schema": schema})))),
        None => Err((StatusCode::NOT_FOUND, Json(json!({"error_code": 40403, "message": "Schema not found"})))),
    }
}

async fn register(
    State(known): State<Arc<Known>>,
    Path(subject): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Result<Answer, Answer> {
    allowed(&known, &headers)?;
    Ok((StatusCode::OK, Json(json!({"id": known.register(&subject, body["schema"].as_str().unwrap())}))))
}

impl Known {
    fn register(&self, subject: &str, schema: &str) -> usize {
        let mut schemas = self.schemas.lock().unwrap();
        let entry = (subject.to_owned(), schema.to_owned());
        let found = schemas.iter().position(|known| *known == entry);
        1 + found.unwrap_or_else(|| {
            schemas.push(entry);
            schemas.len() - 1
        })
    }

    /// The schema of an id.
    pub fn schema(&self, id: u32) -> String {
        self.schemas.lock().unwrap()[id as usize - 1].1.clone()
    }

    /// The subjects, in the order of their first schemas.
    pub fn subjects(&self) -> Vec<String> {
        self.schemas.lock().unwrap().iter().map(|(subject, _)| subject.clone()).collect()
    }

    /// Whether it answers.
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }
}

impl Registry {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let known = Arc::new(Known::default());
        let router = Router::new()
            .route("/schemas/ids/{id}", get(schema))
            .route("/subjects/{subject}/versions", post(register))
            .with_state(Arc::clone(&known));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async { axum::serve(listener, router).await });
        Self { url, known, _runtime: runtime }
    }

    /// Makes a schema known; gives its id.
    pub fn register(&self, subject: &str, schema: &str) -> u32 {
        self.known.register(subject, schema) as u32
    }
}
