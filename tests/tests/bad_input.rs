//! What is wrong is said once, clearly, with a reserved exit code and a termination message, and nothing is done by
//! halves.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tests::stage::{Pids, Profile, available};
use tests::supervisor::{Builder, Supervisor};
use tests::{binaries, table};

/// Run it to its end: exit code, what it says on standard error, and what the kubelet will read.
struct Told {
    code: i32,
    errors: String,
    record: serde_json::Value,
    out: Vec<u8>,
}

fn tell(builder: Builder) -> Told {
    let mut supervisor = builder.start();
    let code = supervisor.wait_code();
    supervisor.stderr.to_end();
    let out = supervisor.stdout.to_end();
    let text = fs::read_to_string(&supervisor.paths().termination).unwrap_or_default();
    let record = serde_json::from_str(&text).unwrap_or(serde_json::Value::Null);
    Told { code, errors: supervisor.stderr.text(), record, out }
}

/// The code, and words that both the log and the record must contain; nothing of the agent's has happened.
#[track_caller]
fn refused(builder: Builder, code: i32, words: &[&str]) -> Told {
    let told = tell(builder);
    assert_eq!(told.code, code, "{}", told.errors);
    let reason = told.record["reason"].as_str().unwrap_or_default();
    for word in words {
        assert!(told.errors.contains(word), "{word:?} is not in the log: {}", told.errors);
        assert!(reason.contains(word), "{word:?} is not in the termination message: {}", told.record);
    }
    assert_eq!(told.record["exit"], code, "{}", told.record);
    assert!(told.out.is_empty(), "the agent ran: {}", String::from_utf8_lossy(&told.out));
    told
}

fn loud() -> Builder {
    Supervisor::new().shell("echo the agent ran")
}

#[test]
fn an_unknown_variable_is_named_with_the_setting_that_was_meant() {
    refused(loud().env("SUPERVISOR_AGENT_RESTRAT", "always"), 78, &["SUPERVISOR_AGENT_RESTRAT", "AGENT_RESTART"]);
}

#[test]
fn an_unknown_flag_is_a_usage_error_with_the_flag_that_was_meant() {
    let told = tell(loud().set("agent-restrat", "always"));
    assert_eq!(told.code, 64, "{}", told.errors);
    assert!(told.errors.contains("agent-restrat") && told.errors.contains("--agent-restart"), "{}", told.errors);
    assert!(told.out.is_empty());
}

#[test]
fn an_unknown_key_of_the_file_is_named_with_the_file() {
    let builder = loud();
    let file = builder.path("settings.toml");
    fs::write(&file, "agent_restrat = 'always'\n").expect("our own file");
    refused(builder.set("config", file.clone()), 78, &["agent_restrat"]);
    let builder = loud();
    let file = builder.path("settings.toml");
    fs::write(&file, "this is = = no TOML").expect("our own file");
    refused(builder.set("config", file), 78, &["settings.toml"]);
}

#[test]
fn a_wrong_value_is_named_with_what_would_be_right() {
    let cases = [
        ("grace", "10 parsecs", "use ms, s, m or h"),
        ("grace", "-1s", "write for instance 25s"),
        ("listen", "nowhere", "write for instance [::]:8091"),
        ("agent-restart", "sometimes", "never, on-failure, always"),
        ("enforcement", "maybe", "required nor best-effort"),
        ("agent-user", "root", "write numbers, for instance 10001:10001"),
        ("agent-limits", "nofile=lots", "write for instance nofile=1024:4096"),
        ("agent-limits", "beer=5", "use core, cpu, data"),
        ("agent-class", "open", "local, readonly, networked"),
        ("guarantees", "happiness", "there are no-privileges, token-unreadable"),
        ("agent-ready", "tcp:notaport", "use a number from 1 to 65535"),
        ("agent-hung", "started", "the default is never"),
        ("agent-env", "novalue", "KEY=VALUE"),
        ("agent-umask", "0999", "an octal mask from 0000 to 0777"),
        ("agent-oom-score-adj", "5000", "from -1000 to 1000"),
        ("log-level", "loud", "error, warn, info, debug"),
        ("signals-from-inside", "perhaps", "true nor false"),
        ("agent-connect-ports", "99999", "a port from 1 to 65535"),
        ("link-samples", "99ms", "at least 100ms"),
    ];
    table::each("wrong values", cases, |(flag, value, advice)| {
        let told = tell(loud().set(flag, value));
        let reason = told.record["reason"].as_str().unwrap_or_default();
        let named = |text: &str| text.contains(&format!("--{flag}: ")) && text.contains(advice);
        let right = told.code == 78 && named(reason) && named(&told.errors) && told.out.is_empty();
        (!right).then(|| format!("{flag}={value}: exit {}, {}, record {}", told.code, told.errors, told.record))
    });
}

