//! The command line, made from the table of settings.

use std::collections::BTreeMap;

use clap::builder::ValueParser;
use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use gateway::config::SETTINGS;

mod attach;
pub(crate) mod clean;
mod client;
pub(crate) mod dev;
mod ending;
mod follow;
pub(crate) mod preflight;
mod progress;
pub(crate) mod sandbox;
mod table;
pub(crate) mod task;
mod terminal;

const EXIT_CODES: &str = "\
Exit codes: 0 stopped; 64 usage, 69 port taken, 70 internal, 75 try again, 78 configuration or schema.

Every setting is also an environment variable, GATEWAY_ and the flag in capitals.";

/// The whole command.
pub(crate) fn command() -> Command {
    Command::new("gateway")
        .about("The control plane of sandboxes: ends their sessions, stores their records, answers for them")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(settings(Command::new("serve").about("Serve until a stop signal").after_help(EXIT_CODES)))
        .subcommand(
            Command::new("migrate")
                .about("The schema of the store; nothing else changes it")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(settings(Command::new("up").about("Bring it to the version of this program")))
                .subcommand(settings(
                    Command::new("status").about("Say which version it has; exit 78 where `serve` would refuse it"),
                )),
        )
        .subcommand(settings(preflight::command()))
        .subcommand(settings(clean::command()))
        .subcommand(Command::new("settings").about("Print the table of all settings"))
        .subcommand(dev::command())
        .subcommand(sandbox::command())
        .subcommand(task::command())
        .subcommand(
            Command::new("completions")
                .about("Print completions for a shell, for instance: source <(gateway completions bash)")
                .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(value_parser!(Shell))),
        )
}

/// The completions of one shell.
pub(crate) fn completions(matches: &ArgMatches) -> String {
    let mut script = Vec::new();
    if let Some(shell) = matches.get_one::<Shell>("shell") {
        clap_complete::generate(*shell, &mut command(), "gateway", &mut script);
    }
    String::from_utf8_lossy(&script).into_owned()
}

/// The flags that were given, by setting.
pub(crate) fn flags(matches: &ArgMatches) -> BTreeMap<&'static str, String> {
    let given = |name| matches.get_one::<String>(name).cloned();
    SETTINGS.iter().filter(|s| !s.secret).filter_map(|s| Some((s.name, given(s.name)?))).collect()
}

fn settings(command: Command) -> Command {
    SETTINGS.iter().filter(|s| !s.secret).fold(command, |command, s| {
        let default = if s.default.is_empty() { String::new() } else { format!(" [{}]", s.default) };
        command.arg(
            Arg::new(s.name)
                .long(s.flag())
                .value_name(s.value)
                .help(format!("{}{default}", s.help))
                .overrides_with(s.name)
                .value_parser(ValueParser::string()),
        )
    })
}
