//! Programs that people run: each works under the supervisor as it does without, so confinement is tuned to none.
//!
//! A fixture does what its kind of program does, prints a line per part, leaves processes behind where it can, and
//! ends with a code of its own. What a machine lacks is skipped with a reason.

#[path = "programs/program.rs"]
mod program;

use std::path::{Path, PathBuf};
use std::process::Command;

use program::Program;
use tests::stage::Profile;

#[test]
fn a_node_program_has_threads_children_pipes_watches_and_tls() {
    Program::new("node", &["node", "main.js"])
        .needs(&["node", "openssl"])
        .ends(41, &["threads", "children", "pipes", "files", "watching", "secure"])
        .leaving(1)
        .runs_everywhere();
}

#[test]
fn a_python_program_has_processes_semaphores_asyncio_tls_and_a_terminal() {
    let parts =
        ["threads", "processes", "memory", "children", "asynchronous", "secure", "watching", "database", "terminal"];
    Program::new("python", &["python3", "main.py"])
        .needs(&["python3", "openssl"])
        .ends(42, &parts)
        .leaving(1)
        .runs_everywhere();
}

#[test]
fn a_go_program_has_goroutines_children_signals_watches_and_https() {
    let Some(built) = go_program() else { return };
    Program::new("go", &["./program"])
        .with(&built)
        .ends(43, &["goroutines", "children", "signals", "secure", "watching"])
        .leaving(1)
        .runs_everywhere();
}

#[test]
fn go_builds_and_runs() {
    // Warm before, because a cold cache takes half a minute. It belongs to this test's user, hence one profile.
    if go_program().is_none() {
        return;
    }
    Program::new("go", &["sh", "-c", "go build -o ./built main.go && exec ./built"])
        .needs(&["go"])
        .env("GOCACHE", go_cache())
        .env("GOTOOLCHAIN", "local")
        .env("GOPROXY", "off")
        .writes(go_cache())
        .ends(43, &["goroutines", "children", "signals", "secure", "watching"])
        .leaving(1)
        .runs_as(&[Profile::Plain]);
}

#[test]
fn a_java_program_has_threads_pipelines_watches_and_tls() {
    Program::new("java", &["java", "Main.java"])
        .needs(&["java", "javac", "keytool", "setsid"])
        .ends(44, &["threads", "children", "pipes", "watching", "secure"])
        .leaving(1)
        .runs_everywhere();
}

#[test]
fn git_commits_clones_pushes_and_packs() {
    Program::new("git", &["sh", "main.sh"])
        .needs(&["git"])
        .offline()
        .ends(45, &["commit", "worktree", "move", "clone", "gc"])
        .runs_everywhere();
}

#[test]
fn cargo_builds_and_tests_a_crate() {
    // the toolchain itself, because the proxy of rustup looks for it beneath a HOME that is not the agent's
    let toolchain = std::env::var_os("CARGO").and_then(|cargo| Some(Path::new(&cargo).parent()?.to_path_buf()));
    let Some(toolchain) = toolchain else {
        eprintln!("skipped: cargo did not start this test, so there is no toolchain to name");
        return;
    };
    Program::new("cargo", &["sh", "main.sh"])
        .from(toolchain)
        .needs(&["cargo", "rustc", "cc"])
        .offline()
        .ends(46, &["build", "test", "script 6 Some(6)"])
        .runs_everywhere();
}

#[test]
fn npm_installs_a_local_package_with_its_scripts() {
    Program::new("npm", &["sh", "main.sh"])
        .needs(&["npm", "node"])
        .offline()
        .ends(47, &["install", "hello"])
        .runs_everywhere();
}

#[test]
fn bash_has_jobs_substitutions_traps_and_a_terminal() {
    Program::new("bash", &["bash", "main.bash"])
        .needs(&["bash", "setsid", "mkfifo"])
        .offline()
        .ends(48, &["substitution", "stdout", "coprocess", "jobs", "traps", "terminal"])
        .leaving(2)
        .runs_everywhere();
}

#[test]
fn a_c_program_compiles_and_has_what_it_asks_of_the_kernel() {
    Program::new("c", &["sh", "-c", "cc -pthread main.c -o program -lrt && exec ./program"])
        .needs(&["cc"])
        .ends(49, &["threads", "children", "events", "memory", "interprocess", "files", "sockets", "network"])
        .runs_everywhere();
}

#[test]
fn posix_queues_are_open_where_they_are_mounted() {
    // Their path on the way to Landlock is the one of /dev/mqueue, which a container runtime mounts.
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    if !mounts.lines().any(|mount| mount.split(' ').nth(1) == Some("/dev/mqueue")) {
        eprintln!("skipped: no /dev/mqueue on this machine");
        return;
    }
    let parts = ["threads", "children", "events", "memory", "interprocess", "queues", "files", "sockets", "network"];
    Program::new("c", &["sh", "-c", "cc -pthread main.c -o program -lrt && exec ./program queues"])
        .needs(&["cc"])
        .ends(49, &parts)
        .runs_everywhere();
}

#[test]
fn gdb_and_strace_start_and_attach_to_programs_of_the_agent() {
    let program = Program::new("debug", &["sh", "main.sh"])
        .needs(&["gcc", "gdb", "strace", "mkfifo"])
        .offline()
        .ends(50, &["gdb", "attach", "strace"]);
    // Yama or the runtime of this machine may forbid tracing, which is not the supervisor's doing.
    if program.works_unconfined() {
        program.runs_everywhere();
    }
}

fn go_cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache")
}

/// The Go fixture, built without confinement for all profiles; `None` where there is no Go.
fn go_program() -> Option<PathBuf> {
    static BUILT: std::sync::OnceLock<Option<PathBuf>> = std::sync::OnceLock::new();
    let build = || {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("program");
        let built = Command::new("go")
            .args(["build", "-o"])
            .arg(&program)
            .arg(program::fixture("go").join("main.go"))
            .env("GOCACHE", go_cache())
            .env("GOTOOLCHAIN", "local")
            .env("GOPROXY", "off")
            .status();
        match built {
            Ok(status) if status.success() => Some(program),
            Ok(status) => panic!("the Go fixture does not build: {status}"),
            Err(error) => {
                eprintln!("skipped: go: {error}");
                None
            }
        }
    };
    BUILT.get_or_init(build).clone()
}
