//! One fixture, run in a workspace of its own as the agent of a real supervisor.
//!
//! A fixture prints `OK part` for each part that worked and `LEFT pid` for each process it leaves behind, and nothing
//! else, so that its whole standard output is known.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Pid, geteuid};
use tests::stage::{Pids, Profile, available};
use tests::supervisor::{Builder, Supervisor};
use tests::{binaries, processes, scene};

/// A fixture and what it needs and promises.
pub(crate) struct Program {
    fixture: &'static str,
    argv: Vec<&'static str>,
    needs: Vec<&'static str>,
    path: Vec<PathBuf>,
    with: Option<PathBuf>,
    env: Vec<(&'static str, OsString)>,
    writes: Vec<PathBuf>,
    offline: bool,
    parts: Vec<String>,
    code: i32,
    leaves: usize,
}

/// Where a fixture lies.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name)
}

impl Program {
    /// The directory of this name, copied into the workspace, and what to run there.
    pub(crate) fn new(fixture: &'static str, argv: &[&'static str]) -> Program {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        Program {
            fixture,
            argv: argv.into(),
            needs: Vec::new(),
            path: std::env::split_paths(&path).collect(),
            with: None,
            env: Vec::new(),
            writes: Vec::new(),
            offline: false,
            parts: Vec::new(),
            code: 0,
            leaves: 0,
        }
    }

    /// Commands without which it is skipped.
    pub(crate) fn needs(mut self, commands: &[&'static str]) -> Program {
        self.needs = commands.into();
        self
    }

    /// Look for commands here first.
    pub(crate) fn from(mut self, directory: PathBuf) -> Program {
        self.path.insert(0, directory);
        self
    }

    /// One more file for the workspace.
    pub(crate) fn with(mut self, file: &Path) -> Program {
        self.with = Some(file.into());
        self
    }

    /// A variable of the program.
    pub(crate) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Program {
        self.env.push((name, value.into()));
        self
    }

    /// A further path that it may write.
    pub(crate) fn writes(mut self, path: PathBuf) -> Program {
        self.writes.push(path);
        self
    }

    /// It has no use for a network: without privileges it also runs in class `local`.
    pub(crate) fn offline(mut self) -> Program {
        self.offline = true;
        self
    }

    /// Its exit code and the parts that it reports.
    pub(crate) fn ends(mut self, code: i32, parts: &[&str]) -> Program {
        self.code = code;
        self.parts = parts.iter().map(|part| format!("OK {part}")).collect();
        self
    }

    /// How many processes it leaves behind.
    pub(crate) fn leaving(mut self, count: usize) -> Program {
        self.leaves = count;
        self
    }

    /// As this test's user, as the one uid of a `restricted` Pod, and as a `baseline` Pod's second uid.
    #[track_caller]
    pub(crate) fn runs_everywhere(&self) {
        self.runs_as(&[Profile::Plain, Profile::Restricted, Profile::Baseline]);
    }

    /// It does what it promises in these profiles, and nothing of it is left.
    #[track_caller]
    pub(crate) fn runs_as(&self, profiles: &[Profile]) {
        for &profile in profiles {
            if available(Pids::Host, profile) && self.installed(profile) {
                self.run(profile);
            }
        }
    }

    #[track_caller]
    fn run(&self, profile: Profile) {
        let supervisor = Supervisor::new().profile(profile);
        let workspace = supervisor.path("workspace");
        self.furnish(&workspace, agent_uid(profile));
        let mut supervisor = self.configure(supervisor, profile).set("agent-cwd", &workspace).start();
        let code = supervisor.wait_code();
        supervisor.stdout.to_end();

        let stdout = supervisor.stdout.text();
        let (left, parts): (Vec<_>, Vec<_>) = stdout.lines().partition(|line| line.starts_with("LEFT "));
        let all = format!("{} under {profile:?}\n{stdout}\n{}", self.fixture, supervisor.stderr.text());
        assert_eq!((code, parts), (self.code, self.parts.iter().map(String::as_str).collect()), "{all}");
        assert_eq!(left.len(), self.leaves, "{all}");
        for line in left {
            let pid = line.strip_prefix("LEFT ").and_then(|pid| pid.parse().ok()).map(Pid::from_raw);
            assert!(!processes::alive(pid.expect("a pid")), "{line} is still there; {all}");
        }
        let of_this_test = workspace.parent().expect("it lies in the test's directory");
        assert_eq!(touching(of_this_test), [], "{all}");
    }

    fn configure(&self, supervisor: Builder, profile: Profile) -> Builder {
        let path = std::env::join_paths(self.reachable(profile)).expect("they came out of a PATH");
        let mut supervisor = supervisor.env("PATH", path).agent(&self.argv);
        for (name, value) in &self.env {
            let mut pair = OsString::from(format!("{name}="));
            pair.push(value);
            supervisor = supervisor.add("agent-env", pair);
        }
        for path in &self.writes {
            supervisor = supervisor.add("agent-write", path);
        }
        if self.offline && profile == Profile::Restricted {
            supervisor = supervisor.set("agent-class", "local");
        }
        supervisor
    }

    /// A copy of the fixture that belongs to this uid.
    fn furnish(&self, workspace: &Path, uid: u32) {
        copy(&fixture(self.fixture), workspace, uid);
        if let Some(file) = &self.with {
            copy(file, &workspace.join(file.file_name().expect("a file")), uid);
        }
    }

    /// The same without a supervisor; prints why where it does not work.
    pub(crate) fn works_unconfined(&self) -> bool {
        if !self.installed(Profile::Plain) {
            return false;
        }
        let workspace = binaries::scratch();
        self.furnish(workspace.path(), agent_uid(Profile::Plain));
        let output = Command::new(self.argv[0])
            .args(&self.argv[1..])
            .current_dir(workspace.path())
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("{}: {e}", self.argv[0]));
        let works = output.status.code() == Some(self.code);
        if !works {
            let errors = String::from_utf8_lossy(&output.stderr);
            eprintln!("skipped: {} does not work on this machine at all: {errors}", self.fixture);
        }
        works
    }

    /// Whether every command is there for this profile's agent; says which is not.
    fn installed(&self, profile: Profile) -> bool {
        let path = self.reachable(profile);
        let usable = |name: &str| {
            path.iter().any(|directory| {
                let Ok(file) = directory.join(name).canonicalize() else { return false };
                file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o001 != 0)
                    && open(&file, profile)
            })
        };
        let missing: Vec<_> = self.needs.iter().filter(|name| !usable(name)).collect();
        if !missing.is_empty() {
            eprintln!("skipped: {} under {profile:?}: nothing that it can execute is {missing:?}", self.fixture);
        }
        missing.is_empty()
    }

    /// The directories of PATH that this profile's agent can enter.
    fn reachable(&self, profile: Profile) -> Vec<PathBuf> {
        let real = |directory: &&PathBuf| directory.canonicalize().is_ok_and(|real| open(&real, profile));
        self.path.iter().filter(real).cloned().collect()
    }
}

