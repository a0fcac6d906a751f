//! Requests to the second door, as `gm_api::register` describes them.

use std::collections::HashMap;
use std::net::SocketAddr;

use axum::extract::{Path, Query, State};
use gm_api::control::ApiError;
use gm_api::register::{FlowRequest, RegisterRequest, ResponseRequest};

use super::App;
use super::answer::{Answer, Failure, json};
use super::handlers::{Body, Shared, blocking, parse};
use crate::door::Door;

type Parameters = Query<HashMap<String, String>>;

impl App {
    fn door(&self) -> Result<&Door, ApiError> {
        self.door.get().ok_or_else(|| {
            ApiError::new(
                "no-door",
                "the SIP of registrations is not asked about here",
            )
            .hint("set [edge] door = \"http\" for a SIP proxy of your own")
        })
    }
}

pub(super) async fn register(State(app): Shared, body: Body) -> Answer {
    let request: RegisterRequest = parse(body)?;
    json(blocking(&app, move |app| app.door()?.register(&request)).await?)
}

pub(super) async fn response(State(app): Shared, Path(id): Path<String>, body: Body) -> Answer {
    let id = number(&id)?;
    let request: ResponseRequest = parse(body)?;
    json(blocking(&app, move |app| app.door()?.response(id, &request)).await?)
}

pub(super) async fn abort(State(app): Shared, Path(id): Path<String>) -> Answer {
    let id = number(&id)?;
    json(blocking(&app, move |app| Ok(app.door()?.abort(id))).await?)
}

pub(super) async fn flow(State(app): Shared, body: Body) -> Answer {
    let request: FlowRequest = parse(body)?;
    json(blocking(&app, move |app| app.door()?.flow(&request)).await?)
}

pub(super) async fn way(State(app): Shared, Query(query): Parameters) -> Answer {
    only(&query, &["to", "impi"])?;
    let to = match query.get("to") {
        Some(text) => Some(address(text)?),
        None => None,
    };
    let impi = query.get("impi").cloned();
    json(blocking(&app, move |app| app.door()?.way(to, impi.as_deref())).await?)
}

pub(super) async fn list(State(app): Shared) -> Answer {
    json(blocking(&app, |app| Ok(app.door()?.registrations())).await?)
}

pub(super) async fn deregister(State(app): Shared, Query(query): Parameters) -> Answer {
    only(&query, &["impi"])?;
    let impi = query
        .get("impi")
        .cloned()
        .ok_or_else(|| bad("impi is missing"))?;
    let reply = blocking(&app, move |app| Ok(app.door()?.deregister(&impi))).await?;
    json(reply)
}

fn bad(message: &str) -> Failure {
    Failure(ApiError::new("bad-request", message).hint("GET /v1/openapi.json describes the paths"))
}

fn number(text: &str) -> Result<u64, Failure> {
    text.parse().map_err(|_| bad("the id is no number"))
}

fn address(text: &str) -> Result<SocketAddr, Failure> {
    text.parse()
        .map_err(|_| bad("to is no ADDRESS:PORT, or [ADDRESS]:PORT"))
}

fn only(query: &HashMap<String, String>, known: &[&str]) -> Result<(), Failure> {
    match query.keys().find(|key| !known.contains(&key.as_str())) {
        Some(_) => Err(bad(&format!("the parameters are {}", known.join(", ")))),
        None => Ok(()),
    }
}
