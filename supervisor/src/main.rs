//! The command line, the settings, the logs; then run and exit as the agent did.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use supervisor::app::{self, Config, Edges};
use supervisor::config::{Reader, Sources, parse};
use supervisor::exit::{self, Fault};
use supervisor::install::{self, Programs};
use supervisor::launch::output::Sink;
use supervisor::metrics::Metrics;
use supervisor::provider::{self, Provider};
use supervisor::termination::{self, TerminationLog};
use supervisor::{bootstrap, init, logs, netcheck, preflight, probe};

mod cli;
mod words;

use cli::{Command, Flags};
use words::{all_mistakes, answer, complain, say};

fn main() -> ExitCode {
    let first = std::env::args_os().nth(1).unwrap_or_default();
    let hardened = harden(first == "run" || first == "preflight");
    let command = match cli::read(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(wrong) => return ExitCode::from(words::not_run(&wrong)),
    };
    ExitCode::from(match command {
        Command::Run { flags, argv } => run_command(flags, argv, hardened),
        Command::Bootstrap { flags, only } => bootstrap_command(flags, &only),
        Command::Install { destination } => install_command(&destination),
        Command::Preflight { flags, json } => preflight_command(flags, json),
        Command::Probe { flags, path } => probe_command(flags, path),
        Command::Netcheck { open, closed, settle, json } => netcheck_command(&open, &closed, settle, json),
        Command::Worker { work } => supervisor::worker::run(&work),
        Command::Settings => answer(&protocol::setting::markdown(supervisor::config::SETTINGS), 0),
        Command::Tell(text) => answer(&text, 0),
    })
}

/// Before anything else, so that no moment exists in which an agent of the same uid could trace us, read our memory
/// (`PR_SET_DUMPABLE`, prctl(2)) or find a core file. Signals are blocked only for a command that `reads_signals`, and
/// for it as early, so that none is lost; any other is to end by them.
fn harden(reads_signals: bool) -> nix::Result<()> {
    nix::sys::prctl::set_dumpable(false)?;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0)?;
    if reads_signals { init::block_signals() } else { Ok(()) }
}

fn run_command(flags: Flags, argv: Vec<OsString>, hardened: nix::Result<()>) -> u8 {
    let sources = Sources::gather(flags, std::env::vars_os().collect());
    let mut reader = Reader::new(&sources);
    let logs = logs::Config::read(&mut reader);
    let configured = reader.optional("termination_log", parse::any_path);
    let termination = match TerminationLog::open(configured.as_deref(), Path::new(termination::DEFAULT_PATH)) {
        Ok(log) => Arc::new(Mutex::new(log)),
        Err(error) => return complain(&Fault::new(exit::CONFIGURATION, &error), None),
    };
    let result = hardened
        .and_then(|()| init::adopt_orphans())
        .map_err(|e| Fault {
            code: exit::unless_scarce(exit::CONFINEMENT, e as i32),
            reason: format!("the supervisor cannot protect itself: {e}"),
        })
        .and_then(|()| Config::read(&sources, argv).map_err(|mistakes| all_mistakes(&mistakes)))
        .and_then(|config| run(config, logs, termination.clone()));
    result.unwrap_or_else(|fault| complain(&fault, Some(&termination)))
}

/// A thread that has had nothing to do for so long ends.
const IDLE: Duration = Duration::from_secs(2);

