//! `gateway sandbox`: create, list, show, delete.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use gateway::client::{Client, ClientError, request, with_body};
use gateway::exit::{self, Fault};
use serde_json::{Value, json};

use super::client::{Format, block_on, client, fault, flags, format, name, say_json};
use super::progress;
use super::table::{ago, pairs, table};

/// Until a new sandbox must be connected.
const CONNECTED: Duration = Duration::from_secs(120);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(50);
/// Sandboxes of one answer.
const PAGE: u32 = 500;

/// The command with its parts.
pub(crate) fn command() -> Command {
    let id = Arg::new("id").value_name("ID").required(true);
    flags(Command::new("sandbox").about("Sandboxes: who there is and whether they are connected"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("create").about("Make one and wait until it is connected").arg(id.clone()).arg(
                Arg::new("no-wait").long("no-wait").action(ArgAction::SetTrue).help("do not wait for its connection"),
            ),
        )
        .subcommand(
            Command::new("list").visible_alias("ls").about("All of them").arg(
                Arg::new("status")
                    .long("status")
                    .value_name("STATUS")
                    .value_parser(["new", "connected", "disconnected", "expired", "gone"])
                    .help("only those"),
            ),
        )
        .subcommand(Command::new("show").about("What is known of one").arg(id.clone()))
        .subcommand(
            Command::new("delete")
                .visible_alias("rm")
                .about("End it and remove all that it has: tasks, files, events")
                .arg(id),
        )
}

/// Run it; the exit code.
pub(crate) fn run(matches: &ArgMatches) -> Result<u8, Fault> {
    match matches.subcommand() {
        Some(("create", m)) => block_on(create(client(m)?, name(m, "id")?, !m.get_flag("no-wait"), format(m))),
        Some(("list", m)) => block_on(list(client(m)?, m.get_one::<String>("status"), format(m))),
        Some(("show", m)) => block_on(show(client(m)?, name(m, "id")?, format(m))),
        Some(("delete", m)) => block_on(delete(client(m)?, name(m, "id")?)),
        _ => unreachable!("clap requires one of the subcommands above"),
    }
}

async fn create(client: Client, id: &str, wait: bool, format: Format) -> Result<u8, Fault> {
    let body = json!({ "id": id }).to_string().into_bytes();
    let mut sandbox: Value = client.ask(with_body("POST", "/v1/sandboxes", body)).await.map_err(fault)?;
    if wait {
        let text = format!("waiting for sandbox {id}");
        let connected = progress::during(&text, connected(&client, id));
        sandbox = tokio::time::timeout(CONNECTED, connected).await.map_err(|_| Fault {
            code: exit::UNAVAILABLE,
            reason: format!("sandbox {id} was made and does not connect; `gateway sandbox show {id}` tells of it"),
        })??;
    }
    match format {
        Format::Json => say_json(&sandbox)?,
        Format::Table => crate::say(&format!("sandbox {id} is {}\n", text(&sandbox, "status")))?,
    }
    Ok(0)
}

async fn connected(client: &Client, id: &str) -> Result<Value, Fault> {
    loop {
        let sandbox: Value = client.get(&format!("/v1/sandboxes/{id}")).await.map_err(fault)?;
        if sandbox["status"] == "connected" {
            return Ok(sandbox);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// All sandboxes, page by page.
pub(crate) async fn all(client: &Client, status: Option<&String>) -> Result<Vec<Value>, ClientError> {
    let status = status.map(|status| format!("&status={status}")).unwrap_or_default();
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/sandboxes?limit={PAGE}&cursor={cursor}{status}");
        let page: Value = client.get(&path).await?;
        all.extend(page["sandboxes"].as_array().cloned().unwrap_or_default());
        match page["cursor"].as_str() {
            Some(next) => cursor = next.into(),
            None => return Ok(all),
        }
    }
}

async fn list(client: Client, status: Option<&String>, format: Format) -> Result<u8, Fault> {
    let all = all(&client, status).await.map_err(fault)?;
    if format == Format::Json {
        say_json(&all)?;
        return Ok(0);
    }
    let row = |sandbox: &Value| {
        let version = sandbox["hello"]["version"].as_str().unwrap_or("-");
        let heard = sandbox["last_heard"].as_str().map_or_else(|| "-".into(), ago);
        vec![text(sandbox, "id"), text(sandbox, "status"), ago(&text(sandbox, "since")), heard, version.into()]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    crate::say(&table(&["SANDBOX", "STATUS", "SINCE", "HEARD", "SUPERVISOR"], &rows))?;
    Ok(0)
}

async fn show(client: Client, id: &str, format: Format) -> Result<u8, Fault> {
    let sandbox: Value = client.get(&format!("/v1/sandboxes/{id}")).await.map_err(fault)?;
    if format == Format::Json {
        say_json(&sandbox)?;
        return Ok(0);
    }
    let mut rows = vec![
        ("sandbox", text(&sandbox, "id")),
        ("status", format!("{} for {}", text(&sandbox, "status"), ago(&text(&sandbox, "since")))),
        ("created", text(&sandbox, "created_at")),
        ("events", text(&sandbox, "cursor")),
    ];
    let known = [
        ("heard", &sandbox["last_heard"]),
        ("supervisor", &sandbox["hello"]["version"]),
        ("pod", &sandbox["hello"]["pod"]["name"]),
        ("health", &sandbox["state"]["status"]),
        ("agent", &sandbox["state"]["agent"]["state"]),
        ("enforcement", &sandbox["state"]["enforcement"]),
    ];
    rows.extend(known.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_string()))));
    crate::say(&pairs(&rows))?;
    Ok(0)
}

async fn delete(client: Client, id: &str) -> Result<u8, Fault> {
    let deleted = client.send(request("DELETE", &format!("/v1/sandboxes/{id}")));
    progress::during(&format!("ending sandbox {id}"), deleted).await.map_err(fault)?;
    crate::say(&format!("sandbox {id} is deleted\n"))?;
    Ok(0)
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().into()
}
