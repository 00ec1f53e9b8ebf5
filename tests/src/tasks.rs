//! A client of the dev-task API, as a platform would write it: requests, tasks awaited, output followed.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::scene;
use crate::supervisor::Supervisor;
use crate::wait;

/// One supervisor's API, with a token or without.
#[derive(Clone, Debug)]
pub struct Api {
    /// Where.
    pub address: SocketAddr,
    /// What goes before each path.
    pub base: String,
    token: Option<String>,
}

/// The head of an answer.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// Status code.
    pub status: u16,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status and headers.
    pub head: Head,
    /// Body, without any framing.
    pub body: Vec<u8>,
}

impl Answer {
    /// Status code.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// A header, empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.head.headers.get(name).map_or("", String::as_str)
    }

    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The field that a problem names.
    pub fn field(&self) -> String {
        self.json()["field"].as_str().unwrap_or_default().to_string()
    }
}

impl Api {
    /// With the token of the scene.
    #[track_caller]
    pub fn of(supervisor: &Supervisor) -> Api {
        Api { address: supervisor.address(), base: String::new(), token: Some(scene::CANARY.into()) }
    }

    /// A server at this address, with this token.
    pub fn at(address: SocketAddr, token: &str) -> Api {
        Api { address, base: String::new(), token: Some(token.into()) }
    }

    /// Of a sandbox, through its gateway.
    pub fn sandbox(&self, id: &str) -> Api {
        Api { base: format!("/v1/sandboxes/{id}"), ..self.clone() }
    }

    /// The same with this token, or with none.
    pub fn with_token(&self, token: Option<&str>) -> Api {
        Api { token: token.map(str::to_string), ..self.clone() }
    }

    /// The header that says who calls, with its end of line; empty without a token.
    pub fn authorization(&self) -> String {
        self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default()
    }

    /// Send a request and take the head; the body is read as it comes.
    pub fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<(Head, Body)> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(wait::LONG * 2))?;
        stream.set_nodelay(true)?;
        let base = &self.base;
        let mut request = format!("{method} {base}{path} HTTP/1.1\r\nHost: supervisor\r\nConnection: close\r\n");
        request += &self.authorization();
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        if method != "GET" || !body.is_empty() {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        request += "\r\n";
        stream.write_all(request.as_bytes())?;
        // The answer may come before all of a refused body was taken.
        let _ = stream.write_all(body);
        receive(stream)
    }

    /// Send a request and take the whole answer.
    #[track_caller]
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_call(method, path, headers, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// The same where the other side may be gone.
    pub fn try_call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        let (head, mut rest) = self.open(method, path, headers, body)?;
        let mut body = Vec::new();
        rest.read_to_end(&mut body)?;
        Ok(Answer { head, body })
    }

    /// GET.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], b"")
    }

    /// POST.
    #[track_caller]
    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.call("POST", path, &[], body.as_ref())
    }

    /// Start a task; its id.
    #[track_caller]
    pub fn start(&self, create: Value) -> String {
        let answer = self.post("/dev-tasks", create.to_string());
        assert_eq!(answer.status(), 201, "{create}: {}", answer.json());
        answer.json()["task_id"].as_str().expect("an id").to_string()
    }

    /// Run a task to its end.
    #[track_caller]
    pub fn run(&self, create: Value) -> Value {
        let answer = self.post("/dev-tasks?wait=60s", create.to_string());
        assert_eq!(answer.status(), 201, "{create}: {}", answer.json());
        answer.json()
    }

    /// Run a shell script to its end and answer what it wrote; panics where it fails.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        let task = self.run(json!({"script": script}));
        let id = task["task_id"].as_str().expect("an id");
        let text = |stream| String::from_utf8_lossy(&self.output(id, stream)).into_owned();
        assert_eq!(task["state"], "succeeded", "{task}\n{}{}", text("stdout"), text("stderr"));
        text("stdout")
    }

    /// One task.
    #[track_caller]
    pub fn task(&self, id: &str) -> Value {
        let answer = self.get(&format!("/dev-tasks/{id}"));
        assert_eq!(answer.status(), 200, "{id}: {}", answer.json());
        answer.json()
    }

    /// Wait until a task is in this state.
    #[track_caller]
    pub fn wait_state(&self, id: &str, state: &str) -> Value {
        let mut last = Value::Null;
        let found = wait::within(wait::LONG, || {
            last = self.task(id);
            (last["state"] == state).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("{id} never is {state}: {last}"))
    }

    /// Wait until a task has ended.
    #[track_caller]
    pub fn wait_end(&self, id: &str) -> Value {
        self.get(&format!("/dev-tasks/{id}?wait=60s")).json()
    }

    /// Everything that is kept of one stream.
    #[track_caller]
    pub fn output(&self, id: &str, stream: &str) -> Vec<u8> {
        let answer = self.get(&format!("/dev-tasks/{id}/logs?stream={stream}"));
        assert_eq!(answer.status(), 200, "{id}: {}", answer.json());
        answer.body
    }

    /// Wait until the task has written this.
    #[track_caller]
    pub fn wait_output(&self, id: &str, text: &str) {
        let written = || String::from_utf8_lossy(&self.output(id, "stdout")).contains(text);
        wait::wait_until(&format!("{text:?} from {id}"), written);
    }

    /// Every task, page by page.
    #[track_caller]
    pub fn list(&self, query: &str) -> Vec<Value> {
        let mut tasks = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.get(&format!("/dev-tasks?{query}{after}")).json();
            tasks.extend(page["tasks"].as_array().expect("a page").iter().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return tasks,
            }
        }
    }
}

