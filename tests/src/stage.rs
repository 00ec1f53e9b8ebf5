//! The stage: where a program is run as a Pod would run it, without a cluster.
//!
//! `stage OPTIONS -- ARGV` makes the namespaces, the container and the privileges that the options name, in this
//! order, and becomes ARGV there. Nothing that happens on a stage outlives it: its pid namespace dies with it, its
//! mounts are private, and a container's root is an overlay in memory.
//!
//! It is a program and not a library call, so that no code of ours runs between fork and exec in a threaded test.

use std::ffi::OsString;
use std::path::PathBuf;

pub mod container;
mod inner;
mod outer;
pub mod privileges;
pub mod weaken;

pub use inner::inner;
pub use outer::outer;
pub use privileges::Profile;
pub use weaken::Cut;

/// What a stage offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    /// Whether there is a pid namespace, and who is its init.
    pub pids: Pids,
    /// Ids and capabilities of ARGV.
    pub profile: Profile,
    /// A root of its own, made in this directory, with the programs of that one.
    pub container: Option<(PathBuf, PathBuf)>,
    /// Memory file systems over these directories: path and KiB.
    pub tmpfs: Vec<(PathBuf, u64)>,
    /// Terminal that becomes standard input, output, error and the controlling terminal.
    pub terminal: Option<PathBuf>,
    /// System calls that this "kernel" does not have: they answer ENOSYS.
    pub without: Vec<u32>,
    /// What it is deaf to when the shim asks for it.
    pub cuts: Vec<Cut>,
    /// The inner half's end of the line by which the outer one hears of that.
    pub ear: Option<i32>,
    /// Start a process of the same ids that is not of ARGV's tree.
    pub outsider: bool,
    /// Where the outer process writes the pid, as it sees it, of the stage's first process.
    pub pid_file: Option<PathBuf>,
    /// What to run.
    pub argv: Vec<OsString>,
}

/// Whether there is a pid namespace, and who is its init.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pids {
    /// No pid namespace: ARGV replaces the stage.
    #[default]
    Host,
    /// ARGV is PID 1.
    First,
    /// The stage is PID 1 and reaps; ARGV is its child, as with a shared pid namespace.
    Child,
}

impl Stage {
    /// The options and ARGV as arguments of the `stage` program.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut out: Vec<OsString> = vec!["--profile".into(), self.profile.name().into()];
        match self.pids {
            Pids::Host => {}
            Pids::First => out.push("--first".into()),
            Pids::Child => out.push("--child".into()),
        }
        if let Some((scratch, programs)) = &self.container {
            out.extend(["--container".into(), scratch.into(), programs.into()]);
        }
        for (path, kib) in &self.tmpfs {
            out.extend(["--tmpfs".into(), path.into(), kib.to_string().into()]);
        }
        if let Some(path) = &self.terminal {
            out.extend(["--terminal".into(), path.into()]);
        }
        for call in &self.without {
            out.extend(["--without".into(), call.to_string().into()]);
        }
        for cut in &self.cuts {
            out.extend(["--cut".into(), cut.to_string().into()]);
        }
        if let Some(ear) = self.ear {
            out.extend(["--ear".into(), ear.to_string().into()]);
        }
        if self.outsider {
            out.push("--outsider".into());
        }
        if let Some(path) = &self.pid_file {
            out.extend(["--pid-file".into(), path.into()]);
        }
        out.push("--".into());
        out.extend(self.argv.iter().cloned());
        out
    }

    /// The reverse of [`Stage::arguments`].
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Stage, String> {
        let mut stage = Stage::default();
        let mut arguments = arguments.into_iter();
        while let Some(option) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{} needs a value", option.display()));
            match option.to_str() {
                Some("--profile") => stage.profile = Profile::from_name(&value()?)?,
                Some("--first") => stage.pids = Pids::First,
                Some("--child") => stage.pids = Pids::Child,
                Some("--container") => stage.container = Some((value()?.into(), value()?.into())),
                Some("--tmpfs") => {
                    let path = value()?.into();
                    let kib = value()?.to_str().and_then(|v| v.parse().ok()).ok_or("--tmpfs needs a path and KiB")?;
                    stage.tmpfs.push((path, kib));
                }
                Some("--terminal") => stage.terminal = Some(value()?.into()),
                Some("--without") => {
                    let call = value()?.to_str().and_then(|v| v.parse().ok()).ok_or("--without needs a number")?;
                    stage.without.push(call);
                }
                Some("--cut") => stage.cuts.push(value()?.to_str().unwrap_or_default().parse()?),
                Some("--ear") => {
                    stage.ear = Some(value()?.to_str().and_then(|v| v.parse().ok()).ok_or("--ear needs a number")?);
                }
                Some("--outsider") => stage.outsider = true,
                Some("--pid-file") => stage.pid_file = Some(value()?.into()),
                Some("--") => {
                    stage.argv = arguments.collect();
                    return if stage.argv.is_empty() { Err("nothing to run".into()) } else { Ok(stage) };
                }
                _ => return Err(format!("unknown option {}", option.display())),
            }
        }
        Err("-- and ARGV are missing".into())
    }

    /// Whether it needs a mount namespace of its own.
    fn mounts(&self) -> bool {
        self.pids != Pids::Host || self.container.is_some() || !self.tmpfs.is_empty()
    }
}

/// Whether a container's root can be made here; prints why not.
pub fn container_available() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: an overlay over this machine's root needs root");
    }
    root
}

/// Whether stages with this can be had here; prints why not, once.
pub fn available(pids: Pids, profile: Profile) -> bool {
    if nix::unistd::geteuid().is_root() || (pids == Pids::Host && profile == Profile::Plain) {
        return true;
    }
    if profile == Profile::Baseline {
        eprintln!("skipped: a second uid needs root");
        return false;
    }
    static USER_NAMESPACES: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *USER_NAMESPACES.get_or_init(|| {
        let stage = Stage { pids: Pids::First, argv: vec!["true".into()], ..Stage::default() };
        let program = crate::binaries::helper("stage");
        let works = std::process::Command::new(program).args(stage.arguments()).status().is_ok_and(|s| s.success());
        if !works {
            eprintln!("skipped: neither root nor user namespaces");
        }
        works
    })
}
