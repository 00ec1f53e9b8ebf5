//! What the program says itself: to a person on its standard streams, to the kubelet in the termination message.
//!
//! Nobody listening is no trouble: a closed pipe is met with silence. A full disk is one for standard output, whose
//! words were asked for; for standard error there is nobody left to tell.

use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use supervisor::config::Mistake;
use supervisor::exit::{self, Fault};
use supervisor::termination::{self, Record, TerminationLog};

use crate::cli::Wrong;

/// The answer of a command.
pub(crate) fn say(text: &str) -> Result<(), Fault> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Fault { code: exit::TEMPORARY, reason: format!("standard output cannot be written: {error}") })
        }
        _ => Ok(()),
    }
}

/// The command's code once its answer is out.
pub(crate) fn answer(text: &str, code: u8) -> u8 {
    say(text).map_or_else(|fault| complain(&fault, None), |()| code)
}

/// Say it where a person looks, and where the kubelet does.
pub(crate) fn complain(fault: &Fault, termination: Option<&Mutex<TerminationLog>>) -> u8 {
    let mut stderr = io::stderr().lock();
    for line in fault.reason.lines() {
        let _ = writeln!(stderr, "supervisor: {line}");
    }
    if let Some(log) = termination {
        let record = Record::fault(fault.code.into(), &fault.reason);
        log.lock().unwrap_or_else(PoisonError::into_inner).write(&record);
    }
    fault.code
}

/// All mistakes together.
pub(crate) fn all_mistakes(mistakes: &[Mistake]) -> Fault {
    let lines: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
    Fault { code: exit::CONFIGURATION, reason: lines.join("\n") }
}

/// The command line was not understood.
pub(crate) fn not_run(wrong: &Wrong) -> u8 {
    let _ = io::stderr().write_all(wrong.to_string().as_bytes());
    // Not for what is run beside a running container's supervisor: the message is that one's.
    if matches!(wrong.command, Some("run" | "bootstrap" | "install")) {
        let configured = std::env::var_os("SUPERVISOR_TERMINATION_LOG").filter(|path| !path.is_empty());
        let configured = configured.as_deref().map(Path::new);
        if let Ok(mut log) = TerminationLog::open(configured, Path::new(termination::DEFAULT_PATH)) {
            log.write(&Record::fault(exit::USAGE.into(), &wrong.problem));
        }
    }
    exit::USAGE
}
