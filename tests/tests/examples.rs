//! The published examples, run as they are printed.

use std::process::Command;

use tests::needs;
use tests::scene;
use tests::supervisor::Supervisor;

/// Every block of this kind, in order.
fn blocks(page: &str, kind: &str) -> Vec<String> {
    let open = format!("\n```{kind}\n");
    page.split(&open).skip(1).map(|rest| rest.split("\n```").next().unwrap_or_default().to_string()).collect()
}

/// Run these blocks in one shell, one after the other, with a supervisor of their own; what each of them said. Where there is no
/// curl, why is printed.
#[track_caller]
fn run(blocks: &[String]) -> Option<Vec<String>> {
    if !needs::commands(&["curl"]) {
        return None;
    }
    let supervisor = Supervisor::new().token().start();
    supervisor.wait_ready();
    let script = blocks.join("\necho; echo ---\n");
    let run = Command::new("sh")
        .args(["-eu", "-c", &script])
        .env("API", format!("http://{}", supervisor.address()))
        .env("TOKEN", scene::CANARY)
        .output()
        .expect("a shell");
    let (said, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}\n{errors}");
    assert_eq!(errors, "", "{said}");
    let parts: Vec<String> = said.split("\n---\n").map(String::from).collect();
    assert_eq!(parts.len(), blocks.len());
    Some(parts)
}

#[test]
fn the_example_of_the_readme_runs_as_printed() {
    let all = blocks(include_str!("../../README.md"), "sh");
    let calls: Vec<String> = all.into_iter().filter(|block| block.contains("$API")).collect();
    assert_eq!(calls.len(), 1, "{calls:?}");
    let Some(said) = run(&calls) else { return };
    assert!(said[0].contains("\"state\":\"succeeded\""), "{said:?}");
    assert!(said[0].ends_with("}hello\n"), "{said:?}");
}

#[test]
fn the_examples_of_the_api_page_run_as_printed() {
    let blocks = blocks(include_str!("../../docs/api.md"), "sh");
    assert!(blocks.len() >= 8, "{blocks:?}");
    let Some(parts) = run(&blocks) else { return };
    for (block, part) in blocks.iter().zip(&parts) {
        let expected: &[&str] = match block {
            b if b.contains("\"hello\"") => &["\"state\":\"succeeded\"", "\"stdout_bytes\":6"],
            b if b.contains("build-7\" -d") => &["\"pipeline\":\"nightly\"", "\"succeeded\"", "\"next\":null"],
            b if b.contains("stream=stderr") => &["step 1\nstep 2\nstep 3\n", "done\n", "1\n"],
            b if b.contains("Last-Event-ID") => &["event: output\nid: 21\n", "event: end\nid: 21\n"],
            b if b.contains("sort-1") => &["\"succeeded\"", "a\nb\n"],
            b if b.contains("wait-1") => &["\"signal\":15"],
            b if b.contains("long-1") => &["\"cancelled\""],
            b if b.contains("look-1") => &["report.txt", "report\n", "\"networked\""],
            b if b.contains("/files/") => &["note\n", "today.txt"],
            _ => &[],
        };
        for word in expected {
            assert!(part.contains(word), "{word:?} is not in the answer of\n{block}\n\n{part}");
        }
    }
}
