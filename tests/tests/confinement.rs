//! What the agent may still do, and what the three classes and both profiles leave of it. What it may not do is in
//! `escape.rs`.

use serde_json::json;
use tests::stage::{Pids, Profile, available, container_available};
use tests::strace::Strace;
use tests::supervisor::{Builder, Supervisor};
use tests::tasks::Api;
use tests::{binaries, processes, scene, table};

fn inside(profile: Profile) -> Builder {
    Supervisor::new().profile(profile).container()
}

/// Ordinary things that any program does; a line each, printed when it works.
const ORDINARY: &[(&str, &str)] = &[
    (
        "workspace",
        "echo x > /workspace/new && mkdir /workspace/d && mv /workspace/new /workspace/d && rm -r /workspace/d",
    ),
    ("home", "echo x > $HOME/file && cat $HOME/file"),
    ("temporary", "echo x > /tmp/file && ln /tmp/file /tmp/link && ln -s /tmp/file /tmp/soft && chmod 700 /tmp/file"),
    ("shared-memory", "echo x > /dev/shm/file"),
    ("null", "echo x > /dev/null && head -c 8 /dev/zero > /dev/null"),
    ("random", "test $(head -c 8 /dev/urandom | wc -c) = 8"),
    ("read-etc", "cat /etc/hosts > /dev/null && ls /usr/bin > /dev/null"),
    ("own-proc", "cat /proc/self/status /proc/meminfo /proc/cpuinfo > /dev/null && ls /proc > /dev/null"),
    ("processes", "sh -c 'exit 3'; test $? = 3"),
    ("pipes", "test $(echo a b c | wc -w) = 3"),
    ("signals", "sleep 100 & kill $! && ! wait $!"),
    ("groups", "setsid sh -c 'exit 0'"),
    ("background", "(sleep 0.01 &) && wait"),
    ("fifo", "mkfifo /tmp/fifo && (echo x > /tmp/fifo &) && cat /tmp/fifo"),
    ("locks", "flock /tmp/lock true"),
    ("nice", "nice -n 5 true"),
    ("own-limits", "ulimit -n 100 && test $(ulimit -n) = 100"),
    ("stdout-by-path", "echo x > /dev/stderr"),
];

fn ordinary(profile: Profile) {
    if !container_available() || !available(Pids::First, profile) {
        return;
    }
    table::each("ordinary things", ORDINARY, |(name, script)| {
        let mut supervisor = inside(profile).set("agent-cwd", scene::WORKSPACE).shell(script).start();
        let end = supervisor.wait_exit();
        supervisor.stderr.to_end();
        (end != tests::supervisor::End::Code(0)).then(|| format!("{name}: {end:?} {}", supervisor.stderr.text()))
    });
}

#[test]
fn ordinary_programs_work_in_a_restricted_pod() {
    ordinary(Profile::Restricted);
}

#[test]
fn ordinary_programs_work_in_a_baseline_pod() {
    ordinary(Profile::Baseline);
}

fn status_of_agent(builder: Builder) -> String {
    let mut supervisor = builder.shell("cat /proc/self/status").start();
    assert_eq!(supervisor.wait_code(), 0, "{}", supervisor.stderr.text());
    String::from_utf8_lossy(&supervisor.stdout.to_end()).into_owned()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(':').map_or("", |(_, value)| value.trim())
}

/// 001-10, 001-34.
#[test]
fn the_agent_has_no_capability_in_any_set() {
    for profile in [Profile::Plain, Profile::Restricted, Profile::Baseline] {
        if !available(Pids::Host, profile) {
            continue;
        }
        let status = status_of_agent(Supervisor::new().profile(profile));
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field(&status, set), "0000000000000000", "{set} as {profile:?}");
        }
        // without SETPCAP, as an ordinary user, the bounding set cannot be dropped; in a restricted Pod it is empty already
        if profile != Profile::Plain || nix::unistd::geteuid().is_root() {
            assert_eq!(field(&status, "CapBnd"), "0000000000000000", "CapBnd as {profile:?}");
        }
        assert_eq!(field(&status, "NoNewPrivs"), "1");
        assert_eq!(field(&status, "Seccomp"), "2");
    }
}

