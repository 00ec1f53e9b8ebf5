//! `gateway task`: run, list, show, logs, attach, cancel.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::HeaderValue;
use clap::{Arg, ArgAction, ArgMatches, Command};
use gateway::client::patience::{Patience, Turn};
use gateway::client::{Client, ClientError, request, with_body};
use gateway::config::parse;
use gateway::exit::{self, Fault, reason};
use gateway::tokens::{is_name, new_token};
use protocol::policy::ExecutionClass;
use protocol::task::{Create, Task};
use protocol::words::printable;
use serde_json::Value;

use super::client::{Format, block_on, client, fault, flags, format, name, note, say_json};
use super::ending::{code, facts, report};
use super::follow::{self, Followed, Interrupt, Target};
use super::table::{ago, between, pairs, table};
use super::{attach, progress, sandbox, terminal};

const EXIT_CODES: &str = "\
Exit codes: the task's own, 128 + N where signal N ended it, 124 where its time was over; 71 where it could not be started, 70
where nobody knows how it ended; 130 after Ctrl-C, while the task runs on. Else 64 usage, 69 gateway or sandbox away, 75 try
again, 78 configuration.";

/// The command with its parts.
pub(crate) fn command() -> Command {
    let task = || Arg::new("task").value_name("TASK").required(true);
    let away = || {
        Arg::new("away")
            .long("away")
            .value_name("DURATION")
            .default_value("10m")
            .value_parser(parse::duration)
            .help("how long to wait for a gateway or sandbox that is away")
    };
    flags(Command::new("task").about("Tasks: run beside the agent of a sandbox, each confined"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .arg(
            Arg::new("sandbox")
                .long("sandbox")
                .short('s')
                .value_name("ID")
                .global(true)
                .help("which sandbox; not needed where only one is connected"),
        )
        .subcommand(run_command().arg(away()).after_help(EXIT_CODES))
        .subcommand(
            Command::new("list").visible_alias("ls").about("The newest first").arg(
                Arg::new("limit")
                    .long("limit")
                    .value_name("NUMBER")
                    .default_value("50")
                    .value_parser(clap::value_parser!(u32).range(1..=1000))
                    .help("so many at most"),
            ),
        )
        .subcommand(Command::new("show").about("What is known of one").arg(task()))
        .subcommand(
            Command::new("logs").about("Its output so far").arg(task()).arg(away()).arg(
                Arg::new("follow")
                    .long("follow")
                    .short('f')
                    .action(ArgAction::SetTrue)
                    .help("also what it is yet to write"),
            ),
        )
        .subcommand(
            Command::new("attach")
                .about("Take this terminal, or these pipes, for its own; control-P control-Q lets go of a terminal")
                .arg(task())
                .arg(away()),
        )
        .subcommand(
            Command::new("cancel").about("End it with all its processes, and wait until nobody is left").arg(task()),
        )
}

fn run_command() -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let pair = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("KEY=VALUE").action(ArgAction::Append).value_parser(key_value).help(help)
    };
    Command::new("run")
        .about("Run a task, show its output and exit as it did")
        .arg(Arg::new("argv").value_name("ARGV").num_args(1..).last(true).help("the program and its arguments"))
        .arg(text("script", "TEXT", "a script for /bin/sh instead").short('c').conflicts_with("argv"))
        .arg(
            Arg::new("detach")
                .long("detach")
                .short('d')
                .action(ArgAction::SetTrue)
                .help("only start it; print its name"),
        )
        .arg(
            Arg::new("wait")
                .long("wait")
                .action(ArgAction::SetTrue)
                .conflicts_with("detach")
                .help("wait for its end without showing its output"),
        )
        .arg(
            Arg::new("stdin")
                .long("stdin")
                .short('i')
                .action(ArgAction::SetTrue)
                .conflicts_with_all(["detach", "wait"])
                .help("our standard input is the task's"),
        )
        .arg(
            Arg::new("tty")
                .long("tty")
                .short('t')
                .action(ArgAction::SetTrue)
                .conflicts_with_all(["wait"])
                .help("the task gets a terminal; with -i it is this one"),
        )
        .arg(text("id", "TASK", "its name; the same name and task again is the same task"))
        .arg(text("cwd", "DIR", "where it runs [the workspace]"))
        .arg(text("timeout", "DURATION", "its wall time, for instance 10m"))
        .arg(
            text("class", "CLASS", "network and workspace [local]")
                .value_parser(ExecutionClass::ALL.map(ExecutionClass::name)),
        )
        .arg(pair("env", "a variable of it; can be repeated"))
        .arg(pair("label", "a word of yours about it; can be repeated"))
}

