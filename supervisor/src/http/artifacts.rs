//! What a task left for its clients: a list, single files, everything as tar; and its own workspace.

use std::path::PathBuf;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::routing::get;
use protocol::task::Task;

use super::api::Api;
use super::content::{self, Paging};
use super::extract::{Id, NoQuery};
use super::query::Query;
use super::reply::{self, Problem};
use crate::workspace::files::Listing;
use crate::workspace::work::Work;
use crate::workspace::workers::Input;

pub(super) fn routes(api: Api) -> Router {
    Router::new()
        .route("/dev-tasks/{id}/artifacts", get(list))
        .route("/dev-tasks/{id}/artifacts/{*path}", get(fetch))
        .route("/dev-tasks/{id}/workspace", get(workspace))
        .with_state(api)
}

async fn list(State(api): State<Api>, Id(id): Id, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut query = Query::parse(query.as_deref())?;
    let format = query.text("format");
    let Paging { after, limit } = Paging::take(&mut query)?;
    query.finish()?;
    let (_, task) = api.task(id).await?;
    let root = PathBuf::from(&task.runtime.artifact_root);
    match format.as_deref() {
        None | Some("json") if !has_begun(&task) => {
            Ok(reply::json(StatusCode::OK, &Listing { entries: Vec::new(), next: None }))
        }
        None | Some("json") => {
            let work = Work::List { root, directory: None, recursive: true, after, limit };
            content::json(&api.workers, &work, Input::None).await
        }
        Some("tar" | "tar.gz") if !has_begun(&task) => Err(not_begun()),
        Some("tar") => content::archive(&api.workers, root, false).await,
        Some("tar.gz") => content::archive(&api.workers, root, true).await,
        Some(_) => Err(Problem::field("format", "is json, tar or tar.gz")),
    }
}

async fn fetch(
    State(api): State<Api>,
    Id(id): Id,
    uri: Uri,
    _: NoQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let path = content::path(&uri, 3)?.ok_or_else(|| Problem::field("path", "is empty"))?;
    let (_, task) = api.task(id).await?;
    let root = PathBuf::from(&task.runtime.artifact_root);
    content::file(&api.workers, |span| Work::Read { root, path, span }, &headers).await
}

async fn workspace(State(api): State<Api>, Id(id): Id, _: NoQuery) -> Result<Response, Problem> {
    let (_, task) = api.task(id).await?;
    let root = seeded(&task)?;
    content::archive(&api.workers, root, true).await
}

/// The task's own workspace, where it has one.
pub(super) fn seeded(task: &Task) -> Result<PathBuf, Problem> {
    let root = task.runtime.workspace_root.as_ref();
    let root =
        root.ok_or_else(|| Problem::new(StatusCode::CONFLICT, "the task was not given a workspace of its own"))?;
    // Before its program ran the archive may still be on its way into it.
    if task.started_at.is_none() { Err(not_begun()) } else { Ok(root.into()) }
}

fn has_begun(task: &Task) -> bool {
    task.started_at.is_some()
}

fn not_begun() -> Problem {
    Problem::new(StatusCode::CONFLICT, "the task's program has not run")
}
