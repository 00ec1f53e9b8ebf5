//! Files of the shared workspace: read, write, list, look at, remove; nothing outside it.

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::routing::get;

use super::api::Api;
use super::content::{self, Paging};
use super::extract::NoQuery;
use super::query::Query;
use super::reply::Problem;
use crate::workspace::path::Relative;
use crate::workspace::work::Work;
use crate::workspace::workers::Input;

pub(super) fn routes(api: Api) -> Router {
    Router::new()
        .route("/files", get(read))
        .route("/files/", get(read))
        .route("/files/{*path}", get(read).put(write).delete(remove))
        .with_state(api)
}

async fn read(
    State(api): State<Api>,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut query = Query::parse(query.as_deref())?;
    let (list, stat) = (query.flag("list")?, query.flag("stat")?);
    let path = content::path(&uri, 1)?;
    let root = api.workspace;
    if list {
        let recursive = query.flag("recursive")?;
        let Paging { after, limit } = Paging::take(&mut query)?;
        query.finish()?;
        let work = Work::List { root, directory: path, recursive, after, limit };
        return content::json(&api.workers, &work, Input::None).await;
    }
    query.finish()?;
    if stat {
        return content::json(&api.workers, &Work::Stat { root, path }, Input::None).await;
    }
    let path = path.ok_or_else(|| Problem::field("list", "is needed for a directory"))?;
    content::file(&api.workers, |span| Work::Read { root, path, span }, &headers).await
}

async fn write(
    State(api): State<Api>,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let mut query = Query::parse(query.as_deref())?;
    let parents = query.flag("parents")?;
    let mode = query.text("mode").map_or(Ok(0o644), |text| mode(&text))?;
    query.finish()?;
    let path = named(&uri)?;
    let length = content::length(&headers, api.upload)?;
    let work = Work::Write { root: api.workspace, path, mode, parents, length };
    content::json(&api.workers, &work, Input::Body(request.into_body())).await
}

async fn remove(State(api): State<Api>, uri: Uri, _: NoQuery) -> Result<Response, Problem> {
    api.workers.run(&Work::Remove { root: api.workspace, path: named(&uri)? }, Input::None).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

fn named(uri: &Uri) -> Result<Relative, Problem> {
    content::path(uri, 1)?.ok_or_else(|| Problem::field("path", "is empty"))
}

fn mode(text: &str) -> Result<u32, Problem> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| Problem::field("mode", "is an octal number from 0 to 777"))
}