#[test]
fn in_a_baseline_pod_the_agent_has_its_own_ids_and_no_groups() {
    if available(Pids::Host, Profile::Baseline) {
        let status = status_of_agent(Supervisor::new().profile(Profile::Baseline));
        assert_eq!(field(&status, "Uid").split_whitespace().collect::<Vec<_>>(), ["20001"; 4]);
        assert_eq!(field(&status, "Gid").split_whitespace().collect::<Vec<_>>(), ["20001"; 4]);
        assert_eq!(field(&status, "Groups"), "");
    }
}

#[test]
fn the_kernels_oom_killer_takes_the_agent_first() {
    let supervisor = Supervisor::new().shell("cat /proc/self/oom_score_adj; sleep 1000").start();
    supervisor.stdout.wait_text("500");
    let own = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", supervisor.pid())).expect("it runs");
    assert!(own.trim().parse::<i32>().expect("a number") < 500);
}

#[test]
fn supervisor_and_shim_leave_no_core_and_cannot_be_dumped() {
    let supervisor = Supervisor::new().shell("echo up; sleep 1000").start();
    supervisor.stdout.wait_text("up");
    let ours = std::iter::once(supervisor.pid()).chain(processes::children(supervisor.pid()));
    for pid in ours {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("root may read it");
        let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap_or_default();
        assert!(core.split_whitespace().filter(|w| *w == "0").count() == 2, "{}: {core}", processes::name(pid));
    }
}

#[test]
fn health_and_metrics_tell_each_guarantee_in_force() {
    let supervisor = Supervisor::new().shell("sleep 1000").start();
    supervisor.wait_ready();
    let health = supervisor.health();
    let told = health["confinement"]["guarantees"].as_array().expect("a list").clone();
    for guarantee in protocol::guarantee::Guarantee::DEFAULT {
        let standing = told.iter().find(|g| g["guarantee"] == guarantee.name());
        let state = standing.and_then(|g| g["state"].as_str()).unwrap_or("absent");
        assert!(matches!(state, "holds" | "fallback" | "not-asked"), "{}: {state}", guarantee.name());
    }
}

#[test]
fn a_class_without_network_keeps_unix_sockets() {
    let script = "import socket\na, b = socket.socketpair()\na.send(b'x')\nassert b.recv(1) == b'x'\n\
                  try:\n    socket.socket(socket.AF_INET)\nexcept OSError as e:\n    print('refused', e.errno)\n";
    if !tests::needs::commands(&["python3"]) {
        return;
    }
    for class in ["local", "readonly"] {
        let mut supervisor = Supervisor::new().set("agent-class", class).agent(["python3", "-c", script]).start();
        assert_eq!(supervisor.wait_code(), 0, "{}", supervisor.stderr.text());
        assert!(supervisor.stdout.text().contains("refused"), "{class}");
    }
}

#[test]
fn a_port_list_lets_its_ports_through_and_no_other() {
    let listener = || std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let (allowed, other) = (listener(), listener());
    let port = |l: &std::net::TcpListener| l.local_addr().expect("bound").port().to_string();
    let script = "for p in \"$@\"; do (exec 3<>/dev/tcp/127.0.0.1/$p) 2>/dev/null && echo $p; done; exit 0";
    let mut supervisor = Supervisor::new()
        .set("agent-connect-ports", port(&allowed))
        .agent(["/bin/bash", "-c", script, "bash", &port(&allowed), &port(&other)])
        .start();
    assert_eq!(supervisor.wait_code(), 0, "{}", supervisor.stderr.text());
    assert_eq!(String::from_utf8_lossy(&supervisor.stdout.to_end()).trim(), port(&allowed));
}

#[test]
fn hidden_and_further_writable_paths_are_the_operators_choice() {
    let builder = Supervisor::new();
    let (hidden, extra) = (builder.path("hidden"), builder.path("extra"));
    for directory in [&hidden, &extra] {
        std::fs::create_dir(directory).expect("our own directory");
        std::fs::write(directory.join("file"), "content").expect("our own file");
    }
    let script = format!(
        "cat {0}/file 2>/dev/null && echo hidden read; ls {0} 2>/dev/null && echo hidden listed; \
         echo x > {1}/new && echo extra written; echo x 2>/dev/null > {2}/new && echo other written; exit 0",
        hidden.display(),
        extra.display(),
        builder.path("").display(),
    );
    let mut supervisor = builder.set("agent-hide", hidden).set("agent-write", extra).shell(&script).start();
    assert_eq!(supervisor.wait_code(), 0, "{}", supervisor.stderr.text());
    assert_eq!(String::from_utf8_lossy(&supervisor.stdout.to_end()), "extra written\n");
}