/// Run it; the exit code.
pub(crate) fn run(matches: &ArgMatches) -> Result<u8, Fault> {
    match matches.subcommand() {
        Some(("run", m)) => {
            let (create, client) = (create(m)?, client(m)?);
            let how = How {
                detach: m.get_flag("detach"),
                wait: m.get_flag("wait"),
                attach: m.get_flag("stdin"),
                format: format(m),
            };
            block_on(async { start(client, chosen(m), create, how, patience(m)).await })
        }
        Some(("list", m)) => {
            block_on(list(client(m)?, chosen(m), m.get_one("limit").copied().unwrap_or(50), format(m)))
        }
        Some(("show", m)) => block_on(show(client(m)?, chosen(m), name(m, "task")?, format(m))),
        Some(("logs", m)) => block_on(logs(client(m)?, chosen(m), name(m, "task")?, m.get_flag("follow"), patience(m))),
        Some(("attach", m)) => block_on(attached(client(m)?, chosen(m), name(m, "task")?, patience(m))),
        Some(("cancel", m)) => block_on(cancel(client(m)?, chosen(m), name(m, "task")?, format(m))),
        _ => unreachable!("clap requires one of the subcommands above"),
    }
}

/// What `run` does beside running.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) detach: bool,
    pub(crate) wait: bool,
    pub(crate) attach: bool,
    pub(crate) format: Format,
}

/// Start a task and see to its end.
pub(crate) async fn start(
    client: Client,
    sandbox: Option<String>,
    create: Create,
    how: How,
    patience: Patience,
) -> Result<u8, Fault> {
    let sandbox = which(&client, sandbox).await?;
    let body = serde_json::to_vec(&create).map_err(|error| Fault::new(exit::INTERNAL, &error))?;
    // A gateway that went away before it answered may have started the task: asked again, it is the same one.
    let key = new_token().map_err(|error| Fault::new(exit::TEMPORARY, &error))?;
    let key = HeaderValue::try_from(key).map_err(|error| Fault::new(exit::INTERNAL, &error))?;
    let path = format!("/v1/sandboxes/{sandbox}/dev-tasks");
    let ask = || {
        let mut request = with_body("POST", &path, body.clone());
        request.headers_mut().insert("idempotency-key", key.clone());
        client.ask::<Task>(request)
    };
    let task = progress::during("starting", patience.insist(ask)).await.map_err(fault)?;
    // It becomes a part of paths and of what a person reads.
    if !is_name(&task.task_id) {
        return Err(fault(ClientError::Nonsense("the new task has no id")));
    }
    let target = Target { client, sandbox, task: task.task_id.clone(), run: Some(task.runtime.backend_run_id.clone()) };
    if how.detach {
        match how.format {
            Format::Json => say_json(&task)?,
            Format::Table => crate::say(&format!("{}\n", task.task_id))?,
        }
        return Ok(0);
    }
    let quiet = how.wait || how.format == Format::Json;
    let followed = match how.attach {
        true => attach::attach(&target, true, &patience).await?,
        false => follow::to_end(&target, !quiet, &patience).await?,
    };
    let ended = match followed {
        Followed::Ended(task) => task,
        Followed::Left(code) => return Ok(code),
    };
    match (how.format, how.wait) {
        (Format::Json, _) => say_json(&ended)?,
        (Format::Table, true) => crate::say(&pairs(&facts(&ended)))?,
        (Format::Table, false) => return Ok(report(&ended)),
    }
    Ok(code(&ended))
}

/// Waits for a gateway that is away, and says so.
pub(crate) fn told_patience(limit: Duration) -> Patience {
    Patience::new(limit, |turn| match turn {
        Turn::Away(error) => note(&format!("waiting: {}", reason(error))),
        Turn::Back => note("it is back"),
    })
}

fn patience(matches: &ArgMatches) -> Patience {
    told_patience(matches.get_one::<Duration>("away").copied().unwrap_or(Duration::from_secs(600)))
}

fn chosen(matches: &ArgMatches) -> Option<String> {
    matches.get_one::<String>("sandbox").cloned()
}

/// The one that was named, or the only one that is connected.
async fn which(client: &Client, chosen: Option<String>) -> Result<String, Fault> {
    let usage = |reason: String| Err(Fault { code: exit::USAGE, reason });
    if let Some(id) = chosen {
        return match is_name(&id) {
            true => Ok(id),
            false => usage(format!("`{id}` is no name of a sandbox; `gateway sandbox list` has them")),
        };
    }
    let connected = sandbox::all(client, Some(&"connected".into())).await.map_err(fault)?;
    let ids: Vec<&str> =
        connected.iter().filter_map(|sandbox| sandbox["id"].as_str()).filter(|id| is_name(id)).collect();
    match ids.as_slice() {
        [only] => Ok((*only).into()),
        [] => {
            usage("no sandbox is connected; `gateway sandbox list` has all, `gateway sandbox create` makes one".into())
        }
        some => {
            let first = some.iter().take(5).copied().collect::<Vec<_>>().join(", ");
            let more = if some.len() > 5 { ", …" } else { "" };
            usage(format!("several sandboxes are connected ({first}{more}); name one with --sandbox"))
        }
    }
}

