//! `gateway task` against the API of a real supervisor, also while the way to it is broken off.

use std::fs;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tests::dev::{Home, Said};
use tests::front::Front;
use tests::output::{Output, noise};
use tests::supervisor::Supervisor;
use tests::wait::wait_for;

struct Scene {
    home: Home,
    supervisor: Supervisor,
    front: Front,
}

/// A command that runs.
struct Running {
    child: Child,
    stdout: Output,
    stderr: Output,
}

impl Scene {
    fn new() -> Scene {
        let supervisor = Supervisor::new().token().start();
        let front = Front::before(supervisor.address());
        let home = Home::new();
        fs::create_dir_all(home.directory()).expect("our own directory");
        fs::write(home.directory().join("token"), "any").expect("our own file");
        Scene { home, supervisor, front }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.home.command(arguments);
        command.env("GATEWAY_URL", format!("http://{}", self.front.address));
        command.env("GATEWAY_TOKEN_FILE", self.home.directory().join("token"));
        command
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Said {
        tests::dev::said(self.command(arguments))
    }

    #[track_caller]
    fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the gateway runs");
        let stdout = Output::read(child.stdout.take().expect("piped"), false);
        let stderr = Output::read(child.stderr.take().expect("piped"), false);
        Running { child, stdout, stderr }
    }

    /// The state of the only task.
    #[track_caller]
    fn state(&self) -> serde_json::Value {
        let listed = self.run(&["task", "list", "-o", "json"]).json();
        assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
        listed[0]["state"].clone()
    }
}

impl Running {
    fn interrupt(&self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).expect("our own child");
    }

    #[track_caller]
    fn code(&mut self) -> Option<i32> {
        wait_for("the end of the command", || self.child.try_wait().expect("our own child")).code()
    }
}

#[test]
fn output_and_exit_code_of_a_task_are_its_own() {
    let scene = Scene::new();
    let said = scene.run(&["task", "run", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (7, "out\n", "err\n"));
    let said = scene.run(&["task", "run", "--env", "A=b c", "--", "sh", "-c", "echo $A"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, "b c\n", ""));
}

#[test]
fn an_end_that_is_no_exit_code_has_one_and_is_told() {
    let scene = Scene::new();
    for (arguments, code, words) in [
        (&["-c", "kill -9 $$"][..], 137, "signal 9"),
        (&["--timeout", "200ms", "-c", "exec sleep 1000"], 124, "ran out of time"),
        (&["--", "/no/such/program"], 71, "/no/such/program"),
    ] {
        let said = scene.run(&[&["task", "run"], arguments].concat());
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.stderr.contains(words), "{said:?}");
    }
    let wrong = scene.run(&["task", "run", "--timeout", "soon", "--", "true"]);
    assert_eq!(wrong.code, 64, "{wrong:?}");
    assert!(wrong.stderr.contains("timeout"), "{wrong:?}");
}

#[test]
fn bytes_of_every_value_pass_unchanged() {
    let scene = Scene::new();
    let bytes = noise(3 * 1024 * 1024);
    fs::write(scene.supervisor.paths().workspace.join("noise"), &bytes).expect("our own file");
    let output = scene.command(&["task", "run", "--", "cat", "noise"]).output().expect("the gateway runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == bytes);
}

#[test]
fn a_detached_task_is_listed_shown_read_and_cancelled() {
    let scene = Scene::new();
    let script = "echo up; exec sleep 1000";
    let started = scene.run(&["task", "run", "-d", "--id", "one", "--label", "kind=test", "-c", script]);
    assert_eq!((started.code, started.stdout.as_str()), (0, "one\n"), "{started:?}");
    wait_for("its output", || (scene.run(&["task", "logs", "one"]).stdout == "up\n").then_some(()));
    let listed = scene.run(&["task", "list"]);
    assert!(listed.stdout.contains("running") && listed.stdout.contains("kind=test"), "{listed:?}");
    let mut follower = scene.start(&["task", "logs", "--follow", "one"]);
    follower.stdout.wait_text("up");
    let cancelled = scene.run(&["task", "cancel", "one"]);
    assert_eq!((cancelled.code, cancelled.stdout.as_str()), (0, "task one is cancelled\n"), "{cancelled:?}");
    assert_eq!(follower.code(), Some(0));
    assert_eq!(scene.run(&["task", "show", "one", "-o", "json"]).json()["state"], "cancelled");
    assert_eq!(scene.run(&["task", "show", "two"]).code, 64);
}

#[test]
fn for_programs_the_result_is_one_json_value() {
    let scene = Scene::new();
    let said = scene.run(&["task", "run", "-o", "json", "-c", "echo not-shown; exit 3"]);
    let task = said.json();
    assert_eq!((said.code, &task["exit_code"], &task["state"]), (3, &json!(3), &json!("failed")));
    let waited = scene.run(&["task", "run", "--wait", "--", "true"]);
    assert!(waited.code == 0 && waited.stdout.contains("succeeded"), "{waited:?}");
}

#[test]
fn a_follower_goes_on_at_its_byte_when_the_gateway_was_away() {
    let mut scene = Scene::new();
    let script = "echo one; until test -e go; do sleep 0.05; done; echo two; exit 5";
    let mut run = scene.start(&["task", "run", "-c", script]);
    run.stdout.wait_text("one");
    scene.front.go_away();
    run.stderr.wait_text("waiting");
    fs::write(scene.supervisor.paths().workspace.join("go"), "").expect("our own file");
    scene.front.come_back();
    assert_eq!(run.code(), Some(5));
    assert_eq!(String::from_utf8_lossy(&run.stdout.to_end()), "one\ntwo\n");
    run.stderr.wait_text("it is back");
}

#[test]
fn a_task_whose_answer_was_lost_is_started_once() {
    let scene = Scene::new();
    scene.front.swallow_an_answer();
    let said = scene.run(&["task", "run", "--", "echo", "once"]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "once\n"), "{said:?}");
    assert_eq!(scene.state(), "succeeded");
}

