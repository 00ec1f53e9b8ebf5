//! What is wrong is named, with what to do, and the exit code says of which kind it is.

use std::process::{Command, Stdio};

use tests::control_plane::{Gateway, USER};
use tests::dev::{Home, Said, said};

fn with(home: &Home, url: &str, token: &str, arguments: &[&str]) -> Said {
    let file = home.directory().with_file_name("token");
    std::fs::create_dir_all(file.parent().expect("a directory")).expect("our own directory");
    std::fs::write(&file, token).expect("our own file");
    let mut command = home.command(arguments);
    command.env("GATEWAY_URL", url).env("GATEWAY_TOKEN_FILE", &file);
    said(command)
}

#[test]
fn every_kind_of_trouble_has_its_code_and_no_token_is_repeated() {
    let home = Home::new();
    let gateway = Gateway::start();
    let url = format!("http://{}", gateway.address);
    assert_eq!(with(&home, &url, USER, &["sandbox", "list"]).code, 0);
    for (url, token, arguments, code, words) in [
        (url.as_str(), "CANARY-wrong", &["sandbox", "list"][..], 78, "token"),
        (&url, "", &["sandbox", "list"], 78, "empty"),
        (&url, USER, &["sandbox", "show", "nobody"], 64, "nobody"),
        (&url, USER, &["sandbox", "show", "no/name"], 64, "no/name"),
        (&url, USER, &["task", "run", "--", "id"], 64, "no sandbox is connected"),
        (&url, USER, &["task", "run"], 64, "gateway task run -- id"),
        (&url, USER, &["task", "run", "--env", "novalue", "--", "id"], 64, "KEY=VALUE"),
        (&url, USER, &["sandbox", "create", "another"], 69, "PUT /v1/sandboxes/another"),
        ("http://127.0.0.1:1", USER, &["sandbox", "list"], 69, "cannot be reached"),
        ("http://192.0.2.1", USER, &["sandbox", "list"], 78, "https"),
        ("gopher://x", USER, &["sandbox", "list"], 78, "https"),
    ] {
        let said = with(&home, url, token, arguments);
        assert_eq!(said.code, code, "{url} {arguments:?}: {said:?}");
        assert!(said.stderr.contains(words) && !said.stderr.contains("CANARY"), "{url} {arguments:?}: {said:?}");
        assert_eq!(said.stdout, "", "{arguments:?}");
    }
}

#[test]
fn completions_are_what_the_shell_takes() {
    let home = Home::new();
    let said = home.run(&["completions", "bash"]);
    assert_eq!(said.code, 0, "{said:?}");
    let checked = Command::new("bash").args(["-n", "-c", &said.stdout]).stdin(Stdio::null()).status().expect("bash");
    assert!(checked.success());
    assert!(said.stdout.contains("gateway") && said.stdout.contains("logs"), "{}", said.stdout);
    for shell in ["zsh", "fish"] {
        assert!(home.run(&["completions", shell]).stdout.contains("sandbox"), "{shell}");
    }
}