/// A body as it comes.
pub struct Body {
    from: BufReader<TcpStream>,
    framing: Framing,
}

enum Framing {
    Length(u64),
    /// Bytes left of this chunk; `None` after the last.
    Chunked(Option<u64>),
    UntilClose,
}

/// The head from a socket, and the body to come.
pub fn receive(stream: TcpStream) -> io::Result<(Head, Body)> {
    let mut from = BufReader::with_capacity(256 * 1024, stream);
    let head = head(&mut from)?;
    let length = head.headers.get("content-length").and_then(|l| l.parse().ok());
    let framing = match (length, head.headers.get("transfer-encoding").map(String::as_str)) {
        (Some(length), _) => Framing::Length(length),
        (None, Some("chunked")) => Framing::Chunked(Some(0)),
        _ if head.status == 204 => Framing::Length(0),
        _ => Framing::UntilClose,
    };
    Ok((head, Body { from, framing }))
}

/// The head alone.
pub fn head(from: &mut impl BufRead) -> io::Result<Head> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
    let mut head =
        Head { status: status.ok_or_else(|| io::Error::other(format!("no status in {line:?}")))?, ..Head::default() };
    loop {
        line.clear();
        from.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(head) };
        head.headers.insert(name.to_lowercase(), value.trim().to_string());
    }
}

impl Body {
    /// The next line, without its end; `None` after the last.
    pub fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.read(&mut byte)? == 1 {
            if byte[0] == b'\n' {
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            line.push(byte[0]);
        }
        Ok((!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned()))
    }

    /// The next server-sent event, as its fields by name.
    pub fn event(&mut self) -> io::Result<Option<BTreeMap<String, String>>> {
        let mut fields = BTreeMap::new();
        while let Some(line) = self.line()? {
            if line.is_empty() {
                return Ok(Some(fields));
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            fields.insert(name.to_string(), value.trim_start().to_string());
        }
        Ok(None)
    }

    fn next_chunk(&mut self) -> io::Result<Option<u64>> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        if line == "\r\n" {
            line.clear();
            self.from.read_line(&mut line)?;
        }
        let size = u64::from_str_radix(line.trim(), 16);
        let size = size.map_err(|_| io::Error::new(io::ErrorKind::UnexpectedEof, "broken off before its end"))?;
        Ok((size > 0).then_some(size))
    }
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if let Framing::Chunked(Some(0)) = self.framing {
            self.framing = Framing::Chunked(self.next_chunk()?);
        }
        let left = match &mut self.framing {
            Framing::UntilClose => return self.from.read(into),
            Framing::Chunked(None) => return Ok(0),
            Framing::Length(left) | Framing::Chunked(Some(left)) => left,
        };
        let most = usize::try_from(*left).unwrap_or(into.len()).min(into.len());
        // An empty read of a buffered reader still waits for more, which a kept connection does not bring.
        if most == 0 {
            return Ok(0);
        }
        let count = self.from.read(&mut into[..most])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "broken off before its end"));
        }
        *left -= count as u64;
        Ok(count)
    }
}
