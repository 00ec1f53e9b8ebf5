//! `gateway sandbox`: create, list, show, call-token, delete.

use std::time::Duration;

use axum::http::StatusCode;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use gateway::client::{Client, ClientError, HEAD, request, with_body};
use gateway::config::parse;
use gateway::exit::{self, Fault};
use protocol::words::printable;
use serde_json::{Map, Value, json};

use super::client::{Format, block_on, client, fault, flags, format, name, say_json};
use super::progress;
use super::table::{ago, pairs, table};

/// Until a sandbox has ended, or the gateway says that it is slow.
const ENDED: Duration = Duration::from_secs(600);
/// Sandboxes of one answer.
const PAGE: u32 = 500;

/// The command with its parts.
pub(crate) fn command() -> Command {
    let id = Arg::new("id").value_name("ID").required(true);
    flags(Command::new("sandbox").about("Sandboxes: who there is and whether they are connected"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(create_command(id.clone()))
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
            Command::new("call-token")
                .about("A bearer token for one call to a sandbox's own port, within a minute")
                .arg(id.clone()),
        )
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
        Some(("create", m)) => block_on(create(client(m)?, name(m, "id")?, asked(m)?, wait(m), format(m))),
        Some(("list", m)) => block_on(list(client(m)?, m.get_one::<String>("status"), format(m))),
        Some(("show", m)) => block_on(show(client(m)?, name(m, "id")?, format(m))),
        Some(("call-token", m)) => block_on(call_token(client(m)?, name(m, "id")?, format(m))),
        Some(("delete", m)) => block_on(delete(client(m)?, name(m, "id")?)),
        _ => unreachable!("clap requires one of the subcommands above"),
    }
}

fn create_command(id: Arg) -> Command {
    let text = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    let many = |name, value| text(name, value).action(ArgAction::Append);
    Command::new("create")
        .about("Make one and wait until it is ready; where it does not start, it is removed again")
        .arg(id)
        .arg(text("image", "IMAGE").help("the image that the agent and its tasks run in"))
        .arg(many("env", "NAME=VALUE").help("a variable of the agent and its tasks; NAME alone takes it from here"))
        .arg(many("label", "KEY=VALUE").help("a label of its Pod, for instance of a network policy"))
        .arg(many("node-selector", "KEY=VALUE").help("a label that its node must have"))
        .arg(many("request", "NAME=QUANTITY").help("what it is sure to get, for instance cpu=500m"))
        .arg(many("limit", "NAME=QUANTITY").help("what it gets at most, for instance memory=1Gi"))
        .arg(text("runtime-class", "NAME").help("the RuntimeClass"))
        .arg(text("workspace-size", "QUANTITY").help("of its workspace, for instance 2Gi"))
        .arg(
            text("spec", "FILE")
                .value_parser(value_parser!(std::path::PathBuf))
                .help("the whole request as JSON; flags go before it"),
        )
        .arg(
            text("wait", "DURATION")
                .default_value("300s")
                .value_parser(parse::duration)
                .conflicts_with("no-wait")
                .help("how long"),
        )
        .arg(Arg::new("no-wait").long("no-wait").action(ArgAction::SetTrue).help("do not wait until it is ready"))
        .arg(Arg::new("argv").value_name("ARGV").num_args(0..).last(true).help("the agent: program and arguments"))
}

fn wait(matches: &ArgMatches) -> Option<Duration> {
    matches.get_one::<Duration>("wait").copied().filter(|_| !matches.get_flag("no-wait"))
}

