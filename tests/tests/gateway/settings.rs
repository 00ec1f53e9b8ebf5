//! The command line: settings, and the schema that only `migrate` changes.

use tests::control_plane::Gateway;

#[test]
fn all_mistakes_are_told_together_with_78() {
    let builder = Gateway::build().set("beat", "30").set("listen", "nowhere").set("lissten", ":1");
    let (code, _, stderr) = builder.run(&["serve"]);
    assert_eq!(code, 78);
    for name in ["GATEWAY_BEAT", "GATEWAY_LISTEN", "GATEWAY_LISSTEN"] {
        assert!(stderr.contains(&format!("gateway: {name}: ")), "{stderr}");
    }
}

#[test]
fn a_token_file_that_cannot_be_used_is_a_mistake() {
    let builder = Gateway::build();
    assert_eq!(builder.run(&["migrate", "up"]).0, 0);
    std::fs::write(builder.directory().join("users"), "s3cret-without-a-name\n").expect("our own file");
    let (code, _, stderr) = builder.run(&["serve"]);
    assert_eq!(code, 78);
    assert!(stderr.contains("line 1") && !stderr.contains("s3cret"), "{stderr}");
}

#[test]
fn serve_refuses_a_schema_that_is_not_its_own_and_names_the_command() {
    let builder = Gateway::build();
    let (code, _, stderr) = builder.run(&["serve"]);
    assert_eq!(code, 78, "no database at all: {stderr}");
    assert!(stderr.contains("gateway migrate up"), "{stderr}");
    assert_eq!(builder.run(&["migrate", "status"]).0, 78);
    let (code, stdout, _) = builder.run(&["migrate", "up"]);
    assert_eq!((code, stdout.as_str()), (0, "applied 0001_sessions\napplied 0002_backend\napplied 0003_gateways\n"));
    assert_eq!(builder.run(&["migrate", "up"]).1, "the schema is current\n");
    assert_eq!(
        builder.run(&["migrate", "status"]),
        (0, "the schema has version 3, this gateway needs 3\n".into(), String::new())
    );
    if !tests::needs::commands(&["python3"]) {
        return;
    }
    for (version, command) in [(0, "gateway migrate up"), (99, "gateway migrate status")] {
        set_version(&builder.directory().join("gateway.db"), version);
        let (code, _, stderr) = builder.run(&["serve"]);
        assert_eq!(code, 78);
        assert!(stderr.contains(&format!("version {version} ")) && stderr.contains(command), "{stderr}");
    }
    let (code, _, stderr) = builder.run(&["migrate", "up"]);
    assert_eq!(code, 78, "no way back: {stderr}");
}

#[test]
fn a_database_of_the_first_schema_keeps_what_it_has() {
    if !tests::needs::commands(&["python3"]) {
        return;
    }
    let builder = Gateway::build();
    let script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.executescript(open(sys.argv[2]).read() + \
                  \"CREATE TABLE schema_version (version BIGINT NOT NULL); INSERT INTO schema_version VALUES (1); \
                  INSERT INTO sandboxes (id, created_ms) VALUES ('old', 1);\")";
    let first = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/src/store/migrations/0001_sessions.sql");
    let database = builder.directory().join("gateway.db");
    let status = std::process::Command::new("python3").args(["-c", script]).arg(database).arg(first).status();
    assert!(status.expect("python3").success());
    assert_eq!(builder.run(&["migrate", "up"]).1, "applied 0002_backend\napplied 0003_gateways\n");
    // `start` finds it current.
    let gateway = builder.start();
    let old = gateway.api().get("/v1/sandboxes/old").json();
    assert_eq!((old["status"].as_str(), old.get("backend")), (Some("new"), None), "{old}");
}

/// With the machine's own Python, so that this crate needs no database of its own.
fn set_version(database: &std::path::Path, version: i64) {
    let script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); \
                  c.execute('UPDATE schema_version SET version = ?', (int(sys.argv[2]),)); c.commit()";
    let version = version.to_string();
    let status = std::process::Command::new("python3").args(["-c", script]).arg(database).arg(version).status();
    assert!(status.expect("python3").success());
}

#[test]
fn a_port_that_is_taken_is_69() {
    let gateway = Gateway::start();
    let builder = Gateway::build().set("listen", &gateway.address.to_string());
    assert_eq!(builder.run(&["migrate", "up"]).0, 0);
    let (code, _, stderr) = builder.run(&["serve"]);
    assert_eq!(code, 69, "{stderr}");
}

#[test]
fn a_command_that_is_not_known_is_64() {
    assert_eq!(Gateway::build().run(&["dance"]).0, 64);
}
