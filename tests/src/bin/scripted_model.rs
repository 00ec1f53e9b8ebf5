//! A model that follows a script: enough of the OpenAI Responses API for a real coding agent to work offline.
//!
//! `scripted-model --listen ADDR [--cmd COMMAND]… --message TEXT`: each `POST /v1/responses` is answered with the
//! next command as a call to `exec_command`, and after the last one with the message. What was already done is read
//! from the request itself (the outputs in its `input`), so a repeated request gets the same answer. What the
//! commands printed goes to standard output, one JSON line each.

use std::io::Write;
use std::net::TcpListener;
use std::process::ExitCode;

use tests::scripted_model::{Script, http};

fn main() -> ExitCode {
    let (listen, script) = match Script::from_args(std::env::args().skip(1)) {
        Ok(parsed) => parsed,
        Err(problem) => {
            eprintln!("scripted-model: {problem}");
            return ExitCode::from(64);
        }
    };
    let listener = match TcpListener::bind(&listen) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("scripted-model: cannot listen on {listen}: {error}");
            return ExitCode::from(69);
        }
    };
    println!("{}", serde_json::json!({ "listening": listen }));
    for connection in listener.incoming().flatten() {
        let script = script.clone();
        std::thread::spawn(move || {
            if let Err(error) = http::serve(connection, &script, &mut std::io::stdout()) {
                // A client that hangs up is its own business; the next request comes on another connection.
                let _ = writeln!(std::io::stderr(), "scripted-model: {error}");
            }
        });
    }
    ExitCode::SUCCESS
}
