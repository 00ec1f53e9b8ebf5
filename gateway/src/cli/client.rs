//! What all commands share that speak to a gateway.

use std::collections::BTreeMap;
use std::io::Write;

use clap::{Arg, ArgMatches, Command};
use gateway::client::context::Left;
use gateway::client::{Client, ClientError, Context};
use gateway::config::{CLIENT, Reader};
use gateway::exit::{self, Fault};
use gateway::tokens::is_name;
use protocol::words::{printable, printable_json};
use serde::Serialize;

/// For people or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    Json,
}

/// The flags of every such command.
pub(crate) fn flags(command: Command) -> Command {
    let command = CLIENT.iter().fold(command, |command, setting| {
        let default = if setting.default.is_empty() { String::new() } else { format!(" [{}]", setting.default) };
        let help = format!("{}{default}; also {}", setting.help, setting.variable());
        let flag = Arg::new(setting.name).long(setting.flag()).value_name(setting.value);
        command.arg(flag.help(help).global(true).help_heading("Gateway"))
    });
    command.arg(
        Arg::new("output")
            .long("output")
            .short('o')
            .value_name("FORMAT")
            .value_parser(["table", "json"])
            .default_value("table")
            .global(true)
            .help("for people or for programs"),
    )
}

pub(crate) fn format(matches: &ArgMatches) -> Format {
    match matches.get_one::<String>("output").map(String::as_str) {
        Some("json") => Format::Json,
        _ => Format::Table,
    }
}

/// The gateway that flags, environment or `gateway dev` name.
pub(crate) fn client(matches: &ArgMatches) -> Result<Client, Fault> {
    let given = |name: &'static str| Some((name, matches.get_one::<String>(name)?.clone()));
    let flags: BTreeMap<&'static str, String> = CLIENT.iter().filter_map(|setting| given(setting.name)).collect();
    let reader = Reader::new(flags, std::env::vars_os().collect());
    let context = Context::read(reader, Left::usual_path().as_deref());
    context.map(Client::new).map_err(|mistakes| crate::all_mistakes(&mistakes))
}

/// Run to the end on a loop of its own.
pub(crate) fn block_on<F: Future<Output = Result<u8, Fault>>>(future: F) -> Result<u8, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Fault::new(exit::INTERNAL, &error))?;
    let result = runtime.block_on(future);
    // A write to a terminal that takes nothing does not hold the process.
    runtime.shutdown_background();
    result
}

pub(crate) fn fault(error: ClientError) -> Fault {
    Fault::new(error.code(), &error)
}

/// Names become parts of paths.
pub(crate) fn name<'m>(matches: &'m ArgMatches, argument: &str) -> Result<&'m str, Fault> {
    let name = matches.get_one::<String>(argument).map(String::as_str).unwrap_or_default();
    if is_name(name) {
        return Ok(name);
    }
    let reason = format!("`{name}` is no name: it has letters, digits, dots, dashes and underscores, 128 at most");
    Err(Fault { code: exit::USAGE, reason })
}

/// As JSON with line breaks, which a terminal may show: much of it a sandbox has said.
pub(crate) fn say_json(value: &impl Serialize) -> Result<(), Fault> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Fault::new(exit::INTERNAL, &error))?;
    crate::say(&format!("{}\n", printable_json(&text)))
}

/// A line for the person, which is no part of any output.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "gateway: {}", printable(text));
}
