//! One dev-task from its launch to the end of its whole tree.
//!
//! setup → program → teardown, each in a tree of its own with the same confinement and the same output streams. The
//! clock runs over setup and program. The end is told when nobody of the tree is left and its output has been drained;
//! a process that escaped into nothing cannot hold it back, because it was killed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use protocol::control::{Command, Exit, Report, Scope, Usage};
use protocol::policy::ExecutionClass;
use protocol::task::{State, Task, Terminal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::folders::Folders;
use super::request::Spec;
use super::{Config, Control, Update, identity};
use crate::exit::reason;
use crate::launch::{Event, Launcher, Request, Task as Overrides, Tree};
use crate::link::Lines;
use crate::workspace::failure::Failure;
use crate::workspace::work::Work;
use crate::workspace::workers::{Input as Content, Workers};

mod counted;
mod ends;
mod input;

pub(super) use counted::Counted;
use ends::Ends;
use input::Input;
pub(crate) use input::Typed;

/// Output that is still in a pipe when nobody is left to write more is read at once; this is for a slow disk.
const DRAIN: Duration = Duration::from_secs(5);

/// A task's archive, in its folder.
pub(crate) const SEED: &str = "seed.tar.gz";

/// What happened to a task.
#[derive(Debug)]
pub(crate) enum Change {
    /// Its first program is about to be launched.
    Starting,
    /// Its program runs.
    Running,
    /// It was cancelled in the queue.
    NeverRan,
    /// Nobody of it is left.
    Ended(Ended),
}

/// How a task ended.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    exit: Option<Exit>,
    timed_out: bool,
    /// In our own words; what others say, and what the client named, stands after a colon, where [`super::row::log`] leaves it out.
    reason: Option<String>,
    usage: Usage,
}

impl Change {
    /// Bring the answer up to date.
    pub(crate) fn apply(self, task: &mut Task, cancelled: bool) {
        match self {
            Change::Starting => task.state = State::Starting,
            Change::Running => {
                task.state = State::Running;
                task.started_at = Some(identity::now());
            }
            Change::NeverRan => task.state = State::Cancelled,
            Change::Ended(ended) => {
                task.state = match ended.exit {
                    _ if ended.timed_out => State::TimedOut,
                    // It may have ended by itself just before; then that is the truth.
                    Some(Exit::Signal(_)) | None if cancelled => State::Cancelled,
                    Some(Exit::Code(code)) if code != 0 && cancelled => State::Cancelled,
                    Some(Exit::Code(0)) => State::Succeeded,
                    _ => State::Failed,
                };
                match ended.exit {
                    Some(Exit::Code(code)) => task.exit_code = Some(code),
                    Some(Exit::Signal(signal)) => task.signal = Some(signal),
                    None => {}
                }
                task.reason = ended.reason;
                task.usage = ended.usage;
            }
        }
    }
}

/// Everything one run needs.
pub(super) struct Run {
    pub(super) id: String,
    pub(super) spec: Spec,
    pub(super) launcher: Launcher,
    pub(super) config: Config,
    pub(super) artifacts: PathBuf,
    /// Its own workspace, where it was given an archive, and that archive.
    pub(super) workspace: Option<PathBuf>,
    pub(super) seed: PathBuf,
    pub(super) workers: Workers,
    pub(super) folders: Folders,
    pub(super) streams: (Counted, Counted),
    pub(super) lines: Lines,
    pub(super) control: mpsc::Receiver<Control>,
    /// Its standard input, from whoever is a client.
    pub(super) typed: mpsc::Receiver<Typed>,
    /// The size of its terminal, where it has one, as clients change it.
    pub(super) size: watch::Receiver<Option<Terminal>>,
    pub(super) updates: mpsc::Sender<Update>,
    /// A client or a stop asked for its end; nothing more is begun but its teardown.
    pub(super) told_to_end: bool,
}

/// Which of a task's three programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Setup,
    Program,
    Teardown,
}

