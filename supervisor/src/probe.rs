//! `supervisor probe`: one GET to the supervisor's own listener, for images with neither curl nor a shell.
//!
//! Blocking, no runtime, no allocation beyond the answer: the kubelet runs it in the container every few seconds.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const MAX_ANSWER: u64 = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ProbeError {
    #[error("no supervisor answers on {address}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("the supervisor on {address} accepted the connection and then failed to answer")]
    Answer { address: SocketAddr, source: io::Error },
    #[error("no answer from {address} within {limit:?}")]
    TimedOut { address: SocketAddr, limit: Duration },
    #[error("what listens on {address} does not speak HTTP")]
    NotHttp { address: SocketAddr },
}

/// Status and body of `GET path` at the listener that is configured as `listen`. One deadline covers all of it.
pub fn probe(listen: SocketAddr, path: &str, timeout: Duration) -> Result<(u16, String), ProbeError> {
    let deadline = Instant::now() + timeout;
    let mut refused = None;
    for address in reachable(listen) {
        match ask(address, path, timeout, deadline) {
            // The listener may have only one of the two families; the first refusal is the one to report.
            Err(error @ ProbeError::Connect { .. }) => refused = refused.or(Some(error)),
            other => return other,
        }
    }
    Err(refused.unwrap_or(ProbeError::TimedOut { address: listen, limit: timeout }))
}

/// A listener on every address is asked on loopback.
fn reachable(listen: SocketAddr) -> Vec<SocketAddr> {
    let port = listen.port();
    let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port);
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![v4],
        // A dual-stack socket takes IPv4 too, and where IPv6 is off it is the only one that works.
        IpAddr::V6(ip) if ip.is_unspecified() => vec![v4, v6],
        _ => vec![listen],
    }
}

fn ask(address: SocketAddr, path: &str, limit: Duration, deadline: Instant) -> Result<(u16, String), ProbeError> {
    let late = || ProbeError::TimedOut { address, limit };
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => late(),
        _ => ProbeError::Answer { address, source },
    };
    let mut stream = TcpStream::connect_timeout(&address, left(deadline).ok_or_else(late)?).map_err(|source| {
        match source.kind() {
            io::ErrorKind::TimedOut => late(),
            _ => ProbeError::Connect { address, source },
        }
    })?;
    stream.set_write_timeout(left(deadline)).map_err(failed)?;
    // 1.0: the answer ends with the connection and is never chunked (RFC 9112, 9.3 and 7.1).
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nUser-Agent: supervisor-probe\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let answer = read_to_end(&mut stream, deadline).map_err(failed)?;
    let status = status(&answer).ok_or(ProbeError::NotHttp { address })?;
    Ok((status, String::from_utf8_lossy(body(&answer)).into_owned()))
}

/// A read's time limit starts anew with each read, so it is set from the deadline before each.
fn read_to_end(stream: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while (answer.len() as u64) < MAX_ANSWER && !complete(&answer) {
        let left = left(deadline).ok_or(io::ErrorKind::TimedOut)?;
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

/// `None` when the deadline has passed: a time limit of zero would mean none at all.
fn left(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

/// The status code of an answer that begins with these bytes.
pub fn status(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.")?;
    let (minor, rest) = rest.split_first()?;
    let (code, after) = rest.strip_prefix(b" ")?.split_first_chunk::<3>()?;
    let ends = matches!(after.first(), None | Some(b' ' | b'\r' | b'\n'));
    if !minor.is_ascii_digit() || !ends || !code.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(code).ok()?.parse().ok()
}

/// What follows the head; nothing before that has come as a whole.
pub fn body(answer: &[u8]) -> &[u8] {
    head_length(answer).map_or(&[], |head| &answer[head..])
}

fn head_length(answer: &[u8]) -> Option<usize> {
    answer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Whether as much has come as `Content-Length` says, so that a peer that keeps the connection open costs no wait.
pub fn complete(answer: &[u8]) -> bool {
    let Some(head) = head_length(answer) else { return false };
    let lines = String::from_utf8_lossy(&answer[..head]);
    let length = lines.lines().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok()).flatten()
    });
    length.is_some_and(|length| answer.len() - head >= length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const ENOUGH: Duration = Duration::from_secs(30);

    /// Answers one connection with `answer`, and keeps it open when `hold`.
    fn serve(answer: &'static str, hold: bool) -> (SocketAddr, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                request.push(byte[0]);
            }
            let _ = stream.write_all(answer.as_bytes());
            if hold {
                let _ = stream.read(&mut byte); // until the client leaves
            }
            String::from_utf8(request).expect("ascii")
        });
        (address, server)
    }

    #[test]
    fn status_and_body_come_back_whatever_the_status() {
        let (address, server) = serve("HTTP/1.1 503 Service Unavailable\r\nX: y\r\n\r\n{\"status\":\"error\"}", false);
        let answer = probe(address, "/readyz", ENOUGH).expect("answers");
        assert_eq!(answer, (503, "{\"status\":\"error\"}".to_owned()));
        assert!(server.join().expect("served").starts_with("GET /readyz HTTP/1.0\r\n"));
    }

    #[test]
    fn a_peer_that_keeps_the_connection_open_does_not_keep_the_probe() {
        let (address, server) = serve("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true);
        assert_eq!(probe(address, "/", ENOUGH).expect("answers"), (200, "ok".to_owned()));
        server.join().expect("served");
    }

    #[test]
    fn a_peer_that_never_answers_ends_with_the_deadline() {
        let (address, server) = serve("", true);
        let error = probe(address, "/", Duration::from_millis(50)).expect_err("silent");
        assert!(matches!(error, ProbeError::TimedOut { .. }), "{error}");
        server.join().expect("served");
    }

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        let (address, server) = serve("HTTP/1.1 200 OK\r\n\r\n", false);
        let listen = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), address.port());
        assert_eq!(probe(listen, "/", ENOUGH).expect("answers").0, 200);
        server.join().expect("served");
    }

    #[test]
    fn nobody_there_and_no_http_are_told_apart() {
        let closed = TcpListener::bind("127.0.0.1:0").expect("loopback").local_addr().expect("bound");
        assert!(matches!(probe(closed, "/", ENOUGH), Err(ProbeError::Connect { .. })));
        let (address, server) = serve("SSH-2.0-x\r\n", false);
        assert!(matches!(probe(address, "/", ENOUGH), Err(ProbeError::NotHttp { .. })));
        server.join().expect("served");
    }

    #[test]
    fn only_a_status_line_has_a_status() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.0 399\r\n"), Some(399));
        for bad in ["", "HTTP/1.1", "HTTP/1.1 20", "HTTP/1.1 2000 x", "HTTP/2 200", "HTTP/1.x 200", "http/1.1 200"] {
            assert_eq!(status(bad.as_bytes()), None, "{bad}");
        }
    }
}
