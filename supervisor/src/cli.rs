//! The command line, made from the table of settings.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use supervisor::config::SETTINGS;

const EXIT_CODES: &str = "\
Exit codes: the agent's own, 128 + N where signal N ended it; else 64 usage, 69 port taken, 70 internal,
71 confinement not to be had, 75 try again, 78 configuration.

Every setting is also an environment variable, SUPERVISOR_ and the flag in capitals, and a key of the settings file.";

/// The whole command.
pub(crate) fn command() -> Command {
    Command::new("supervisor")
        .about("Runs an agent in a sandbox: PID 1, confinement, probes, truth about its end")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(settings(
            Command::new("run").about("Run the agent; without one, answer probes only").after_help(EXIT_CODES).arg(
                Arg::new("argv").value_name("ARGV").num_args(0..).last(true).value_parser(value_parser!(OsString)),
            ),
        ))
        .subcommand(settings(
            Command::new("bootstrap")
                .about("Copy defaults into a volume and write the provider's configuration; what is there is never touched")
                .arg(
                    Arg::new("only")
                        .long("only")
                        .value_name("PART")
                        .help("only these parts [both]")
                        .action(ArgAction::Append)
                        .value_delimiter(',')
                        .value_parser(["defaults", "provider"]),
                ),
        ))
        .subcommand(
            Command::new("install")
                .about("Copy the supervisor and the shim into DEST, for an init container")
                .arg(Arg::new("dest").value_name("DEST").required(true).value_parser(value_parser!(PathBuf))),
        )
        .subcommand(settings(
            Command::new("preflight")
                .about("Say what this node can enforce; exit 71 where a required guarantee does not hold")
                .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("for programs")),
        ))
        .subcommand(settings(
            Command::new("probe")
                .about("Ask the supervisor in this container; exit 0 for yes, 1 for no")
                .arg(Arg::new("what").value_name("WHAT").required(true).value_parser(["live", "ready", "startup"])),
        ))
        .subcommand(
            // Started by `run` only.
            Command::new("worker").hide(true).arg(
                Arg::new("work")
                    .num_args(0..)
                    .trailing_var_arg(true)
                    .allow_hyphen_values(true)
                    .value_parser(value_parser!(OsString)),
            ),
        )
        .subcommand(Command::new("settings").about("Print the table of all settings"))
}

/// The flags that were given, by setting.
pub(crate) fn flags(matches: &ArgMatches) -> BTreeMap<&'static str, Vec<String>> {
    SETTINGS
        .iter()
        .filter(|s| !s.secret)
        .filter_map(|s| Some((s.name, matches.get_many::<String>(s.name)?.cloned().collect())))
        .collect()
}

fn settings(command: Command) -> Command {
    SETTINGS.iter().filter(|s| !s.secret).fold(command, |command, s| {
        let default = if s.default.is_empty() { String::new() } else { format!(" [{}]", s.default) };
        command.arg(
            Arg::new(s.name)
                .long(s.flag())
                .value_name(s.value)
                .help(format!("{}{default}", s.help))
                .action(ArgAction::Append)
                .allow_hyphen_values(true)
                .value_parser(ValueParser::string()),
        )
    })
}