#[test]
fn a_state_volume_that_anybody_may_enter_is_closed_at_the_start() {
    use std::os::unix::fs::PermissionsExt;
    let builder = Supervisor::new();
    let state = builder.path("state");
    std::fs::create_dir_all(&state).expect("our own directory");
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o777)).expect("our own directory");
    let supervisor = builder.shell("sleep 1000").start();
    supervisor.wait_ready();
    let mode = std::fs::metadata(&state).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);
}

#[test]
fn modes_that_the_agent_changes_are_mended_and_counted() {
    use std::os::unix::fs::PermissionsExt;
    let builder = Supervisor::new();
    let state = builder.path("state");
    let script = format!("chmod 777 {0} && echo changed; exit 1", state.display());
    let restart = builder.set("agent-restart", "always").set("agent-restart-min", "1s").set("agent-restart-max", "2s");
    let supervisor = restart.shell(&script).start();
    supervisor.stdout.wait_text("changed");
    tests::wait::wait_until("a mended mode", || {
        std::fs::metadata(&state).is_ok_and(|m| m.permissions().mode() & 0o777 == 0o700)
    });
    tests::wait::wait_until("its count", || supervisor.metric("supervisor_state_tampered_total") >= Some(1.0));
}

#[test]
fn install_copies_two_programs_that_run() {
    let scratch = binaries::scratch();
    let destination = scratch.path().join("installed");
    let run = |program: &std::path::Path, arguments: &[&std::ffi::OsStr]| {
        std::process::Command::new(program).args(arguments).output().expect("it runs")
    };
    let output = run(&binaries::supervisor(), &["install".as_ref(), destination.as_os_str()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut supervisor = Supervisor::new().program(destination.join("supervisor")).shell("exit 12").start();
    assert_eq!(supervisor.wait_code(), 12, "{}", supervisor.stderr.text());
}

#[test]
fn a_link_that_an_earlier_run_planted_widens_nothing() {
    let builder = Supervisor::new();
    let (home, outside) = (builder.path("workspace").join("home"), builder.path("outside"));
    std::fs::create_dir_all(&home).expect("a home on the workspace's volume");
    std::fs::create_dir_all(&outside).expect("a directory that no setting opens");
    let script = format!(
        "if [ ! -L {0} ]; then mv {0} {0}.old && ln -s {1} {0}; exit 1; fi; \
         echo x > {1}/file && echo escaped; echo tried; exec sleep 1000",
        home.display(),
        outside.display()
    );
    let supervisor = builder
        .env("HOME", &home)
        .set("agent-restart", "on-failure")
        .set("agent-restart-min", "10ms")
        .set("agent-restart-max", "10ms")
        .shell(&script)
        .start();
    supervisor.stdout.wait_text("tried");
    assert!(!supervisor.stdout.text().contains("escaped"), "{}", supervisor.stdout.text());
    assert!(!outside.join("file").exists());
}

/// Found by `torture calls`: a list that was broken off was taken for all that programs may read, and remembered.
#[test]
fn nothing_is_started_while_the_paths_of_the_confinement_cannot_be_looked_at_and_all_is_when_they_can() {
    let supervisor = Supervisor::new().token().agent(["sleep", "100000"]).start();
    supervisor.wait_ready();
    let api = Api::of(&supervisor);
    assert_eq!(api.run(json!({"argv": ["true"]}))["state"], "succeeded");
    let refused = ["inject=getdents64:error=EIO".to_string()];
    let Some(strace) = Strace::attach_with(supervisor.pid(), "getdents64", &refused) else { return };
    // On the way to what is hidden, so that what was found there is old.
    std::fs::write(supervisor.path("new"), "").expect("our own directory");
    let task = api.run(json!({"argv": ["true"]}));
    let reason = task["reason"].as_str().unwrap_or_default();
    assert!(task["state"] == "failed" && reason.contains("cannot be looked at"), "{task}");
    drop(strace);
    assert_eq!(api.run(json!({"argv": ["true"]}))["state"], "succeeded");
}