#[test]
fn several_mistakes_are_reported_together() {
    let builder = loud()
        .set("grace", "soon")
        .set("agent-restart", "sometimes")
        .env("SUPERVISOR_NONSENSE", "1")
        .set("agent-class", "open");
    refused(builder, 78, &["--grace", "--agent-restart", "SUPERVISOR_NONSENSE", "--agent-class"]);
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    refused(
        loud().set("agent-restart-min", "10s").set("agent-restart-max", "1s"),
        78,
        &["--agent-restart-min", "--agent-restart-max"],
    );
    let builder = loud();
    let inside = builder.path("workspace/state");
    refused(builder.set("state-dir", inside), 78, &["--state-dir", "workspace"]);
    let builder = loud();
    let token = builder.path("workspace/token");
    fs::create_dir_all(builder.path("workspace")).expect("our own directory");
    fs::write(&token, "secret-token").expect("our own file");
    let told = refused(builder.set("api-token-file", token), 78, &["--api-token-file"]);
    assert!(!told.errors.contains("secret-token"));
}

#[test]
fn a_state_directory_that_contains_the_workspace_by_another_name_is_refused() {
    let builder = loud();
    let link = builder.path("elsewhere");
    fs::create_dir_all(builder.path("workspace/deep")).expect("our own directory");
    std::os::unix::fs::symlink(builder.path("workspace/deep"), &link).expect("our own link");
    refused(builder.set("state-dir", link), 78, &["--state-dir"]);
}

#[test]
fn a_program_that_cannot_be_run_is_named_with_the_reason() {
    let kinds = [
        ("missing", "give a path that exists"),
        ("no-such-name-in-path", "PATH"),
        ("mode", "check its mode"),
        ("directory", "is not a file"),
        ("architecture", "architecture"),
        ("interpreter", "/no/such/interpreter"),
        ("empty", "empty"),
    ];
    table::each("programs", kinds, |(kind, why)| {
        let builder = Supervisor::new();
        let path = builder.path("program");
        let program = match kind {
            "missing" => path.clone().into_os_string(),
            "no-such-name-in-path" => "no-such-program-at-all".into(),
            _ => {
                make_program(&path, kind);
                path.clone().into_os_string()
            }
        };
        let told = tell(builder.agent([program.clone()]));
        let name = program.to_string_lossy().into_owned();
        let reason = told.record["reason"].as_str().unwrap_or_default();
        let named = |text: &str| text.contains(&name) && text.contains(why);
        let right = told.code == 78 && named(reason) && named(&told.errors);
        (!right).then(|| format!("{kind}: exit {}, {}, record {}", told.code, told.errors, told.record))
    });
}

fn make_program(path: &Path, kind: &str) {
    let mut content = b"#!/bin/sh\necho the agent ran\n".to_vec();
    let mut mode = 0o755;
    match kind {
        "mode" => mode = 0o644,
        "directory" => {
            fs::create_dir(path).expect("our own directory");
            return;
        }
        "architecture" => {
            // an ELF header of RISC-V: e_machine at byte 18 is 243
            content = fs::read("/bin/sh").expect("a shell");
            content[18] = 243;
        }
        "interpreter" => content = b"#!/no/such/interpreter\n".to_vec(),
        _ => content = Vec::new(),
    }
    fs::write(path, content).expect("our own file");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own file");
}

/// No string of a program's arguments or environment may have more bytes (execve(2), `MAX_ARG_STRLEN`).
const MAX_STRING: usize = 131_072;

/// An agent from a settings file: on the command line, these words could not even be given to the supervisor (000-41).
fn configured(agent: &serde_json::Value) -> Builder {
    let builder = Supervisor::new();
    let file = builder.path("settings.toml");
    fs::write(&file, format!("agent_config_json = '{agent}'\n")).expect("our own file");
    builder.set("config", file).set("gateway-url", "ws://127.0.0.1:1").env("SUPERVISOR_INTERNAL_SECRET", "secret")
}

