//! A relay as a platform would run it: takes an approved patch over HTTP and applies it to a git repository, once a key.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The largest patch that is taken.
const MAX_BODY: u64 = 64 * 1024 * 1024;

/// What it works with.
pub struct Relay {
    /// Who may call.
    pub token: String,
    /// Where patches go.
    pub repository: PathBuf,
    /// What was answered, by `Idempotency-Key`.
    pub answered: BTreeMap<String, (u16, String)>,
}

impl Relay {
    /// Nothing was applied yet.
    pub fn new(token: impl Into<String>, repository: impl Into<PathBuf>) -> Relay {
        Relay { token: token.into(), repository: repository.into(), answered: BTreeMap::new() }
    }

    /// One call after the other, for ever.
    pub fn serve(self, listener: &TcpListener) {
        self.serve_over(listener, |stream| stream);
    }

    /// The same over what `line` makes of each connection, such as TLS.
    pub fn serve_over<L: Read + Write>(mut self, listener: &TcpListener, line: impl Fn(TcpStream) -> L) {
        for connection in listener.incoming().flatten() {
            let timeout = connection.set_read_timeout(Some(Duration::from_secs(30)));
            if let Err(error) = timeout.and_then(|()| self.answer(line(connection))) {
                // A caller that hangs up is its own business.
                let _ = writeln!(std::io::stderr(), "relay: {error}");
            }
        }
    }

    fn answer(&mut self, mut connection: impl Read + Write) -> Result<()> {
        let (line, headers, body) = request(&mut BufReader::new(&mut connection))?;
        let (status, words) = self.decide(&line, &headers, &body)?;
        println!("{line} {status} {words}");
        write!(
            connection,
            "HTTP/1.1 {status} -\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{words}",
            words.len()
        )?;
        connection.flush()
    }

    fn decide(&mut self, line: &str, headers: &BTreeMap<String, String>, body: &[u8]) -> Result<(u16, String)> {
        let header = |name: &str| headers.get(name).map_or("", String::as_str);
        if !line.starts_with("POST /apply ") {
            return Ok((404, "no such path".into()));
        }
        if header("authorization") != format!("Bearer {}", self.token) {
            return Ok((401, "another token is needed".into()));
        }
        let key = header("idempotency-key").to_owned();
        if key.is_empty() {
            return Ok((400, "no Idempotency-Key".into()));
        }
        if let Some(answer) = self.answered.get(&key) {
            return Ok(answer.clone());
        }
        let answer = self.apply(body)?;
        self.answered.insert(key, answer.clone());
        Ok(answer)
    }

    fn apply(&self, patch: &[u8]) -> Result<(u16, String)> {
        let mut git = Command::new("git")
            .args(["apply", "--whitespace=nowarn", "-"])
            .current_dir(&self.repository)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = git.stdin.take() {
            stdin.write_all(patch)?;
        }
        let output = git.wait_with_output()?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(if output.status.success() { (200, "applied".into()) } else { (409, words) })
    }
}

type Request = (String, BTreeMap<String, String>, Vec<u8>);

fn request(from: &mut impl BufRead) -> Result<Request> {
    let mut first = String::new();
    from.read_line(&mut first)?;
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "the request ends within its head"));
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length: u64 = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    from.take(length.min(MAX_BODY)).read_to_end(&mut body)?;
    Ok((first.trim_end().to_owned(), headers, body))
}
