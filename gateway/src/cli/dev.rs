//! `gateway dev`: the whole system on this machine, until Ctrl-C.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, value_parser};
use gateway::app::{Config, Stops};
use gateway::client::Client;
use gateway::config::{Reader, find, parse};
use gateway::dev::{self, Dev, Options};
use gateway::exit::Fault;
use gateway::logs;
use protocol::task::Create;

use super::client::Format;
use super::task::{self, How};

/// The command.
pub(crate) fn command() -> Command {
    let log_level = find("log_level").map(|setting| setting.help).unwrap_or_default();
    Command::new("dev")
        .about("Gateway, store and supervised sandboxes on this machine: no Kubernetes, no configuration")
        .after_help(
            "Ctrl-C stops everything; what the sandboxes have is there again the next time. After a kill -9 the sandboxes run \
             on and are adopted by the next `gateway dev`.",
        )
        .arg(
            Arg::new("dir")
                .long("dir")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("where everything is [~/.local/state/chaperone/dev]"),
        )
        .arg(
            Arg::new("listen")
                .long("listen")
                .value_name("ADDRESS")
                .value_parser(parse::address)
                .help("where to listen [127.0.0.1:8080, or any port that is free]"),
        )
        .arg(
            Arg::new("sandboxes")
                .long("sandboxes")
                .value_name("NUMBER")
                .default_value("1")
                .value_parser(value_parser!(u32).range(1..=1000))
                .help("so many at least"),
        )
        .arg(
            Arg::new("log_level")
                .long("log-level")
                .value_name("LEVEL")
                .default_value("error")
                .help(format!("{log_level} on stderr")),
        )
        .arg(
            Arg::new("argv")
                .value_name("ARGV")
                .num_args(0..)
                .last(true)
                .help("run this as a task, then stop and exit as it did"),
        )
}

/// Run it; the exit code.
pub(crate) fn run(matches: &ArgMatches) -> Result<u8, Fault> {
    let text = |name| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let flags = [("log_level", text("log_level")), ("log_format", "plain".into())];
    let mut reader = Reader::new(flags.into(), std::env::vars_os().collect());
    logs::start(logs::Config::read(&mut reader));
    let config = Config::read(reader).map_err(|mistakes| crate::all_mistakes(&mistakes))?;
    let options = Options {
        directory: matches.get_one::<PathBuf>("dir").cloned(),
        listen: matches.get_one("listen").copied(),
        sandboxes: matches.get_one("sandboxes").copied().unwrap_or(1),
    };
    let argv: Vec<String> = matches.get_many::<String>("argv").unwrap_or_default().cloned().collect();
    crate::many_threads(async {
        let mut stops = Stops::new()?;
        let dev = dev::start(options, config, &mut stops).await?;
        let result = if argv.is_empty() { serve(&dev, &mut stops).await } else { once(&dev, argv).await };
        dev.stop(&mut stops).await;
        result
    })
}

async fn serve(dev: &Dev, stops: &mut Stops) -> Result<u8, Fault> {
    crate::say(&hints(dev))?;
    stops.next().await;
    crate::say("stopping the sandboxes and the gateway\n")?;
    Ok(0)
}

/// One task from nothing to its end.
async fn once(dev: &Dev, argv: Vec<String>) -> Result<u8, Fault> {
    let how = How { detach: false, wait: false, attach: false, format: Format::Table };
    let create = Create { argv, ..Create::default() };
    let patience = task::told_patience(Duration::from_secs(30));
    task::start(Client::new(dev.context.clone()), Some(dev::SANDBOX.into()), create, how, patience).await
}

/// What to try next.
fn hints(dev: &Dev) -> String {
    let program = program();
    let who = match dev.sandboxes.as_slice() {
        [only] => format!("sandbox {only} is"),
        several => format!("sandboxes {} are", several.join(", ")),
    };
    let choice = if dev.sandboxes.len() > 1 { format!(" --sandbox {}", dev::SANDBOX) } else { String::new() };
    format!(
        "The gateway listens on {address}; {who} connected after {took:.2} s.
Everything is in {directory}.

Try in another terminal:
  {program} task run{choice} -- sh -c 'id; touch ok; ls -l; touch /etc/x'
  {program} task list{choice}
  {program} sandbox list
  {program} sandbox create another
  {program} --help

Ctrl-C stops everything.
",
        address = dev.context.address,
        took = dev.took.as_secs_f64(),
        directory = dev.directory.display(),
    )
}

/// How this program is called here.
fn program() -> String {
    let here = std::env::current_exe().ok();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join("gateway")).find(|path| path.is_file());
    let canonical = |path: Option<PathBuf>| path.and_then(|path| path.canonicalize().ok());
    match (canonical(here.clone()), canonical(found)) {
        (Some(here), Some(found)) if here == found => "gateway".into(),
        _ => here.map_or_else(|| "gateway".into(), |path| path.display().to_string()),
    }
}
