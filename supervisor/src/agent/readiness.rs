//! When the agent counts as ready, or as hung: the operator's choice, read from one word.
//!
//! `started | tcp:PORT | http:PORT/PATH | exec:COMMAND | notify | never`. The network checks are made here, on
//! loopback, as the kubelet would make them; a command is only carried: it runs through the launcher, confined as the
//! agent is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::probe::status;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Nothing: it is never so.
    Never,
    /// The program runs.
    Started,
    /// A port takes connections.
    Tcp {
        /// On loopback.
        port: u16,
    },
    /// An HTTP answer of 200 to 399.
    Http {
        /// On loopback.
        port: u16,
        /// With its leading `/`.
        path: String,
    },
    /// A command ends with 0.
    Exec {
        /// `argv[0]` included; never empty.
        argv: Vec<String>,
    },
    /// The agent says so (`sd_notify(3)`).
    Notify,
}

/// A check that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum CheckSyntax {
    #[error("{word:?} is no check; use started, tcp:PORT, http:PORT/PATH, exec:COMMAND, notify or never")]
    Unknown { word: String },
    #[error("{port:?} is no port; use a number from 1 to 65535")]
    Port { port: String },
    #[error("{path:?} is no path; use printable characters without blanks")]
    Path { path: String },
    #[error("exec: needs a command: words, or a JSON array of strings")]
    Command,
}

/// Why a network check does not hold now.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CheckFailed {
    #[error("nothing takes connections on port {port}")]
    Closed { port: u16 },
    #[error("port {port} gave no answer within {limit:?}")]
    TimedOut { port: u16, limit: Duration },
    #[error("what listens on port {port} does not speak HTTP")]
    NotHttp { port: u16 },
    #[error("port {port} answered with HTTP {status}")]
    Status { port: u16, status: u16 },
}

impl FromStr for Check {
    type Err = CheckSyntax;

    fn from_str(word: &str) -> Result<Check, CheckSyntax> {
        let (kind, rest) = word.split_once(':').map_or((word, None), |(kind, rest)| (kind, Some(rest)));
        match (kind, rest) {
            ("never", None) => Ok(Check::Never),
            ("started", None) => Ok(Check::Started),
            ("notify", None) => Ok(Check::Notify),
            ("tcp", Some(number)) => Ok(Check::Tcp { port: port(number)? }),
            ("http", Some(rest)) => {
                let (number, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
                // What is not printable could end the request line and begin a request of its own.
                if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(CheckSyntax::Path { path: path.to_owned() });
                }
                Ok(Check::Http { port: port(number)?, path: path.to_owned() })
            }
            ("exec", Some(command)) => Ok(Check::Exec { argv: command_words(command)? }),
            _ => Err(CheckSyntax::Unknown { word: word.to_owned() }),
        }
    }
}

fn port(text: &str) -> Result<u16, CheckSyntax> {
    // `parse` alone would take "+80".
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port != 0);
    port.ok_or_else(|| CheckSyntax::Port { port: text.to_owned() })
}

/// Words at blanks; a command whose words hold blanks is written as a JSON array.
fn command_words(command: &str) -> Result<Vec<String>, CheckSyntax> {
    let argv: Vec<String> = if command.trim_start().starts_with('[') {
        serde_json::from_str(command).map_err(|_| CheckSyntax::Command)?
    } else {
        command.split_whitespace().map(str::to_owned).collect()
    };
    // A NUL cannot be passed to execve(2).
    let usable = argv.first().is_some_and(|first| !first.is_empty()) && argv.iter().all(|word| !word.contains('\0'));
    usable.then_some(argv).ok_or(CheckSyntax::Command)
}

/// Whether the port takes connections now.
pub async fn tcp(port: u16, limit: Duration) -> Result<(), CheckFailed> {
    within(port, limit, async { connect(port).await.map(drop) }).await
}

/// Whether `GET path` is answered with 200 to 399 now.
pub async fn http(port: u16, path: &str, limit: Duration) -> Result<(), CheckFailed> {
    within(port, limit, async {
        let mut stream = connect(port).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: supervisor\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        let lost = |_| CheckFailed::NotHttp { port };
        stream.write_all(request.as_bytes()).await.map_err(lost)?;
        let line = first_line(&mut stream).await.map_err(lost)?;
        discard_what_is_there(&stream);
        match status(&line) {
            Some(200..=399) => Ok(()),
            Some(status) => Err(CheckFailed::Status { port, status }),
            None => Err(CheckFailed::NotHttp { port }),
        }
    })
    .await
}

async fn within<T>(
    port: u16,
    limit: Duration,
    check: impl Future<Output = Result<T, CheckFailed>>,
) -> Result<T, CheckFailed> {
    tokio::time::timeout(limit, check).await.unwrap_or(Err(CheckFailed::TimedOut { port, limit }))
}

async fn connect(port: u16) -> Result<TcpStream, CheckFailed> {
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let Ok(stream) = TcpStream::connect(SocketAddr::new(ip, port)).await else { continue };
        // A port from the ephemeral range that nobody listens on may be given to this very socket, which then
        // connects to itself (simultaneous open, RFC 9293, 3.5).
        if stream.local_addr().ok() != stream.peer_addr().ok() {
            return Ok(stream);
        }
    }
    Err(CheckFailed::Closed { port })
}

