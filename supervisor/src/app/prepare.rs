//! What has to be in place before the agent starts: defaults and the provider's configuration.
//!
//! They lie on volumes that an agent of an earlier run could change, so PID 1 does not open them: `supervisor
//! bootstrap` does, through the shim, with the agent's ids and confined to those volumes.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::fcntl::OFlag;
use protocol::control::{Exit, Report};
use tokio::task::spawn_blocking;

use super::Config;
use crate::exit::{self, Fault};
use crate::launch::{Event, Launcher, Request, Streams};

/// A worker whose supervisor stops has nothing to save.
const WORKER_GRACE: std::time::Duration = std::time::Duration::from_secs(1);
/// More than any error of ours has.
const MAX_WORDS: u64 = 4096;

/// Nothing where nothing is configured.
pub(super) async fn run(config: &Config, launcher: &Launcher) -> Result<(), Fault> {
    let mut only = Vec::new();
    let mut writable = Vec::new();
    let mut env = config.provider.variables();
    if let Some(plan) = &config.bootstrap {
        only.push("defaults");
        writable.push(plan.target.clone());
        env.extend([
            ("SUPERVISOR_BOOTSTRAP_SOURCE".into(), plan.source.clone().into()),
            ("SUPERVISOR_BOOTSTRAP_TARGET".into(), plan.target.clone().into()),
            ("SUPERVISOR_BOOTSTRAP_VERSION".into(), plan.version.clone().into()),
        ]);
    }
    if config.provider.is_configured() {
        only.push("provider");
        writable.extend(config.home.clone());
    }
    if only.is_empty() {
        return Ok(());
    }
    let internal = |e: std::io::Error| Fault::new(exit::INTERNAL, &e);
    let own = std::env::current_exe().map_err(internal)?;
    let argv = [own.into_os_string(), "bootstrap".into(), "--only".into(), only.join(",").into()];
    let (read_end, write_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| internal(e.into()))?;
    let streams = Streams::To(Arc::new(write_end));
    let request = Request { argv: argv.to_vec(), env, cwd: None, streams };
    // Read while it runs: a full pipe would hold it up.
    let words = spawn_blocking(move || words(read_end));
    let launcher = launcher.confined_to(writable).with_grace(WORKER_GRACE);
    let ended = worker(&launcher, request).await;
    let words = words.await.unwrap_or_default();
    match ended? {
        0 => {
            tracing::info!("{}", words.trim_end());
            Ok(())
        }
        code => {
            let reason = words.trim_end().replace("supervisor: ", "");
            Err(Fault { code: u8::try_from(code).unwrap_or(exit::INTERNAL), reason })
        }
    }
}

/// The worker's exit code; a fault where it did not run. The request is dropped with its pipe end before this ends.
async fn worker(launcher: &Launcher, request: Request) -> Result<i32, Fault> {
    let mut tree = launcher.start(&request).await.map_err(|e| Fault::new(exit::CONFINEMENT, &e))?;
    let lost = |code| Fault { code, reason: "the bootstrap's shim was lost".into() };
    loop {
        match tree.event().await.ok_or_else(|| lost(exit::INTERNAL))? {
            Event::Report(Report::Ended { exit, .. }) => return Ok(exit.code()),
            Event::Report(Report::Failed(failure)) => {
                let code = exit::unless_scarce(exit::CONFINEMENT, failure.errno);
                return Err(Fault { code, reason: format!("bootstrap: {}", failure.message) });
            }
            Event::Report(_) => {}
            // As of the agent's: others ended it, or the kernel for want of memory.
            Event::ShimLost(Exit::Signal(libc::SIGKILL)) => return Err(lost(exit::TEMPORARY)),
            Event::ShimLost(_) => return Err(lost(exit::INTERNAL)),
        }
    }
}

fn words(pipe: OwnedFd) -> String {
    let mut words = Vec::new();
    // What cannot be read is not said; the exit code still tells.
    let mut pipe = std::fs::File::from(pipe);
    let _ = (&mut pipe).take(MAX_WORDS).read_to_end(&mut words);
    let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    String::from_utf8_lossy(&words).into_owned()
}
