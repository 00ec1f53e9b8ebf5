//! What a person sees of work that takes long, and that a program sees nothing of it.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tests::dev::{Home, Said, at_a_terminal};
use tests::output::Output;
use tests::wait::wait_for;

/// Back to the first column, and clear what was there.
const CLEAR: &str = "\r\x1b[K";
/// Longer than work that is worth no line.
const LONG_ENOUGH: Duration = Duration::from_millis(1200);

/// That line, with seconds that go on, and cleared at the end.
#[track_caller]
fn shown(screen: &Output, line: &str) {
    let whole = String::from_utf8_lossy(&screen.to_end()).into_owned();
    let times: Vec<&str> = whole.split(CLEAR).filter_map(|text| text.strip_prefix(line)?.strip_suffix('s')).collect();
    let times: Vec<f64> = times.into_iter().map(|time| time.trim().parse().expect("seconds")).collect();
    assert!(times.len() > 1 && times.is_sorted() && times[0] < 3.0, "{times:?} in {whole:?}");
    assert!(whole.trim_end_matches('\n').ends_with(CLEAR), "it is left there: {whole:?}");
}

/// Run a command of `home` whose outputs are pipes, while `slow` keeps it waiting for long enough.
fn piped(home: &Home, arguments: &[&str], slow: impl FnOnce()) -> Said {
    let mut command = home.command(arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the gateway runs");
    slow();
    let output = child.wait_with_output().expect("our own child");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

#[test]
fn who_waits_for_a_new_sandbox_sees_for_how_long_and_pipes_get_the_answer_alone() {
    let mut home = Home::new();
    home.start(&[]);
    let gateway = home.pid();
    let file = home.directory().join("answer");
    // A gateway that is stopped takes as long as we want.
    kill(gateway, Signal::SIGSTOP).expect("it runs");
    let create = home.command(&["sandbox", "create", "two", "--output", "json"]);
    let (mut person, screen) = at_a_terminal(&create, &format!("> '{}'", file.display()));
    screen.wait_text("making sandbox two 1.");
    kill(gateway, Signal::SIGCONT).expect("it runs");
    assert!(wait_for("its end", || person.try_wait().expect("our own child")).success(), "{}", screen.text());
    shown(&screen, "making sandbox two ");
    let answer: Value = serde_json::from_slice(&fs::read(&file).expect("written")).expect("JSON and nothing else");
    assert_eq!(answer["id"], "two");

    for (arguments, stdout) in [
        (&["sandbox", "create", "three"][..], "sandbox three is connected\n"),
        (&["sandbox", "delete", "three"], "sandbox three is deleted\n"),
    ] {
        kill(gateway, Signal::SIGSTOP).expect("it runs");
        let said = piped(&home, arguments, || {
            std::thread::sleep(LONG_ENOUGH);
            kill(gateway, Signal::SIGCONT).expect("it runs");
        });
        assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, stdout, ""));
    }
}

#[test]
fn who_waits_for_a_task_sees_for_how_long_and_pipes_get_the_result_alone() {
    let mut home = Home::new();
    home.start(&[]);
    let file = home.directory().join("answer");
    let end = |task: &str| {
        let said = home.run(&["task", "run", "--", "touch", &format!("end-of-{task}")]);
        assert_eq!(said.code, 0, "{said:?}");
    };
    let run = |task: &str, how: &[&str]| {
        let script = format!("until test -e end-of-{task}; do sleep 0.05; done");
        let words = ["task", "run", "--id", task, "-c", &script].map(str::to_owned);
        words.into_iter().chain(how.iter().map(|word| (*word).to_owned())).collect::<Vec<_>>()
    };
    fn words(all: &[String]) -> Vec<&str> {
        all.iter().map(String::as_str).collect()
    }

    let command = home.command(&words(&run("one", &["--output", "json"])));
    let (mut person, screen) = at_a_terminal(&command, &format!("> '{}'", file.display()));
    screen.wait_text("task one runs 1.");
    end("one");
    assert!(wait_for("its end", || person.try_wait().expect("our own child")).success(), "{}", screen.text());
    shown(&screen, "task one runs ");
    let answer: Value = serde_json::from_slice(&fs::read(&file).expect("written")).expect("JSON and nothing else");
    assert_eq!((answer["task_id"].as_str(), answer["state"].as_str()), (Some("one"), Some("succeeded")));

    let said = piped(&home, &words(&run("two", &["--output", "json"])), || {
        std::thread::sleep(LONG_ENOUGH);
        end("two");
    });
    assert_eq!((said.code, said.json()["state"].as_str(), said.stderr.as_str()), (0, Some("succeeded"), ""));
    let said = piped(&home, &words(&run("three", &[])), || {
        std::thread::sleep(LONG_ENOUGH);
        end("three");
    });
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, "", ""));
}