impl Run {
    pub(super) async fn run(mut self) {
        let mut ended = Ended::default();
        let home = self.artifacts.parent().unwrap_or(&self.artifacts);
        if let Err(error) = self.folders.place(home, self.workspace.as_deref()) {
            ended.reason = Some(format!("the task's directories cannot be made: {error}"));
            return self.tell(Change::Ended(ended)).await;
        }
        let deadline = Instant::now() + self.spec.timeout;
        if let Some(workspace) = self.workspace.clone()
            && !self.unpack(workspace, deadline, &mut ended).await
        {
            return self.tell(Change::Ended(ended)).await;
        }
        let setup = self.spec.setup.take();
        let ready = match setup {
            Some(argv) => {
                self.part(Part::Setup, argv, deadline, &mut ended).await;
                let exit = ended.exit.take();
                let told_to_end = self.told_to_end || ended.timed_out;
                if exit != Some(Exit::Code(0)) && !told_to_end && ended.reason.is_none() {
                    ended.reason = Some(match exit {
                        Some(Exit::Code(code)) => format!("setup failed with exit code {code}"),
                        Some(Exit::Signal(signal)) => format!("setup was ended by signal {signal}"),
                        None => "setup failed".into(),
                    });
                }
                exit == Some(Exit::Code(0)) && !told_to_end
            }
            None => true,
        };
        if ready {
            let argv = std::mem::take(&mut self.spec.argv);
            self.part(Part::Program, argv, deadline, &mut ended).await;
        }
        // Who still types is told that nobody reads it.
        self.typed.close();
        while self.typed.try_recv().is_ok() {}
        if let Some(argv) = self.spec.teardown.take() {
            let mut after = Ended::default();
            self.part(Part::Teardown, argv, Instant::now() + self.spec.timeout, &mut after).await;
            if after.exit != Some(Exit::Code(0)) && ended.reason.is_none() {
                ended.reason = Some("teardown failed".into());
            }
        }
        self.tell(Change::Ended(ended)).await;
    }

    /// Fill the workspace from the archive; false where the task ends here, with nothing left in it.
    async fn unpack(&mut self, root: PathBuf, deadline: Instant, ended: &mut Ended) -> bool {
        let why = {
            let work = Work::Unpack { root: root.clone(), most: self.config.unpacked };
            let unpacking = async {
                let seed = std::fs::File::open(&self.seed).map_err(|e| Failure::at("the archive", &e))?;
                self.workers.run(&work, Content::File(seed)).await
            };
            let told_to_end = async {
                loop {
                    match self.control.recv().await {
                        Some(Control::End(_)) | None => return,
                        // Nobody is there yet to be signalled or to read.
                        Some(_) => {}
                    }
                }
            };
            tokio::select! {
                done = unpacking => match done {
                    Ok(()) => return true,
                    Err(failure) => Some(format!("the workspace could not be unpacked: {failure}")),
                },
                () = told_to_end => {
                    self.told_to_end = true;
                    None
                }
                () = sleep_until(deadline) => {
                    ended.timed_out = true;
                    None
                }
            }
        };
        ended.reason = why;
        if let Err(failure) = self.workers.run(&Work::Clear { root }, Content::None).await {
            tracing::warn!(task_id = self.id, %failure, "what was unpacked could not be removed");
        }
        false
    }

    async fn tell(&self, change: Change) {
        let _ = self.updates.send(Update { id: self.id.clone(), change }).await;
    }

    fn scratch(&self) -> PathBuf {
        self.artifacts.with_file_name("scratch")
    }

    /// One program, from launch until its tree is gone and its output is on disk.
    async fn part(&mut self, part: Part, argv: Vec<OsString>, deadline: Instant, ended: &mut Ended) {
        match self.try_part(part, argv, deadline, ended).await {
            Ok(()) => {}
            Err(reason) => {
                ended.exit = None;
                ended.reason = Some(reason);
            }
        }
    }

    async fn try_part(
        &mut self,
        part: Part,
        argv: Vec<OsString>,
        deadline: Instant,
        ended: &mut Ended,
    ) -> Result<(), String> {
        let Ends { streams, pumps, input } = self.ends(part)?;
        let request = Request { argv, env: self.environment(), cwd: self.cwd(), streams };
        let launcher = self.launcher.for_task(self.overrides());
        let started = launcher.start(&request).await;
        let tree = started.map_err(|e| format!("it could not be started: {}", reason(&e)))?;
        // Our copies of the task's ends go, so that pipes and terminal end with the task.
        drop(request);
        self.follow(part, tree, input, deadline, ended).await?;
        for pump in pumps {
            // A process outside the tree that was passed an end could keep it open; it does not keep us.
            let _ = timeout(DRAIN, pump).await;
        }
        Ok(())
    }