fn create(matches: &ArgMatches) -> Result<Create, Fault> {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let pairs = |name: &str| -> BTreeMap<String, String> {
        matches.get_many::<(String, String)>(name).unwrap_or_default().cloned().collect()
    };
    let argv: Vec<String> = matches.get_many::<String>("argv").unwrap_or_default().cloned().collect();
    if argv.is_empty() && text("script").is_none() {
        let reason = "what is to run? write it behind --, for instance: gateway task run -- id".into();
        return Err(Fault { code: exit::USAGE, reason });
    }
    Ok(Create {
        task_id: text("id"),
        argv,
        script: text("script"),
        cwd: text("cwd"),
        timeout: text("timeout"),
        execution_class: text("class").as_deref().and_then(ExecutionClass::from_name),
        stdin_open: matches.get_flag("stdin") && !matches.get_flag("tty"),
        terminal: matches.get_flag("tty").then(terminal::size),
        env: pairs("env"),
        labels: pairs("label"),
        ..Create::default()
    })
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("is not KEY=VALUE")?;
    Ok((key.into(), value.into()))
}

async fn list(client: Client, sandbox: Option<String>, limit: u32, format: Format) -> Result<u8, Fault> {
    let sandbox = which(&client, sandbox).await?;
    let page: Value = client.get(&format!("/v1/sandboxes/{sandbox}/dev-tasks?limit={limit}")).await.map_err(fault)?;
    if format == Format::Json {
        say_json(&page["tasks"])?;
        return Ok(0);
    }
    let tasks: Vec<Task> = serde_json::from_value(page["tasks"].clone())
        .map_err(|error| Fault { code: exit::INTERNAL, reason: printable(&error.to_string()) })?;
    let row = |task: &Task| {
        let exit = task.exit_code.map(|code| code.to_string());
        let signal = task.signal.map(|signal| format!("signal {signal}"));
        let labels: Vec<String> = task.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            task.task_id.clone(),
            task.state.name().into(),
            exit.or(signal).unwrap_or_else(|| "-".into()),
            ago(&task.created_at),
            between(task.started_at.as_deref(), task.finished_at.as_deref()),
            labels.join(","),
        ]
    };
    let rows: Vec<_> = tasks.iter().map(row).collect();
    crate::say(&table(&["TASK", "STATE", "EXIT", "AGE", "TOOK", "LABELS"], &rows))?;
    Ok(0)
}

async fn show(client: Client, sandbox: Option<String>, task: &str, format: Format) -> Result<u8, Fault> {
    let sandbox = which(&client, sandbox).await?;
    let task: Task = client.get(&format!("/v1/sandboxes/{sandbox}/dev-tasks/{task}")).await.map_err(fault)?;
    match format {
        Format::Json => say_json(&task)?,
        Format::Table => crate::say(&pairs(&facts(&task)))?,
    }
    Ok(0)
}

async fn logs(client: Client, sandbox: Option<String>, task: &str, on: bool, patience: Patience) -> Result<u8, Fault> {
    let sandbox = which(&client, sandbox).await?;
    let target = Target { client, sandbox, task: task.into(), run: None };
    follow::output(&target, on, &patience, Interrupt::Leave).await
}

async fn attached(client: Client, sandbox: Option<String>, task: &str, patience: Patience) -> Result<u8, Fault> {
    let sandbox = which(&client, sandbox).await?;
    let target = Target { client, sandbox, task: task.into(), run: None };
    match attach::attach(&target, false, &patience).await? {
        Followed::Ended(task) => Ok(report(&task)),
        Followed::Left(code) => Ok(code),
    }
}

async fn cancel(client: Client, sandbox: Option<String>, task: &str, format: Format) -> Result<u8, Fault> {
    let sandbox = which(&client, sandbox).await?;
    let asked = request("POST", &format!("/v1/sandboxes/{sandbox}/dev-tasks/{task}/cancel?wait=60s"));
    let task: Task = progress::during("waiting until nobody of it is left", client.ask(asked)).await.map_err(fault)?;
    match format {
        Format::Json => say_json(&task)?,
        Format::Table => crate::say(&format!("task {} is {}\n", printable(&task.task_id), task.state.name()))?,
    }
    Ok(0)
}
