//! One HTTP/1.1 request a connection: as much of it as an agent's client needs.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Script, outputs};

/// The largest body that is read; a conversation of a test is far below.
const MAX_BODY: u64 = 64 * 1024 * 1024;

/// Answers one request and closes. Each turn is noted on `notes` as a JSON line.
pub fn serve(connection: TcpStream, script: &Script, notes: &mut impl Write) -> Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(&connection);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let body = body(&mut reader)?;
    match (method.as_str(), path.as_str()) {
        ("GET", "/healthz") => reply(&connection, "200 OK", "application/json", "{\"status\":\"ready\"}"),
        ("POST", "/v1/responses") => {
            let request: Value = serde_json::from_slice(&body).map_err(Error::other)?;
            let so_far = outputs(&request);
            writeln!(notes, "{}", json!({ "turn": so_far.len(), "last_output": so_far.last() }))?;
            reply(&connection, "200 OK", "text/event-stream", &script.answer(&request))
        }
        _ => reply(&connection, "404 Not Found", "application/json", "{\"error\":\"no such path\"}"),
    }
}

/// Reads the head to its end, then the body that it announces.
fn body(reader: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut length = 0u64;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "the request ends within its head"));
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(Error::other)?;
        }
    }
    let mut body = Vec::new();
    reader.take(length.min(MAX_BODY)).read_to_end(&mut body)?;
    Ok(body)
}

fn reply(mut connection: &TcpStream, status: &str, kind: &str, body: &str) -> Result<()> {
    write!(
        connection,
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    connection.flush()
}
