//! The script of a scripted model: which answer comes next.
//!
//! Stateless: the request carries the whole conversation, so the answer depends on the request alone.

pub mod http;

use std::net::TcpListener;
use std::sync::Arc;

use serde_json::{Value, json};

/// Commands to ask for, one a turn, then what to say at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// Shell commands, in order.
    pub commands: Vec<String>,
    /// The final message.
    pub message: String,
}

/// Ask for these commands on a port of loopback, for as long as the test runs; its address.
pub fn start(commands: &[String]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let script = Arc::new(Script { commands: commands.to_vec(), message: "The work is done.".into() });
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let script = script.clone();
            std::thread::spawn(move || http::serve(connection, &script, &mut std::io::sink()));
        }
    });
    address
}

impl Script {
    /// Reads `--listen ADDR [--cmd COMMAND]… [--message TEXT]`; answers where to listen, and the script.
    pub fn from_args(mut args: impl Iterator<Item = String>) -> Result<(String, Script), String> {
        let mut listen = "127.0.0.1:8099".to_owned();
        let mut script = Script { message: "done".to_owned(), ..Script::default() };
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--listen" => listen = value,
                "--cmd" => script.commands.push(value),
                "--message" => script.message = value,
                _ => return Err(format!("unknown flag {flag}: give --listen, --cmd or --message")),
            }
        }
        Ok((listen, script))
    }

    /// The server-sent events that answer one request.
    pub fn answer(&self, request: &Value) -> String {
        let turn = outputs(request).len();
        let response = format!("resp_{turn}");
        let item = match self.commands.get(turn) {
            Some(command) => json!({
                "type": "function_call", "id": format!("fc_{turn}"), "call_id": format!("call_{turn}"),
                "name": "exec_command", "arguments": json!({ "cmd": command }).to_string(),
            }),
            None => json!({
                "type": "message", "id": format!("msg_{turn}"), "role": "assistant",
                "content": [{ "type": "output_text", "text": self.message }],
            }),
        };
        let usage = json!({
            "input_tokens": 1, "input_tokens_details": null,
            "output_tokens": 1, "output_tokens_details": null, "total_tokens": 2,
        });
        [
            json!({ "type": "response.created", "response": { "id": response } }),
            json!({ "type": "response.output_item.done", "item": item }),
            json!({ "type": "response.completed", "response": { "id": response, "usage": usage } }),
        ]
        .iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default()))
        .collect()
    }
}

/// What the commands so far have printed, as the agent told the model.
pub fn outputs(request: &Value) -> Vec<&Value> {
    let items = request["input"].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter(|item| item["type"] == "function_call_output").map(|item| &item["output"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script() -> Script {
        Script { commands: vec!["git status".to_owned()], message: "finished".to_owned() }
    }

    #[test]
    fn asks_for_the_command_first_and_ends_once_its_output_came_back() {
        let first = script().answer(&json!({ "input": [] }));
        assert!(first.contains("exec_command") && first.contains("git status"), "{first}");

        let done = json!({ "input": [{ "type": "function_call_output", "call_id": "call_0", "output": "clean" }] });
        let last = script().answer(&done);
        assert!(last.contains("finished") && !last.contains("exec_command"), "{last}");
        assert_eq!(outputs(&done), [&json!("clean")]);
    }

    #[test]
    fn arguments_become_a_script() {
        let args = ["--listen", "127.0.0.1:1", "--cmd", "a", "--cmd", "b", "--message", "m"].map(str::to_owned);
        let (listen, script) = Script::from_args(args.into_iter()).expect("these are all known");
        assert_eq!((listen.as_str(), script.commands.len(), script.message.as_str()), ("127.0.0.1:1", 2, "m"));
        assert!(Script::from_args(["--what".to_owned(), "x".to_owned()].into_iter()).is_err());
    }
}