#[test]
fn an_argument_that_no_kernel_takes_is_refused_by_size() {
    let agent = serde_json::json!({ "argv": ["/bin/echo", "x".repeat(MAX_STRING)] });
    let told = refused(configured(&agent), 78, &["arguments", "128 KiB", "in a file"]);
    assert!(told.errors.len() < 10_000, "the error repeats the argument");
}

#[test]
fn an_environment_that_no_kernel_takes_is_refused_by_size() {
    let agent = serde_json::json!({ "argv": ["/bin/echo", "ran"], "env": { "BIG": "x".repeat(MAX_STRING) } });
    let told = refused(configured(&agent), 78, &["environment", "128 KiB", "in a file"]);
    assert!(told.errors.len() < 10_000, "the error repeats the value");
}

#[test]
fn a_settings_file_that_is_too_large_is_refused_by_size() {
    let builder = loud();
    let file = builder.path("settings.toml");
    fs::write(&file, format!("# {}\n", "x".repeat(1 << 20))).expect("our own file");
    refused(builder.set("config", file), 78, &["settings.toml", "at most 1048576"]);
}

#[test]
fn a_large_argv_and_environment_that_the_kernel_takes_pass() {
    let long = "y".repeat(120_000);
    let mut supervisor = Supervisor::new()
        .set("agent-env-allow", "LARGE_*")
        .env("LARGE_VALUE", "z".repeat(120_000))
        .agent(["/bin/sh", "-c", "echo ${#1} ${#LARGE_VALUE}", "sh", &long])
        .start();
    assert_eq!(supervisor.wait_code(), 0, "{}", supervisor.stderr.text());
    assert_eq!(supervisor.stdout.to_end(), b"120000 120000\n");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = taken.local_addr().expect("bound").to_string();
    refused(loud().set("listen", address.as_str()), 69, &[&address, "SUPERVISOR_LISTEN"]);
}

#[test]
fn a_token_that_cannot_be_read_is_named() {
    let builder = loud();
    let missing = builder.path("no-token");
    refused(builder.set("api-token-file", missing.clone()), 78, &["no-token"]);
    if !available(Pids::Host, Profile::Restricted) || !nix::unistd::geteuid().is_root() {
        return;
    }
    let builder = loud().profile(Profile::Restricted);
    let token = builder.path("roots-token");
    fs::write(&token, "secret").expect("our own file");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o400)).expect("our own file");
    refused(builder.set("api-token-file", token), 78, &["roots-token"]);
}

#[test]
fn a_state_directory_that_cannot_be_used_is_named() {
    let builder = loud();
    let file = builder.path("a-file");
    fs::write(&file, "x").expect("our own file");
    refused(builder.set("state-dir", file), 78, &["a-file"]);
    if !available(Pids::Host, Profile::Restricted) || !nix::unistd::geteuid().is_root() {
        return;
    }
    let builder = loud().profile(Profile::Restricted);
    let roots = builder.path("roots");
    fs::create_dir(&roots).expect("our own directory");
    refused(builder.set("state-dir", roots), 78, &["roots"]);
}

#[test]
fn a_full_state_directory_is_worth_another_try() {
    if !available(Pids::First, Profile::Plain) {
        return;
    }
    // one page: the directory's first file takes it, the second finds the disk full
    let builder = loud().first().tmpfs("state", 4);
    let told = refused(builder, 75, &["state"]);
    assert!(told.errors.contains("space"), "{}", told.errors);
}

#[test]
fn a_kernel_without_landlock_is_refused_where_guarantees_are_required() {
    let told = refused(loud().without(libc::SYS_landlock_create_ruleset), 71, &["Landlock"]);
    assert!(told.errors.contains("best-effort"), "it does not say what to do: {}", told.errors);
}