fn run(config: Config, logs: logs::Config, termination: Arc<Mutex<TerminationLog>>) -> Result<u8, Fault> {
    let internal = |e: std::io::Error| Fault::new(exit::INTERNAL, &e);
    let metrics = Arc::new(Metrics::default());
    let stdout = Sink::new(std::io::stdout(), &metrics).map_err(internal)?;
    let stderr = Sink::new(std::io::stderr(), &metrics).map_err(internal)?;
    logs::start(logs, stderr.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Threads copy output or wait for a disk; idle ones go, but for one.
        .max_blocking_threads(8)
        .thread_keep_alive(IDLE)
        .thread_stack_size(256 * 1024)
        .build()
        .map_err(internal)?;
    runtime.spawn(keep_a_thread());
    let edges = Edges { sinks: (stdout, stderr), termination, metrics };
    // Connections and tasks catch their own panics; one here is ours, and PID 1 still has a last word to write.
    let code = catch_unwind(AssertUnwindSafe(|| runtime.block_on(app::run(config, edges))))
        .map_err(|_| Fault { code: exit::INTERNAL, reason: "the supervisor panicked; this is a bug of it".into() });
    // A thread that is blocked on a reader who has stopped would keep the process.
    runtime.shutdown_background();
    code
}

/// One thread stays: where an agent has used up the Pod's processes (pids.max), no other can begin, and whatever is to be done on a thread
/// waits for this one. Without any, tokio would panic.
async fn keep_a_thread() {
    loop {
        let _ = tokio::task::spawn_blocking(|| ()).await;
        // Those that wait take turns: a second one has its turn too late, and ends.
        tokio::time::sleep(IDLE * 4 / 5).await;
    }
}

fn bootstrap_command(flags: Flags, only: &[String]) -> u8 {
    let sources = Sources::gather(flags, std::env::vars_os().collect());
    let termination = TerminationLog::open(None, Path::new(termination::DEFAULT_PATH)).ok().map(Mutex::new);
    let wanted = |part: &str| only.is_empty() || only.iter().any(|o| o == part);
    match bootstrap_parts(&sources, wanted("defaults"), wanted("provider")) {
        Ok(()) => 0,
        Err(fault) => complain(&fault, termination.as_ref()),
    }
}

fn bootstrap_parts(sources: &Sources, defaults: bool, provider: bool) -> Result<(), Fault> {
    let mut reader = Reader::new(sources);
    let settings = Provider::read(&mut reader);
    // The image's own defaults, where the operator named none; an image without them and with a provider is fine.
    let usual = Path::new("/app/defaults/agent");
    let usual = (usual.is_dir() || !settings.is_configured()).then_some(usual);
    let plan = bootstrap::Plan::read(&mut reader, usual);
    let mistakes = reader.finish();
    if !mistakes.is_empty() {
        return Err(all_mistakes(&mistakes));
    }
    if let Some(plan) = plan.filter(|_| defaults) {
        let done = bootstrap::run(&plan).map_err(|e| Fault::new(exit::CONFIGURATION, &e))?;
        let target = plan.target.display();
        let mut text = format!("{target}: copied {}, kept {}, version {}\n", done.copied, done.kept, done.version);
        for path in &done.blocked {
            text += &format!("{}: left out, something else has this directory's place\n", path.display());
        }
        say(&text)?;
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    if let (true, Some(home)) = (provider, home) {
        match provider::write_once(&home, &settings).map_err(|e| Fault::new(exit::CONFIGURATION, &e))? {
            provider::Outcome::Written(path) => say(&format!("{}: written\n", path.display()))?,
            provider::Outcome::Kept(path) => say(&format!("{}: kept\n", path.display()))?,
            provider::Outcome::NotConfigured => {}
        }
    }
    Ok(())
}

fn install_command(destination: &Path) -> u8 {
    let termination = TerminationLog::open(None, Path::new(termination::DEFAULT_PATH)).ok().map(Mutex::new);
    match Programs::running(Path::new("/proc")).and_then(|programs| install::install(programs, destination)) {
        Ok(files) => answer(&files.iter().map(|file| format!("{}\n", file.display())).collect::<String>(), 0),
        Err(error) => complain(&Fault::new(exit::CONFIGURATION, &error), termination.as_ref()),
    }
}

fn probe_command(flags: Flags, path: &str) -> u8 {
    let sources = Sources::gather(flags, std::env::vars_os().collect());
    let mut reader = Reader::new(&sources);
    let listen: SocketAddr = reader.value("listen", parse::address);
    let mistakes = reader.finish();
    if !mistakes.is_empty() {
        return complain(&all_mistakes(&mistakes), None);
    }
    match probe::probe(listen, path, Duration::from_secs(2)) {
        // A probe is asked for its code; trouble with its text must not change that.
        Ok((status, body)) => {
            let _ = say(&format!("{}\n", body.trim_end()));
            u8::from(!(200..300).contains(&status))
        }
        // Whatever it was, the code is the answer.
        Err(error) => complain(&Fault { code: 1, reason: exit::reason(&error) }, None),
    }
}

fn netcheck_command(open: &[netcheck::Target], closed: &[netcheck::Target], settle: Duration, json: bool) -> u8 {
    match netcheck::check(open, closed, netcheck::PATIENCE, settle) {
        Ok(findings) => {
            let text = if json {
                serde_json::to_string(&findings).unwrap_or_default() + "\n"
            } else {
                netcheck::table(&findings)
            };
            answer(&text, u8::from(!findings.iter().all(|finding| finding.ok)))
        }
        Err(error) => complain(&Fault::new(exit::INTERNAL, &error), None),
    }
}

fn preflight_command(flags: Flags, json: bool) -> u8 {
    let sources = Sources::gather(flags, std::env::vars_os().collect());
    match preflight::check(&sources) {
        Ok(report) => {
            let text = if json { report.json() + "\n" } else { report.table() };
            answer(&text, report.code())
        }
        Err(fault) => complain(&fault, None),
    }
}
