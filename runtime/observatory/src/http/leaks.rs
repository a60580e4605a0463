//! `/api/v1/leaks`: what was found, by events since the start and by the last look at the state.

use super::App;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

/// Answers.
pub async fn leaks(State(app): State<App>) -> Response {
    axum::Json(app.shared.leaks().all()).into_response()
}