#[test]
fn a_kernel_without_landlock_runs_by_best_effort_and_says_what_does_not_hold() {
    let builder = Supervisor::new().without(libc::SYS_landlock_create_ruleset).set("enforcement", "best-effort");
    let supervisor = builder.shell("sleep 1000").start();
    supervisor.wait_ready();
    let health = supervisor.health();
    assert_eq!(health["confinement"]["enforcement"], "best-effort");
    assert_eq!(health["confinement"]["landlock_abi"], 0);
    let missing: Vec<_> = health["confinement"]["guarantees"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|g| g["state"] == "missing")
        .filter_map(|g| g["guarantee"].as_str().map(str::to_string))
        .collect();
    assert!(missing.contains(&"files-confined".to_string()), "{missing:?}");
    assert_eq!(supervisor.metric("supervisor_guarantee{guarantee=\"files-confined\"}"), Some(0.0));
    supervisor.wait_log("a guarantee does not hold");
}

#[test]
fn a_kernel_without_seccomp_is_refused() {
    refused(loud().without(libc::SYS_seccomp), 71, &["CONFIG_SECCOMP_FILTER"]);
}

#[test]
fn a_shim_that_is_not_there_is_named() {
    let builder = loud();
    let alone = builder.path("alone");
    fs::create_dir(&alone).expect("our own directory");
    binaries::copy(&binaries::supervisor(), &alone.join("supervisor")).expect("a copy");
    let told = tell(builder.program(alone.join("supervisor")));
    assert_eq!(told.code, 71, "{}", told.errors);
    assert!(told.errors.contains(&*alone.join("shim").to_string_lossy()), "{}", told.errors);
    assert_eq!(told.record["exit"], told.code);
}

#[test]
fn another_uid_without_the_privilege_for_it_is_refused() {
    if available(Pids::Host, Profile::Restricted) {
        let told = tell(loud().profile(Profile::Restricted).set("agent-user", "20001"));
        assert_eq!(told.code, 71, "{}", told.errors);
        assert!(told.errors.contains("AGENT_USER") || told.errors.contains("agent-user"), "{}", told.errors);
        assert!(told.out.is_empty());
    }
}

#[test]
fn no_command_and_help_are_what_they_are_elsewhere() {
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(binaries::supervisor()).args(arguments).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(run(&[]).0, Some(64));
    assert_eq!(run(&["dance"]).0, Some(64));
    assert_eq!(run(&["--help"]).0, Some(0));
    let (code, help) = run(&["run", "--help"]);
    assert_eq!(code, Some(0));
    for setting in ["--listen", "--state-dir", "--agent-restart", "--enforcement", "--agent-user", "--grace"] {
        assert!(help.contains(setting), "{setting} is not in the help");
    }
}

#[test]
fn a_read_only_workspace_beneath_a_writable_path_is_refused() {
    let builder = loud().set("agent-class", "readonly");
    let workspace = builder.path("home").join("work");
    fs::create_dir_all(&workspace).expect("a workspace in the home");
    let workspace = workspace.into_os_string();
    refused(builder.set("workspace", workspace), 78, &["--workspace", "read-only"]);
}

#[test]
fn programs_that_the_agent_could_replace_are_refused() {
    let builder = loud();
    let folder = builder.path("workspace").join("bin");
    fs::create_dir_all(&folder).expect("a folder in the workspace");
    for name in ["supervisor", "shim"] {
        binaries::copy(&binaries::directory().join(name), &folder.join(name)).expect("copied");
    }
    refused(builder.program(folder.join("supervisor")), 78, &["the supervisor's own programs", "replace"]);
}

/// Found by `torture calls`: a setting was blamed where the machine had no descriptor left.
#[test]
fn where_descriptors_run_out_at_the_start_another_try_is_asked_for_and_no_setting_is_blamed() {
    let directory = binaries::scratch();
    let wrapper = directory.path().join("limited");
    let mut seen = BTreeSet::new();
    // From where the runtime has what it needs to where everything has.
    for limit in (24..=200).step_by(3) {
        let supervisor = binaries::supervisor();
        binaries::script(&wrapper, &format!("ulimit -n {limit}\nexec {} \"$@\"", supervisor.display()));
        let told = tell(Supervisor::new().shell("true").program(wrapper.clone()));
        assert!([0, 75].contains(&told.code), "{limit}: {}", told.errors);
        assert!(told.code == 0 || told.errors.contains("Too many open files"), "{limit}: {}", told.errors);
        seen.insert(told.code);
        if told.code == 0 {
            break;
        }
    }
    assert_eq!(seen, BTreeSet::from([0, 75]));
}
