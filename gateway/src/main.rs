//! The command line, the settings, the logs; then one of the commands.

use std::io::Write;
use std::process::ExitCode;

use clap::ArgMatches;
use gateway::app::{self, Config};
use gateway::backend::kubernetes;
use gateway::config::{self, Mistake, Reader, parse};
use gateway::exit::{self, Fault};
use gateway::logs;
use gateway::store::migrate;
use protocol::words::printable;

mod cli;

fn main() -> ExitCode {
    let matches = match cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(message) => {
            let _ = message.print();
            return ExitCode::from(if message.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    let result = match matches.subcommand() {
        Some(("serve", m)) => serve(m),
        Some(("migrate", m)) => match m.subcommand() {
            Some(("up", m)) => migrate_up(m),
            Some((_, m)) => migrate_status(m),
            None => unreachable!("clap requires one of the subcommands above"),
        },
        Some(("preflight", m)) => return end(cli::preflight::run(m)),
        Some(("clean", m)) => return end(cli::clean::run(m)),
        Some(("settings", _)) => say(&config::markdown()),
        Some(("completions", m)) => say(&cli::completions(m)),
        Some(("dev", m)) => return end(cli::dev::run(m)),
        Some(("sandbox", m)) => return end(cli::sandbox::run(m)),
        Some(("task", m)) => return end(cli::task::run(m)),
        _ => unreachable!("clap requires one of the subcommands above"),
    };
    end(result.map(|()| 0))
}

fn end(result: Result<u8, Fault>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(fault) => {
            // Its lines are ours, and what stands in them may be a sandbox's.
            let reason = fault.reason.lines().map(printable).collect::<Vec<_>>().join("\n");
            let _ = writeln!(std::io::stderr(), "gateway: {reason}");
            ExitCode::from(fault.code)
        }
    }
}

fn reader(matches: &ArgMatches) -> Reader {
    Reader::new(cli::flags(matches), std::env::vars_os().collect())
}

fn serve(matches: &ArgMatches) -> Result<(), Fault> {
    let mut reader = reader(matches);
    let logs = logs::Config::read(&mut reader);
    let config = Config::read(reader).map_err(|mistakes| all_mistakes(&mistakes))?;
    logs::start(logs);
    many_threads(app::serve(config))
}

/// Of a command that is about the Kubernetes backend; `deed` is what it would do.
fn kubernetes(matches: &ArgMatches, deed: &str) -> Result<kubernetes::Config, Fault> {
    let config = Config::read(reader(matches)).map_err(|mistakes| all_mistakes(&mistakes))?;
    config.kubernetes.ok_or_else(|| Fault {
        code: exit::CONFIGURATION,
        reason: format!("there is nothing to {deed}: GATEWAY_BACKEND is `none`"),
    })
}

fn many_threads<T>(future: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Fault::new(exit::INTERNAL, &error))?;
    let result = runtime.block_on(future);
    // What did not end in its time does not hold the process.
    runtime.shutdown_background();
    result
}

fn migrate_up(matches: &ArgMatches) -> Result<(), Fault> {
    let url = database(matches)?;
    let applied = block_on(migrate::up(&url))?.map_err(app::fault)?;
    let text: String = applied.iter().map(|name| format!("applied {name}\n")).collect();
    say(if text.is_empty() { "the schema is current\n" } else { &text })
}

fn migrate_status(matches: &ArgMatches) -> Result<(), Fault> {
    let url = database(matches)?;
    let status = block_on(migrate::status(&url))?.map_err(app::fault)?;
    say(&format!("the schema has version {}, this gateway needs {}\n", status.found, status.wanted))?;
    status.check().map_err(|difference| Fault::new(exit::CONFIGURATION, &difference))
}

fn database(matches: &ArgMatches) -> Result<String, Fault> {
    let mut reader = reader(matches);
    let url = reader.value("database_url", parse::database);
    let mistakes = reader.finish();
    if mistakes.is_empty() { Ok(url) } else { Err(all_mistakes(&mistakes)) }
}

fn block_on<F: Future>(future: F) -> Result<F::Output, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| Fault::new(exit::INTERNAL, &error))?.block_on(future))
}

fn all_mistakes(mistakes: &[Mistake]) -> Fault {
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    Fault { code: exit::CONFIGURATION, reason: lines.join("\ngateway: ") }
}

/// To standard output; a reader that has gone is no fault of ours.
fn say(text: &str) -> Result<(), Fault> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Fault::new(exit::TEMPORARY, &error)),
        _ => Ok(()),
    }
}