#[test]
fn a_gateway_that_stays_away_is_given_up_by_name() {
    let mut scene = Scene::new();
    let mut run = scene.start(&["task", "run", "--away", "1s", "-c", "echo up; exec sleep 1000"]);
    run.stdout.wait_text("up");
    scene.front.go_away();
    assert_eq!(run.code(), Some(69));
    run.stderr.wait_text("cannot be reached");
}

#[test]
fn the_first_interrupt_leaves_the_task_running_and_says_how_to_go_on() {
    let scene = Scene::new();
    let mut run = scene.start(&["task", "run", "--id", "one", "-c", "echo up; exec sleep 1000"]);
    run.stdout.wait_text("up");
    run.interrupt();
    assert_eq!(run.code(), Some(130));
    run.stderr.wait_text("gateway task logs --follow --sandbox dev one");
    assert_eq!(scene.state(), "running");
}

#[test]
fn a_second_interrupt_cancels_the_task() {
    let scene = Scene::new();
    let mut run = scene.start(&["task", "run", "-c", "echo up; exec sleep 1000"]);
    run.stdout.wait_text("up");
    run.interrupt();
    run.stderr.wait_text("Ctrl-C again");
    run.interrupt();
    assert_eq!(run.code(), Some(130));
    assert_eq!(scene.state(), "cancelled");
}

#[test]
fn a_reader_that_goes_does_not_take_the_task_with_it() {
    let scene = Scene::new();
    let script = "while :; do echo line; sleep 0.02; done";
    let mut command = scene.command(&["task", "run", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the gateway runs");
    let mut byte = [0];
    std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut byte).expect("output");
    drop(child.stdout.take());
    let status = wait_for("its end", || child.try_wait().expect("our own child"));
    assert_eq!(status.code(), Some(141));
    assert_eq!(scene.state(), "running");
}

#[test]
fn what_is_piped_in_is_the_tasks_input_also_over_an_outage() {
    use std::io::Write;
    let mut scene = Scene::new();
    let mut command = scene.command(&["task", "run", "-i", "-c", "while read line; do echo got $line; done; exit 4"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the gateway runs");
    let stdout = Output::read(child.stdout.take().expect("piped"), false);
    let stderr = Output::read(child.stderr.take().expect("piped"), false);
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"one\n").expect("it reads");
    stdout.wait_text("got one\n");
    scene.front.go_away();
    stderr.wait_text("waiting");
    scene.front.come_back();
    stderr.wait_text("it is back");
    stdin.write_all(b"two\n").expect("it reads");
    drop(stdin);
    let status = wait_for("its end", || child.try_wait().expect("our own child"));
    assert_eq!(status.code(), Some(4), "{}", stderr.text());
    assert_eq!(String::from_utf8_lossy(&stdout.to_end()), "got one\ngot two\n");
}

#[test]
fn a_task_with_a_terminal_can_be_attached_to_and_let_go_of() {
    use std::io::Write;
    let scene = Scene::new();
    let started = scene.run(&["task", "run", "-d", "-t", "--id", "one", "--", "sh", "-c", "tty; read a; echo end $a"]);
    assert_eq!(started.code, 0, "{started:?}");
    let (mut person, screen) = tests::dev::at_a_terminal(&scene.command(&["task", "attach", "one"]), "");
    screen.wait_text("/dev/pts/");
    let mut keyboard = person.stdin.take().expect("piped");
    keyboard.write_all(b"\x10\x11").expect("it reads");
    screen.wait_text("runs on");
    assert!(wait_for("its end", || person.try_wait().expect("our own child")).success());
    assert_eq!(scene.state(), "running");
    let mut command = scene.command(&["task", "attach", "one"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the gateway runs");
    child.stdin.as_mut().expect("piped").write_all(b"now\n").expect("it reads");
    let output = child.wait_with_output().expect("our own child");
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("end now"), "{output:?}");
}