    /// What this part reads and writes. Only the program has input; each part has a terminal of its own.
    fn ends(&mut self, part: Part) -> Result<Ends, String> {
        if let Some(size) = *self.size.borrow_and_update() {
            return Ends::terminal(size, &self.streams.0).map_err(|e| format!("a terminal cannot be made: {e}"));
        }
        let takes_input = part == Part::Program && (self.spec.stdin.is_some() || self.spec.stdin_open);
        Ends::pipes(takes_input.then_some(&mut self.spec), &self.streams, (&self.lines, &self.id))
            .map_err(|e| format!("a pipe cannot be made: {e}"))
    }

    async fn follow(
        &mut self,
        part: Part,
        mut tree: Tree,
        mut input: Input,
        deadline: Instant,
        ended: &mut Ended,
    ) -> Result<(), String> {
        let mut over = false;
        loop {
            tokio::select! {
                event = tree.event() => match event {
                    Some(Event::Report(Report::Started { .. })) if part == Part::Program => self.tell(Change::Running).await,
                    Some(Event::Report(Report::Failed(failure))) => {
                        return Err(format!("it could not be started: {}", failure.message));
                    }
                    Some(Event::Report(Report::Ended { exit, usage, .. })) => {
                        ended.exit = Some(exit);
                        ended.usage = usage;
                        return Ok(());
                    }
                    Some(Event::Report(_)) => {}
                    Some(Event::ShimLost(_)) | None => {
                        self.launcher.end_leftovers().await;
                        return Err("the task's shim was killed".into());
                    }
                },
                control = self.control.recv() => match control {
                    Some(Control::End(grace)) => {
                        self.told_to_end = true;
                        self.end(&tree, grace).await;
                    }
                    None => self.end(&tree, Duration::MAX).await,
                    Some(Control::Signal(signal)) => tree.command(Command::Signal(signal)).await,
                },
                Some(typed) = self.typed.recv(), if part == Part::Program && input.has_room() => input.take(typed),
                Ok(()) = self.size.changed() => input.resize(*self.size.borrow_and_update()),
                () = sleep_until(deadline), if !over && part != Part::Teardown => {
                    over = true;
                    ended.timed_out = true;
                    self.end(&tree, Duration::MAX).await;
                }
                () = input.work() => {}
            }
        }
    }

    async fn end(&self, tree: &Tree, at_most: Duration) {
        let grace = self.config.grace.min(at_most);
        tree.command(Command::Stop { signal: libc::SIGTERM, scope: Scope::Tree, grace }).await;
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut env: Vec<(OsString, OsString)> = vec![
            ("TMPDIR".into(), self.scratch().into()),
            ("TASK_ID".into(), self.id.clone().into()),
            ("TASK_ARTIFACTS".into(), self.artifacts.clone().into()),
        ];
        if self.size.borrow().is_some() {
            // What every terminal emulator of today understands; the client's own word goes before.
            env.push(("TERM".into(), "xterm-256color".into()));
        }
        env.extend(self.workspace.iter().map(|path| ("TASK_WORKSPACE".into(), path.into())));
        env.extend(self.spec.env.iter().map(|(k, v)| (k.into(), v.into())));
        env
    }

    fn cwd(&self) -> Option<PathBuf> {
        let workspace = self.workspace.as_ref().unwrap_or(&self.launcher.config().workspace);
        let usual = || if workspace.is_dir() { workspace.clone() } else { self.scratch() };
        Some(self.spec.cwd.clone().unwrap_or_else(usual))
    }

    fn overrides(&self) -> Overrides {
        Overrides {
            class: self.spec.class,
            connect_ports: self.spec.connect_ports.clone(),
            limits: self.spec.limits.clone(),
            write: vec![self.scratch(), self.artifacts.clone()],
            read_only: self.spec.class == ExecutionClass::Readonly,
            workspace: self.workspace.clone(),
            grace: self.config.grace,
        }
    }
}
