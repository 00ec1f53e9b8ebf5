//! What the agent writes comes out as it went in.

use tests::binaries;
use tests::output::noise;
use tests::supervisor::{Supervisor, log_lines};
use tests::wait::wait_until;

const MIB: usize = 1024 * 1024;

fn flood(bytes: usize) -> [std::ffi::OsString; 3] {
    [binaries::helper("agent").into(), "flood".into(), bytes.to_string().into()]
}

#[test]
fn random_bytes_come_out_unchanged_on_both_streams() {
    let mut supervisor = Supervisor::new().agent(flood(16 * MIB)).start();
    assert_eq!(supervisor.wait_code(), 0);
    let content = noise(16 * MIB);
    assert!(supervisor.stdout.to_end() == content, "standard output differs");
    // our own lines stand between the agent's bytes, at line starts only
    let errors = supervisor.stderr.to_end();
    assert!(without_our_lines(&errors) == content, "standard error differs");
}

/// Issue 3, part 2.
#[test]
fn our_own_lines_are_json_or_plain_by_choice_and_only_as_severe_as_was_asked_for() {
    let lines = |format: &str, level: &str| {
        let mut supervisor =
            Supervisor::new().set("log-format", format).set("log-level", level).shell("exit 3").start();
        assert_eq!(supervisor.wait_code(), 3);
        String::from_utf8(supervisor.stderr.to_end()).expect("text")
    };
    let json = lines("json", "info");
    assert!(json.lines().count() >= 2, "{json}");
    for line in json.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(value["timestamp"].is_string() && value["level"] == "INFO" && value["message"].is_string(), "{line}");
    }
    let plain = lines("plain", "info");
    assert_eq!(plain.lines().count(), json.lines().count(), "{plain}");
    for line in plain.lines() {
        assert!(line.contains(" INFO ") && !line.contains(['{', '\u{1b}']), "{line}");
    }
    assert!(plain.contains("listening address=127.0.0.1:"), "{plain}");
    for format in ["json", "plain"] {
        assert_eq!(lines(format, "error"), "");
    }
}

/// Everything but whole lines that are our own log. The agent's last line has no end, so ours after it gets one.
fn without_our_lines(bytes: &[u8]) -> Vec<u8> {
    let ours = |line: &[u8]| {
        serde_json::from_slice::<serde_json::Value>(line)
            .is_ok_and(|v| v["level"].is_string() && v["timestamp"].is_string())
    };
    let mut out = Vec::with_capacity(bytes.len());
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        if !ours(line) {
            out.extend_from_slice(line);
        }
    }
    if !noise(16 * MIB).ends_with(b"\n") && out.ends_with(b"\n") {
        out.pop();
    }
    out
}

#[test]
fn a_reader_that_stops_blocks_the_agent_and_not_health() {
    let mut supervisor = Supervisor::new().hold_stdout().agent(flood(4 * MIB)).start();
    supervisor.stderr.wait_for("the agent's own stderr", |text| (text.len() > MIB).then_some(()));
    for _ in 0..20 {
        assert_eq!(supervisor.get("/livez").status, 200);
    }
    assert_eq!(supervisor.agent_state(), "running");
    assert!(!supervisor.has_ended());
    supervisor.stdout.release();
    assert_eq!(supervisor.wait_code(), 0);
    assert!(supervisor.stdout.to_end() == noise(4 * MIB));
}

#[test]
fn a_reader_that_stopped_does_not_stop_the_stop() {
    let mut supervisor = Supervisor::new().hold_stdout().set("grace", "300ms").agent(flood(4 * MIB)).start();
    supervisor.stderr.wait_for("the agent's own stderr", |text| (text.len() > MIB).then_some(()));
    supervisor.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(supervisor.wait_code(), 128 + 15);
}

#[test]
fn our_lines_start_at_a_line_boundary_and_leave_the_agents_lines_whole() {
    let script = "i=0; while [ $i -lt 300 ]; do printf 'first half of %s, ' $i >&2; printf 'second half of %s\\n' $i >&2; \
                  i=$((i+1)); done; printf 'a last line without its end' >&2";
    let supervisor = Supervisor::new()
        .shell(script)
        .set("agent-restart", "always")
        .set("agent-restart-min", "10ms")
        .set("agent-restart-max", "20ms")
        .start();
    wait_until("some restarts", || supervisor.stderr.text().matches("first half of 0,").count() > 5);
    // the last line may still be on its way
    let text = supervisor.stderr.text();
    let text = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for line in text.lines().filter(|line| line.contains('{')) {
        assert!(line.starts_with('{') && line.ends_with('}'), "a line of ours is torn: {line}");
    }
    assert!(log_lines(text).len() > 5);
    for line in text.lines().filter(|line| line.starts_with("first half")) {
        let number = line.split(' ').nth(3).unwrap_or_default().trim_end_matches(',').to_string();
        assert_eq!(line, format!("first half of {number}, second half of {number}"));
    }
}

#[test]
fn standard_input_is_the_agents() {
    use std::io::Write;
    let agent = [binaries::helper("agent").into_os_string(), "copy".into()];
    let mut supervisor = Supervisor::new().stdin(std::process::Stdio::piped()).agent(agent).start();
    let content = noise(MIB);
    let mut input = supervisor.stdin().expect("a pipe");
    input.write_all(&content).expect("the agent reads");
    drop(input);
    assert_eq!(supervisor.wait_code(), 0);
    assert!(supervisor.stdout.to_end() == content);
}

#[test]
fn when_the_reader_is_gone_the_agent_gets_a_broken_pipe_and_the_supervisor_lives() {
    let supervisor =
        Supervisor::new().shell("trap '' PIPE; echo up >&2; cat /dev/zero; echo \"cat said $?\" >&2; sleep 1000");
    let mut supervisor = supervisor.close_stdout().start();
    supervisor.stderr.wait_text("cat said");
    assert_eq!(supervisor.get("/livez").status, 200);
    assert!(!supervisor.has_ended());
}

#[test]
fn output_of_the_last_moment_is_not_lost() {
    tests::table::each("last moments", 0..60, |number| {
        let mut supervisor =
            Supervisor::new().shell(&format!("printf 'last {number}'; printf 'error {number}' >&2")).start();
        supervisor.wait_exit();
        supervisor.stderr.to_end();
        let out = supervisor.stdout.to_end() == format!("last {number}").into_bytes();
        let err = supervisor.stderr.text().contains(&format!("error {number}"));
        (!out || !err).then(|| format!("{number}: stdout {out}, stderr {err}"))
    });
}
