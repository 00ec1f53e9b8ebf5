//! What a task changed in its workspace, as a patch: shown, frozen, approved, applied through the relay.
//!
//! `GET …/diff` makes the patch and keeps it, so that what is approved is what was seen, whatever the workspace is by
//! then. `POST …/patch/approve` names it by its digest.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use protocol::task::Task;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::api::Api;
use super::artifacts::seeded;
use super::extract::{Body, Id, NoQuery};
use super::query::Query;
use super::reply::{self, Problem};
use super::{content, tasks};
use crate::streaming;
use crate::tasks::{identity, patch};
use crate::workspace::failure::Failure;
use crate::workspace::relay::Call;
use crate::workspace::work::Work;
use crate::workspace::workers::{Input, Output, Started};

pub(super) fn routes(api: Api) -> Router {
    Router::new()
        .route("/dev-tasks/{id}/diff", get(diff))
        .route("/dev-tasks/{id}/patch/approve", post(approve))
        .layer(axum::extract::DefaultBodyLimit::max(16 * 1024))
        .with_state(api)
}

async fn diff(
    State(api): State<Api>,
    Id(id): Id,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut query = Query::parse(query.as_deref())?;
    let again = query.text("sha256");
    query.finish()?;
    let (_, task) = api.task(id.clone()).await?;
    let root = seeded(&task)?;
    let folder = folder(&task);
    let sha256 = match again {
        Some(sha256) if kept(&task).any(|known| known == sha256) => sha256,
        Some(_) => return Err(Problem::new(StatusCode::NOT_FOUND, "no patch with this sha256 is kept")),
        None => {
            let seed = File::open(folder.join(crate::tasks::run::SEED)).map_err(|e| Failure::at("the archive", &e))?;
            let Started { head: (), output } = api.workers.start(&Work::Diff { root }, Input::File(seed)).await?;
            let (sha256, bytes) = keep(&folder, output).await?;
            let (task, _) = api.tasks.amend(id, patch::show(sha256.clone(), bytes)).await?;
            forget_others(&folder, &task).await;
            sha256
        }
    };
    answer(&folder, sha256, &headers)
}

/// The patch, or, where JSON is asked for, its name and length.
fn answer(folder: &Path, sha256: String, headers: &HeaderMap) -> Result<Response, Problem> {
    let failed = |e: std::io::Error| Problem::from(Failure::at("the patch", &e));
    let file = File::open(folder.join(name(&sha256))).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let json = headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"application/json"));
    let mut response = if json {
        reply::json(StatusCode::OK, &serde_json::json!({ "sha256": sha256, "bytes": bytes }))
    } else {
        content::stream(streaming::file(file), "text/x-diff", Some(bytes))
    };
    content::insert(&mut response, HeaderName::from_static("patch-sha256"), sha256);
    Ok(response)
}

async fn approve(State(api): State<Api>, Id(id): Id, _: NoQuery, Body(body): Body) -> Result<Response, Problem> {
    let sha256 = approved(&body)?;
    let (_, task) = api.task(id.clone()).await?;
    seeded(&task)?;
    let relay = api.relay.clone().ok_or_else(|| {
        Problem::new(StatusCode::NOT_IMPLEMENTED, "nobody applies patches here: SUPERVISOR_RELAY_URL is not set")
    })?;
    let (task, now) = api.tasks.amend(id.clone(), patch::approve(sha256.clone())).await?;
    let Some(apply) = task.apply.clone().filter(|_| now) else { return Ok(reply::json(StatusCode::OK, &task.apply)) };
    let file = folder(&task).join(name(&sha256));
    // Goes on where the client does not wait for it.
    let applying = tokio::spawn(async move {
        let (state, detail) = match file.metadata() {
            Ok(meta) => {
                let key = apply.idempotency_key;
                let call = Call { patch: file, bytes: meta.len(), sha256: sha256.clone(), key };
                relay.apply(&task, &call).await
            }
            Err(e) => (protocol::task::ApplyState::Refused, format!("nothing was sent: the patch cannot be read: {e}")),
        };
        tracing::info!(task_id = id, ?state, detail, "an approved patch");
        api.tasks.amend(id, patch::answered(sha256, state, detail)).await
    });
    let internal = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer of the relay was lost; ask again");
    let (task, _) = applying.await.map_err(internal)??;
    Ok(reply::json(StatusCode::OK, &task.apply))
}

/// Which patch a body approves: its digest becomes the name of a file.
pub(crate) fn approved(body: &[u8]) -> Result<String, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Approval {
        sha256: String,
    }
    let Approval { sha256 } = tasks::parse(body)?;
    if sha256.len() != 64 || !sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Problem::field("sha256", "is not 64 hexadecimal digits in small letters"));
    }
    Ok(sha256)
}

/// Write the worker's patch into the task's folder under its digest.
async fn keep(folder: &Path, mut output: Output) -> Result<(String, u64), Problem> {
    let failed = |e: std::io::Error| Problem::from(Failure::at("the patch", &e));
    let coming = Coming(folder.join(format!("patch-new-{}", identity::run_id())));
    let mut file = File::create_new(&coming.0).map_err(failed)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    while let Some(piece) = output.next().await? {
        hash.update(&piece);
        bytes += piece.len() as u64;
        let written = spawn_blocking(move || file.write_all(&piece).map(|()| file)).await;
        file = written.unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into())).map_err(failed)?;
    }
    let sha256: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    // It is named in the journal next, so it must be there after a crash.
    let synced = spawn_blocking(move || file.sync_data()).await;
    synced.unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into())).map_err(failed)?;
    std::fs::rename(&coming.0, folder.join(name(&sha256))).map_err(failed)?;
    Ok((sha256, bytes))
}

/// A patch that is not whole yet; it goes with its request.
struct Coming(PathBuf);

impl Drop for Coming {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Patches that nobody can approve or ask for any more.
async fn forget_others(folder: &Path, task: &Task) {
    let (folder, kept): (PathBuf, Vec<String>) = (folder.into(), kept(task).map(name).collect());
    let _ = spawn_blocking(move || {
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            let other = entry.file_name().to_str().is_some_and(|file| {
                file.starts_with("patch-") && !file.starts_with("patch-new-") && !kept.iter().any(|known| known == file)
            });
            if other {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    })
    .await;
}

fn kept(task: &Task) -> impl Iterator<Item = &str> {
    task.diff.iter().map(|shown| &*shown.sha256).chain(task.apply.iter().map(|apply| &*apply.sha256))
}

fn name(sha256: &str) -> String {
    format!("patch-{sha256}")
}

/// The task's folder in the state directory, where no child can open anything.
fn folder(task: &Task) -> PathBuf {
    Path::new(&task.runtime.log_root).with_file_name("")
}