fn agent_uid(profile: Profile) -> u32 {
    if profile == Profile::Baseline { scene::AGENT_UID } else { profile.uid() }
}

/// Whether the agent can come to this path. Only root can have agents of another uid; the toolchains of its home are
/// closed to them.
fn open(path: &Path, profile: Profile) -> bool {
    let everybody = |a: &Path| a.metadata().is_ok_and(|m| m.permissions().mode() & 0o001 != 0);
    profile == Profile::Plain || !geteuid().is_root() || path.ancestors().all(everybody)
}

fn copy(from: &Path, to: &Path, uid: u32) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("our own directory");
        for entry in fs::read_dir(from).expect("a fixture") {
            let entry = entry.expect("a fixture");
            copy(&entry.path(), &to.join(entry.file_name()), uid);
        }
    } else {
        fs::copy(from, to).expect("a fixture can be copied");
    }
    // where the test is not root, its own uid stands for all
    let _ = chown(to, Some(uid), Some(uid));
}

/// Processes that have this directory in their environment or work in it.
fn touching(directory: &Path) -> Vec<Pid> {
    let name = OsStr::as_encoded_bytes(directory.as_os_str());
    let touches = |pid: &Pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let works_in = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        environment.windows(name.len()).any(|window| window == name) || works_in.starts_with(directory)
    };
    processes::all().into_iter().filter(touches).collect()
}