/// What is asked for beside the id, as the API takes it.
fn asked(matches: &ArgMatches) -> Result<Map<String, Value>, Fault> {
    let usage = |reason: String| Fault { code: exit::USAGE, reason };
    let mut asked = match matches.get_one::<std::path::PathBuf>("spec") {
        None => Map::new(),
        Some(path) => {
            let wrong = |error: &dyn std::fmt::Display| usage(format!("{}: {error}", path.display()));
            let text = std::fs::read(path).map_err(|error| wrong(&error))?;
            serde_json::from_slice(&text).map_err(|error| wrong(&error))?
        }
    };
    for (flag, field) in [("image", "image"), ("runtime-class", "runtime_class"), ("workspace-size", "workspace_size")]
    {
        if let Some(value) = matches.get_one::<String>(flag) {
            asked.insert(field.into(), json!(value));
        }
    }
    for (flag, path) in [
        ("env", &["env"][..]),
        ("label", &["labels"]),
        ("node-selector", &["node_selector"]),
        ("request", &["resources", "requests"]),
        ("limit", &["resources", "limits"]),
    ] {
        for pair in matches.get_many::<String>(flag).unwrap_or_default() {
            let (key, value) = match (pair.split_once('='), flag) {
                (Some((key, value)), _) => (key.to_string(), value.to_string()),
                (None, "env") => match std::env::var(pair) {
                    Ok(value) => (pair.clone(), value),
                    Err(_) => return Err(usage(format!("--env {pair}: there is no such variable here"))),
                },
                (None, _) => return Err(usage(format!("--{flag} {pair}: write KEY=VALUE"))),
            };
            let mut fields = &mut asked;
            for name in path {
                let field = fields.entry(*name).or_insert_with(|| json!({}));
                fields = field.as_object_mut().ok_or_else(|| usage(format!("{name} in the file is no object")))?;
            }
            fields.insert(key, json!(value));
        }
    }
    let argv: Vec<&String> = matches.get_many("argv").unwrap_or_default().collect();
    if !argv.is_empty() {
        asked.insert("argv".into(), json!(argv));
    }
    Ok(asked)
}

async fn create(
    client: Client,
    id: &str,
    mut asked: Map<String, Value>,
    wait: Option<Duration>,
    format: Format,
) -> Result<u8, Fault> {
    asked.insert("id".into(), json!(id));
    let body = Value::Object(asked).to_string().into_bytes();
    let (path, limit) = match wait {
        None => ("/v1/sandboxes".to_string(), HEAD),
        Some(wait) => (format!("/v1/sandboxes?wait={}ms", wait.as_millis()), wait + HEAD),
    };
    let made = async {
        let response = client.send_within(with_body("POST", &path, body), limit).await?;
        let there = if response.status() == StatusCode::OK { "was there already and " } else { "" };
        Ok((there, client.read::<Value>(response).await?))
    };
    let (there, sandbox) = progress::during(&format!("making sandbox {id}"), made).await.map_err(fault)?;
    match format {
        Format::Json => say_json(&sandbox)?,
        Format::Table => crate::say(&format!("sandbox {id} {there}is {}\n", text(&sandbox, "status")))?,
    }
    Ok(0)
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
        let backend = sandbox["backend"]["state"].as_str().unwrap_or("-");
        let since = ago(&text(sandbox, "since"));
        vec![text(sandbox, "id"), text(sandbox, "status"), since, heard, backend.into(), version.into()]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    crate::say(&table(&["SANDBOX", "STATUS", "SINCE", "HEARD", "BACKEND", "SUPERVISOR"], &rows))?;
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
        ("backend", &sandbox["backend"]["state"]),
        ("place", &sandbox["backend"]["place"]),
        ("node", &sandbox["backend"]["node"]),
        ("reason", &sandbox["backend"]["reason"]),
        ("pod", &sandbox["hello"]["pod"]["name"]),
        ("health", &sandbox["state"]["status"]),
        ("agent", &sandbox["state"]["agent"]["state"]),
        ("enforcement", &sandbox["state"]["enforcement"]),
    ];
    rows.extend(known.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_string()))));
    crate::say(&pairs(&rows))?;
    Ok(0)
}

async fn call_token(client: Client, id: &str, format: Format) -> Result<u8, Fault> {
    let path = format!("/v1/sandboxes/{id}/call-tokens");
    let token: Value = client.ask(request("POST", &path)).await.map_err(fault)?;
    match format {
        Format::Json => say_json(&token)?,
        Format::Table => crate::say(&format!("{}\n", text(&token, "token")))?,
    }
    Ok(0)
}

async fn delete(client: Client, id: &str) -> Result<u8, Fault> {
    let deleted = client.send_within(request("DELETE", &format!("/v1/sandboxes/{id}")), ENDED);
    let response = progress::during(&format!("ending sandbox {id}"), deleted).await.map_err(fault)?;
    let now = if response.status() == StatusCode::ACCEPTED { "ends slowly, and is deleted then" } else { "is deleted" };
    crate::say(&format!("sandbox {id} {now}\n"))?;
    Ok(0)
}

fn text(value: &Value, field: &str) -> String {
    printable(value[field].as_str().unwrap_or_default())
}
