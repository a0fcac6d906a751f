//! Answers: JSON, and errors as JSON.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use gm_api::control::{ApiError, ErrorBody};
use serde::Serialize;

/// A handler's result.
pub(super) type Answer = Result<Response, Failure>;

/// An error on its way to the client.
pub(super) struct Failure(pub(super) ApiError);

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Failure(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.code.as_str() {
            "bad-request" | "bad-sad" => StatusCode::BAD_REQUEST,
            "unauthorized" => StatusCode::UNAUTHORIZED,
            "forbidden" => StatusCode::FORBIDDEN,
            "not-found" | "no-door" => StatusCode::NOT_FOUND,
            "no-method" => StatusCode::METHOD_NOT_ALLOWED,
            "exists" | "refused" => StatusCode::CONFLICT,
            "too-large" => StatusCode::PAYLOAD_TOO_LARGE,
            "full" => StatusCode::INSUFFICIENT_STORAGE,
            "stopped" => StatusCode::SERVICE_UNAVAILABLE,
            "unsupported" => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(ErrorBody { error: self.0 })).into_response()
    }
}

pub(super) fn json<T: Serialize>(value: T) -> Answer {
    Ok(Json(value).into_response())
}

/// The description of the interface.
pub(super) async fn openapi() -> Response {
    let json = [(CONTENT_TYPE, "application/json")];
    (json, gm_api::openapi::OPENAPI).into_response()
}

pub(super) async fn no_path() -> Failure {
    ApiError::new("not-found", "there is no such path")
        .hint("GET /v1/openapi.json describes the paths")
        .into()
}

pub(super) async fn no_method() -> Failure {
    ApiError::new("no-method", "this path does not know that method").into()
}
