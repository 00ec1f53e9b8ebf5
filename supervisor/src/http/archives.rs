//! Archives for tasks to come: `PUT` one under a name, then name it when the task is made.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::put;
use base64::Engine;
use protocol::task::Create;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::api::Api;
use super::extract::{Id, NoQuery};
use super::reply::{self, Problem};
use super::{content, extract};
use crate::streaming;
use crate::workspace::failure::{Failure, Kind};
use crate::workspace::seeds::Seed;

/// A large request waits so long for the one before it.
const TURN: Duration = Duration::from_secs(30);

pub(super) fn routes(api: Api) -> Router {
    Router::new().route("/workspace-archives/{id}", put(upload).delete(forget)).with_state(api)
}

async fn upload(
    State(api): State<Api>,
    Id(name): Id,
    _: NoQuery,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Uploaded {
        workspace_archive: String,
        bytes: u64,
    }
    check_name("id", &name)?;
    let bytes = content::length(&headers, api.seeds.upload)?;
    api.seeds.upload(&name, request.into_body()).await?;
    Ok(reply::json(StatusCode::CREATED, &Uploaded { workspace_archive: name, bytes }))
}

async fn forget(State(api): State<Api>, Id(name): Id, _: NoQuery) -> Result<Response, Problem> {
    check_name("id", &name)?;
    if !api.seeds.forget(&name).await {
        return Err(Problem::new(StatusCode::NOT_FOUND, "there is no such archive"));
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// The body of a create. One that is large because it brings an archive has its turn, so that memory holds one at a
/// time; the place is to be kept until the archive is on disk.
pub(super) async fn body(
    api: &Api,
    request: Request,
    usual: usize,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Problem> {
    // In base64, with as much around it as any request may have.
    let most = api.seeds.upload.div_ceil(3) * 4 + usual as u64;
    match content::length(request.headers(), most) {
        Ok(length) if length > usual as u64 => {
            let place = timeout(TURN, api.large.clone().acquire_owned()).await.ok().and_then(Result::ok);
            let Some(place) = place else {
                let detail = "another request with an archive is being read; try again later";
                return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(1));
            };
            let mut bytes = Vec::with_capacity(length as usize);
            let mut pieces = streaming::Reader::new(request.into_body());
            while let Some(piece) = pieces.next().await? {
                bytes.extend(piece);
            }
            Ok((bytes.into(), Some(place)))
        }
        Err(problem) if request.headers().contains_key(header::CONTENT_LENGTH) => Err(problem),
        _ => extract::Body::from_request(request, &()).await.map(|extract::Body(bytes)| (bytes, None)),
    }
}

/// The archive that a request brings or names, taken out of it: a journal is no place for it.
pub(super) async fn seed(api: &Api, create: &mut Create) -> Result<Option<Seed>, Problem> {
    let named = |field: &'static str| move |failure: Failure| of_field(field, failure);
    match (create.workspace_archive_b64.take(), create.workspace_archive.take()) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Problem::field("workspace_archive", "and workspace_archive_b64 exclude each other")),
        (None, Some(name)) => {
            check_name("workspace_archive", &name)?;
            api.seeds.uploaded(&name).await.map(Some).map_err(named("workspace_archive"))
        }
        (Some(text), None) => {
            let field = "workspace_archive_b64";
            let bytes = base64::engine::general_purpose::STANDARD.decode(&text);
            drop(text);
            let bytes = bytes.map_err(|_| Problem::field(field, "is not base64"))?;
            if bytes.len() as u64 > api.seeds.upload {
                let most = api.seeds.upload;
                return Err(of_field(field, Failure::new(Kind::TooLarge, format!("is larger than {most} bytes"))));
            }
            api.seeds.take(bytes).await.map(Some).map_err(named(field))
        }
    }
}

/// What is wrong with an archive is wrong with the field that brought it.
fn of_field(field: &str, failure: Failure) -> Problem {
    match failure.kind {
        Kind::Invalid => Problem::field(field, failure.message),
        _ => Problem::from(failure).of(field),
    }
}

fn check_name(field: &str, name: &str) -> Result<(), Problem> {
    crate::tasks::request::check_id(Some(name)).map_err(|invalid| Problem::field(field, invalid.problem))
}
