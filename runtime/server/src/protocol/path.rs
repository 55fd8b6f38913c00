//! The parameters of a path, refused in the form of the protocol that the path belongs to.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::Response;
use serde::de::DeserializeOwned;

use crate::problem::Failure;

/// The parameters of a path, percent-decoded.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let read = axum::extract::Path::from_request_parts(parts, state).await;
        read.map(|axum::extract::Path(values)| Self(values))
            .map_err(|wrong| {
                let failure = Failure::BadRequest(format!("the path: {}", wrong.body_text()));
                failure.into_response_at(parts.uri.path())
            })
    }
}
