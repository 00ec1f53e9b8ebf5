//! Defaults that are copied once, and the provider's file that is written once.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use tests::supervisor::{Builder, Supervisor};

fn with_defaults(builder: Builder) -> Builder {
    let source = builder.path("defaults");
    fs::create_dir_all(source.join("deep/er")).expect("our own directory");
    fs::write(source.join("HEARTBEAT.md"), "default").expect("our own file");
    fs::write(source.join("deep/er/tool"), "#!/bin/sh\n").expect("our own file");
    fs::set_permissions(source.join("deep/er/tool"), fs::Permissions::from_mode(0o755)).expect("our own file");
    let target = builder.path("config");
    fs::create_dir_all(&target).expect("our own directory");
    builder.set("bootstrap-source", source).set("bootstrap-target", target)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn only_bootstrap(builder: Builder) -> Builder {
    builder.command("bootstrap")
}

/// 000-28, 000-30.
#[test]
fn defaults_are_copied_with_modes_and_a_version_marker() {
    let mut supervisor = only_bootstrap(with_defaults(Supervisor::new())).set("bootstrap-version", "v7").start();
    assert_eq!(supervisor.wait_code(), 0, "{}", supervisor.stderr.text());
    let target = supervisor.path("config");
    assert_eq!(read(&target.join("HEARTBEAT.md")), "default");
    let mode = fs::metadata(target.join("deep/er/tool")).expect("copied").permissions().mode();
    assert_eq!(mode & 0o111, 0o111);
    assert_eq!(read(&target.join(".version")).lines().next(), Some("v7"));
}

/// 000-29, 000-31, 000-32.
#[test]
fn an_edit_survives_and_new_defaults_appear() {
    let builder = with_defaults(Supervisor::new());
    fs::write(builder.path("config/HEARTBEAT.md"), "custom").expect("our own file");
    let mut supervisor = only_bootstrap(builder).set("bootstrap-version", "v8").start();
    assert_eq!(supervisor.wait_code(), 0);
    let target = supervisor.path("config");
    assert_eq!(read(&target.join("HEARTBEAT.md")), "custom");
    assert!(target.join("deep/er/tool").exists());
    assert_eq!(read(&target.join(".version")).lines().next(), Some("v8"));
}

#[test]
fn a_link_that_was_planted_in_the_volume_is_not_followed() {
    let builder = with_defaults(Supervisor::new());
    let outside = builder.path("outside");
    fs::create_dir(&outside).expect("our own directory");
    symlink(&outside, builder.path("config/deep")).expect("our own link");
    symlink(builder.path("outside/version"), builder.path("config/.version")).expect("our own link");
    let mut supervisor = only_bootstrap(builder).start();
    supervisor.wait_exit();
    let planted = fs::read_dir(&outside).expect("our own directory").count();
    assert_eq!(planted, 0, "it wrote through a link; {}", supervisor.stderr.text());
}

/// 000-64.
#[test]
fn keys_come_from_the_environment_and_another_way_is_refused() {
    let mut env = Supervisor::new().env("HIVE_SANDBOX_CODEX_AUTH_MODE", "env").shell("exit 3").start();
    assert_eq!(env.wait_code(), 3);
    let mut relay = Supervisor::new().env("HIVE_SANDBOX_CODEX_AUTH_MODE", "relay_helper").shell("exit 3").start();
    assert_eq!(relay.wait_code(), 78);
    relay.stderr.wait_text("HIVE_SANDBOX_CODEX_AUTH_MODE");
}

#[test]
fn run_does_the_same_before_the_agent_starts() {
    let builder = with_defaults(Supervisor::new());
    let script = format!("cat {}", builder.path("config/HEARTBEAT.md").display());
    let mut supervisor = builder.shell(&script).start();
    assert_eq!(supervisor.wait_code(), 0, "{}", supervisor.stderr.text());
    assert_eq!(supervisor.stdout.to_end(), b"default");
}

/// 000-78.
#[test]
fn a_bootstrap_that_fails_keeps_the_pod_and_says_why() {
    let builder = Supervisor::new();
    let source = builder.path("no-defaults");
    let supervisor = builder.set("bootstrap-source", source).shell("echo the agent ran; sleep 1000").start();
    tests::wait::wait_until("the error", || supervisor.health()["status"] == "error");
    assert_eq!(supervisor.get("/livez").status, 200);
    assert_eq!(supervisor.get("/readyz").status, 503);
    let reason = supervisor.health()["readiness_reason"].as_str().unwrap_or_default().to_string();
    assert!(!reason.is_empty());
    assert!(supervisor.stdout.bytes().is_empty());
}

#[test]
fn the_providers_file_is_written_once_and_without_the_key() {
    let start = || {
        Supervisor::new()
            .env("HIVE_SANDBOX_CODEX_MODEL", "model-x")
            .env("HIVE_SANDBOX_CODEX_PROVIDER_ID", "local")
            .env("HIVE_SANDBOX_CODEX_PROVIDER_NAME", "Local")
            .env("HIVE_SANDBOX_CODEX_BASE_URL", "http://127.0.0.1:9/v1")
            .env("HIVE_SANDBOX_CODEX_WIRE_API", "responses")
            .env("HIVE_SANDBOX_CODEX_ENV_KEY", "LOCAL_KEY")
            .env("LOCAL_KEY", "CANARY-provider-key")
    };
    let mut supervisor = start().shell("cat $HOME/.codex/config.toml; echo \"key $LOCAL_KEY\"").start();
    assert_eq!(supervisor.wait_code(), 0, "{}", supervisor.stderr.text());
    let text = String::from_utf8_lossy(&supervisor.stdout.to_end()).into_owned();
    let (file, key) = text.rsplit_once("key ").expect("both were printed");
    for word in ["model-x", "local", "http://127.0.0.1:9/v1", "responses", "LOCAL_KEY"] {
        assert!(file.contains(word), "{word} is not in\n{file}");
    }
    assert!(!file.contains("CANARY"));
    assert_eq!(key.trim(), "CANARY-provider-key", "the provider's key passes to the agent");

    let builder = start();
    let config = builder.path("home/.codex/config.toml");
    fs::create_dir_all(config.parent().expect("a directory")).expect("our own directory");
    fs::write(&config, "# mine\n").expect("our own file");
    let mut supervisor = builder.shell("cat $HOME/.codex/config.toml").start();
    assert_eq!(supervisor.wait_code(), 0);
    assert_eq!(supervisor.stdout.to_end(), b"# mine\n");
}
