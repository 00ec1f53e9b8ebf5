//! What came of tasks, from the gateway's own store: also of those that their sandbox no longer knows, because it was made again.

use protocol::task::Task;
use serde::Deserialize;
use serde_json::Value;

use super::{Client, ClientError};

#[derive(Deserialize)]
struct Page {
    cursor: String,
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    record: Option<Record>,
}

#[derive(Deserialize)]
struct Record {
    kind: String,
    body: Value,
}

/// The end of this run of a task as its sandbox has told it; `None` where it never came to tell it, or that is no longer kept. An
/// id may be used again once its task is forgotten, so where the `run` is not known the last one counts.
pub async fn of(client: &Client, sandbox: &str, task: &str, run: Option<&str>) -> Result<Option<Task>, ClientError> {
    let all = format!("/v1/sandboxes/{sandbox}/events?class=results&limit=1000");
    let mut page: Page = client.get(&all).await?;
    let mut found = None;
    while !page.events.is_empty() {
        let records = page.events.into_iter().filter_map(|event| event.record);
        let is_it = |record: &Record| {
            let its_run = record.body["runtime"]["backend_run_id"].as_str();
            record.kind == "task.result" && record.body["task_id"] == task && (run.is_none() || its_run == run)
        };
        let mut results = records.filter(is_it);
        found = results.next_back().or(found);
        page = client.get(&format!("{all}&cursor={}", page.cursor)).await?;
    }
    // One of a later supervisor may have what we do not know; then it is as if it were not there.
    Ok(found.and_then(|record| serde_json::from_value(record.body).ok()))
}