/// The status line; at most 1 KiB of it, whatever is sent.
async fn first_line(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(256);
    let mut piece = [0; 256];
    while line.len() < 1024 && !line.contains(&b'\n') {
        match stream.read(&mut piece).await? {
            0 => break,
            count => line.extend_from_slice(&piece[..count]),
        }
    }
    Ok(line)
}

/// Closing with unread bytes resets the connection (RFC 9293, 3.10.4), which servers report as an error of theirs.
fn discard_what_is_there(stream: &TcpStream) {
    let mut piece = [0; 4096];
    for _ in 0..4 {
        if !matches!(stream.try_read(&mut piece), Ok(1..)) {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const ENOUGH: Duration = Duration::from_secs(30);

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(test)
    }

    async fn listen(address: &str) -> (TcpListener, u16) {
        let listener = TcpListener::bind(address).await.expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        (listener, port)
    }

    /// Asks a server that answers with these bytes and closes.
    async fn answered(answer: &[u8]) -> (Result<(), CheckFailed>, Vec<u8>) {
        let (listener, port) = listen("127.0.0.1:0").await;
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut request = vec![0; 512];
            let count = stream.read(&mut request).await.expect("asked");
            let _ = stream.write_all(answer).await;
            request.truncate(count);
            request
        };
        tokio::join!(http(port, "/ready?x=1", ENOUGH), server)
    }

    #[test]
    fn every_check_is_read_from_one_word() {
        let argv = |words: &[&str]| Check::Exec { argv: words.iter().map(|w| (*w).to_owned()).collect() };
        let read = |word: &str| word.parse::<Check>().expect("a check");
        assert_eq!(read("never"), Check::Never);
        assert_eq!(read("started"), Check::Started);
        assert_eq!(read("notify"), Check::Notify);
        assert_eq!(read("tcp:80"), Check::Tcp { port: 80 });
        assert_eq!(read("http:8080"), Check::Http { port: 8080, path: "/".into() });
        assert_eq!(read("http:8080/a/b:c?d"), Check::Http { port: 8080, path: "/a/b:c?d".into() });
        assert_eq!(read("exec: test  -f /x"), argv(&["test", "-f", "/x"]));
        assert_eq!(read(r#"exec:["a b",""]"#), argv(&["a b", ""]));
    }

    #[test]
    fn a_mistake_in_a_check_is_named() {
        let read = |word: &str| word.parse::<Check>().expect_err("a mistake");
        for unknown in ["", "Started", "started:", "notify:x", "udp:1", "exec", "tcp"] {
            assert!(matches!(read(unknown), CheckSyntax::Unknown { .. }), "{unknown}");
        }
        for port in ["tcp:", "tcp:0", "tcp:65536", "tcp:+80", "http:/x", "http:x/", "tcp:80/x"] {
            assert!(matches!(read(port), CheckSyntax::Port { .. }), "{port}");
        }
        for path in ["http:80/a b", "http:80/\r\nX:y", "http:80/é"] {
            assert!(matches!(read(path), CheckSyntax::Path { .. }), "{path}");
        }
        for command in ["exec:", "exec:  ", "exec:[]", "exec:[1]", "exec:[\"\"]", "exec:[", "exec:a\0b"] {
            assert_eq!(read(command), CheckSyntax::Command, "{command}");
        }
    }

    #[test]
    fn a_port_is_found_on_either_loopback_and_a_closed_one_is_not() {
        run(async {
            let (_v4, port) = listen("127.0.0.1:0").await;
            tcp(port, ENOUGH).await.expect("listens");
            let (v6, port) = listen("[::1]:0").await;
            tcp(port, ENOUGH).await.expect("listens on IPv6 only");
            drop(v6);
            assert!(matches!(tcp(port, ENOUGH).await, Err(CheckFailed::Closed { .. })));
        });
    }

    #[test]
    fn statuses_from_200_to_399_are_ready() {
        run(async {
            for (status, ready) in [(199, false), (200, true), (302, true), (399, true), (400, false), (503, false)] {
                let (result, request) = answered(format!("HTTP/1.1 {status} X\r\n\r\n").as_bytes()).await;
                assert_eq!(result.is_ok(), ready, "{status}: {result:?}");
                assert!(request.starts_with(b"GET /ready?x=1 HTTP/1.1\r\nHost: localhost:"));
            }
        });
    }

    #[test]
    fn an_endless_first_line_is_no_http_and_costs_no_memory() {
        run(async {
            let (listener, port) = listen("127.0.0.1:0").await;
            let endless = async {
                let (mut stream, _) = listener.accept().await.expect("a client");
                while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
            };
            let (result, ()) = tokio::join!(http(port, "/", ENOUGH), endless);
            assert!(matches!(result, Err(CheckFailed::NotHttp { .. })), "{result:?}");
        });
    }

    #[test]
    fn a_server_that_says_nothing_is_not_waited_for_beyond_the_limit() {
        run(async {
            let (_listener, port) = listen("127.0.0.1:0").await;
            let result = http(port, "/", Duration::from_millis(20)).await;
            assert!(matches!(result, Err(CheckFailed::TimedOut { .. })), "{result:?}");
        });
    }
}
