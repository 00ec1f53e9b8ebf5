//! The agent's life from start to end, and what the container's end tells.

use tests::stage::{Pids, Profile, available};
use tests::supervisor::{Builder, End, Supervisor};
use tests::{binaries, scene, table};

/// Signals whose default is to end a process, without those that the C library keeps for itself.
fn terminating() -> impl Iterator<Item = i32> {
    let harmless = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
    let stopping = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    (1..=64).filter(move |s| !harmless.contains(s) && !stopping.contains(s) && !matches!(s, 32 | 33))
}

fn placed(pids: Pids) -> Builder {
    match pids {
        Pids::Host => Supervisor::new(),
        Pids::First => Supervisor::new().first(),
        Pids::Child => Supervisor::new().child(),
    }
}

fn every_exit_code(pids: Pids) {
    if !available(pids, Profile::Plain) {
        return;
    }
    table::each("exit codes", 0..256, |code| {
        let mut supervisor = placed(pids).shell(&format!("exit {code}")).start();
        let end = supervisor.wait_exit();
        let told = supervisor.termination()["exit"].as_i64();
        (end != End::Code(code) || told != Some(code.into())).then(|| format!("{code}: {end:?}, told {told:?}"))
    });
}

fn every_signal(pids: Pids) {
    if !available(pids, Profile::Plain) {
        return;
    }
    table::each("signals", terminating(), |signal| {
        let mut supervisor = placed(pids).shell(&format!("kill -{signal} $$; exit 0")).start();
        let end = supervisor.wait_exit();
        let told = (supervisor.termination()["exit"].as_i64(), supervisor.termination()["signal"].as_i64());
        let right = end == End::Code(128 + signal) && told == (Some((128 + signal).into()), Some(signal.into()));
        (!right).then(|| format!("{signal}: {end:?}, told {told:?}"))
    });
}

#[test]
fn all_256_exit_codes_pass_through() {
    every_exit_code(Pids::Host);
}

#[test]
fn all_256_exit_codes_pass_through_pid_1() {
    every_exit_code(Pids::First);
}

#[test]
fn every_terminating_signal_passes_through_as_128_and_its_number() {
    every_signal(Pids::Host);
}

#[test]
fn every_terminating_signal_passes_through_pid_1() {
    every_signal(Pids::First);
}

#[test]
fn the_agent_gets_exactly_three_descriptors() {
    let agent = binaries::helper("agent");
    let mut supervisor = Supervisor::new().agent([agent.as_os_str(), "descriptors".as_ref()]).start();
    assert_eq!(supervisor.wait_code(), 0);
    assert_eq!(String::from_utf8_lossy(&supervisor.stdout.to_end()), "[0, 1, 2]\n");
}

/// 000-63.
#[test]
fn the_agent_gets_the_allowed_environment_and_nothing_else() {
    let mut supervisor = Supervisor::new()
        .env("SECRET_OF_THE_POD", "s3cret")
        .env("PROVIDER_A", "a")
        .env("PROVIDER_B", "b")
        .env("OPENAI_API_KEY", "key")
        .set("agent-env-allow", "PROVIDER_*")
        .set("agent-env", "MINE=1")
        .add("agent-env", "ALSO=2")
        .agent(["/usr/bin/env"])
        .start();
    assert_eq!(supervisor.wait_code(), 0);
    let mut names: Vec<String> = String::from_utf8_lossy(&supervisor.stdout.to_end())
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.to_string()))
        .collect();
    names.sort();
    assert_eq!(names, ["ALSO", "HOME", "MINE", "OPENAI_API_KEY", "PATH", "PROVIDER_A", "PROVIDER_B"]);
}

/// 000-41, 003-19.
#[test]
fn the_agent_that_the_gateway_describes_runs_only_where_all_three_variables_are_given() {
    let described = r#"{"argv":["/bin/sh","-c","echo $GREETING"],"env":{"GREETING":"hello"},"plugins":["its own"]}"#;
    let given = [
        ("HIVE_AGENT_CONFIG_JSON", described),
        ("HIVE_GATEWAY_URL", "https://gateway.example"),
        ("HIVE_INTERNAL_SECRET", scene::CANARY),
    ];
    let without = |missing: &str| {
        let variables = given.iter().filter(|(name, _)| *name != missing);
        variables.fold(Supervisor::new(), |builder, (name, value)| builder.env(name, *value)).start()
    };
    let mut supervisor = without("nothing");
    assert_eq!(supervisor.wait_code(), 0, "{}", supervisor.stderr.text());
    assert_eq!(supervisor.stdout.to_end(), b"hello\n");
    for (name, _) in given {
        let supervisor = without(name);
        supervisor.wait_ready();
        assert_eq!(supervisor.agent_state(), "absent", "without {name}");
    }
}

/// 000-41.
#[test]
fn without_argv_it_is_the_health_only_baseline() {
    let mut supervisor = Supervisor::new().start();
    supervisor.wait_ready();
    assert_eq!(supervisor.agent_state(), "absent");
    supervisor.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(supervisor.wait_code(), 0);
}

#[test]
fn what_a_main_program_leaves_behind_ends_with_it() {
    if !available(Pids::Child, Profile::Plain) {
        return;
    }
    let script = "setsid sleep 1000 & sleep 1000 & (setsid sh -c 'trap \"\" TERM; sleep 1000' &) ; echo made; exit 5";
    let mut supervisor = Supervisor::new().child().set("agent-leftover-grace", "200ms").shell(script).start();
    // the stage's own init ends when the supervisor does, so the census is taken while its end is on its way
    assert_eq!(supervisor.wait_code(), 5);
    assert!(supervisor.processes().is_empty());
    let ended = supervisor.wait_log("the agent's tree has ended");
    assert!(ended["killed"].as_u64() >= Some(3), "{ended}");
}

/// 003-19.
#[test]
fn the_agents_argv_need_not_be_utf_8() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    let argv =
        ["/bin/printf", "%s"].map(OsString::from).into_iter().chain([OsString::from_vec(vec![0xff, b'x', 0xfe])]);
    let mut supervisor = Supervisor::new().agent(argv).start();
    assert_eq!(supervisor.wait_code(), 0);
    assert_eq!(supervisor.stdout.to_end(), [0xff, b'x', 0xfe]);
}

#[test]
fn the_agents_limits_are_those_of_the_setting() {
    let mut supervisor = Supervisor::new()
        .set("agent-limits", "nofile=123:456")
        .add("agent-limits", "core=0")
        .shell("ulimit -n; ulimit -Hn")
        .start();
    assert_eq!(supervisor.wait_code(), 0);
    assert_eq!(String::from_utf8_lossy(&supervisor.stdout.to_end()), "123\n456\n");
}
