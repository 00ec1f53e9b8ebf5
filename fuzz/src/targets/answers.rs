//! What somebody answers whom the supervisor calls: as a gateway that is dialled, as a proxy on the way to it, as the relay of patches,
//! as the listener that a probe asks. The first byte says who.

use std::sync::LazyLock;
use std::time::Duration;

use axum::http::HeaderValue;
use peer::{Address, Stream};
use protocol::session::SUBPROTOCOL;
use protocol::task::ApplyState;
use supervisor::{probe, untrusted};
use tokio::io::AsyncReadExt;
use tokio::runtime::{Builder, Runtime};

use super::peer::{PROOF, Peer};
use super::{contains, hold_tame};
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "answers", longest: 4096, run, seeds };

static GATEWAY: LazyLock<Address> = LazyLock::new(|| "http://gateway.example/base".parse().expect("an address"));
/// Neither the peer's words nor this are in what a log says.
const SECRET: &str = "s3cret";
/// The relay's words, of which there may be more.
const WORDS: usize = 1024;
/// The next dial is never later.
const HOUR: Duration = Duration::from_secs(3600);

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("one event loop");
}

fn run(data: &[u8]) {
    let Some((who, answer)) = data.split_first() else { return };
    match who % 4 {
        0 => RUNTIME.with(|runtime| runtime.block_on(gateway(answer))),
        1 => RUNTIME.with(|runtime| runtime.block_on(proxy(answer))),
        2 => RUNTIME.with(|runtime| runtime.block_on(relay(answer))),
        _ => listener(answer),
    }
}

async fn gateway(answer: &[u8]) {
    let token = HeaderValue::try_from(format!("Bearer {SECRET}")).expect("visible");
    match untrusted::dial(Peer::of_http(answer), &GATEWAY, token).await {
        Ok(stream) => {
            assert!(contains(answer, PROOF), "a session with somebody who has not read the key");
            hold_rest(stream, answer).await;
        }
        Err(refused) => {
            hold_silent(&refused.said);
            assert!(refused.waits.iter().all(|wait| *wait <= HOUR), "it dials again after {:?}", refused.waits);
        }
    }
}

async fn proxy(answer: &[u8]) {
    match untrusted::tunnel(Peer::of_http(answer), &format!("http://ann:{SECRET}@proxy.example"), &GATEWAY).await {
        Ok(stream) => {
            assert!(says_success(answer), "a tunnel that the proxy has not made");
            hold_rest(stream, answer).await;
        }
        Err(said) => hold_silent(&said),
    }
}

async fn relay(answer: &[u8]) {
    let Some((state, words)) = untrusted::relay(Peer::of_http(answer)).await else { return };
    hold_tame(&words);
    assert!(words.chars().count() <= WORDS);
    assert!(state != ApplyState::Applied || says_success(answer), "a patch that the relay has not applied");
}

fn listener(answer: &[u8]) {
    if let Some(status) = probe::status(answer) {
        assert!(status < 1000 && contains(answer, format!(" {status:03}").as_bytes()));
    }
    assert!(answer.ends_with(probe::body(answer)));
    let begin = &answer[..answer.len() / 2];
    assert!(!probe::complete(begin) || probe::complete(answer), "more bytes make it less");
}

/// What follows the handshake is what came behind it.
async fn hold_rest(mut stream: Box<dyn Stream>, answer: &[u8]) {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("the peer has gone, and nothing is broken");
    assert!(answer.ends_with(&rest), "bytes that the peer has not sent");
}

fn hold_silent(said: &str) {
    hold_tame(said);
    assert!(!said.contains(SECRET), "it is told: {said}");
}

/// Whether a status of 2xx stands anywhere in it.
fn says_success(answer: &[u8]) -> bool {
    answer.windows(10).any(|line| line.starts_with(b"HTTP/1.") && line.ends_with(b" 2"))
}

fn seeds() -> Vec<Vec<u8>> {
    let upgraded = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {{proof}}\r\nsec-websocket-protocol: {SUBPROTOCOL}\r\n\r\n\u{1}\u{2}hi"
    );
    let refused = |head: &str, body: &str| format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let reserved = r#"{"reason":"many dial at once","reconnect_in_ms":1200,"window_ms":25000}"#;
    let of = |who: u8, answer: &str| [&[who][..], answer.as_bytes()].concat();
    vec![
        of(0, &upgraded),
        of(0, &refused("503 Service Unavailable\r\nretry-after: 2", reserved)),
        of(0, &refused("503 Service Unavailable\r\nretry-after: 18446744073709551615", "s3cret")),
        of(0, &refused("401 Unauthorized", "{}")),
        of(0, "HTTP/1.1 302 Found\r\nlocation: http://other.example/\r\n\r\n"),
        of(0, "HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
        of(1, "HTTP/1.1 200 Connection established\r\n\r\nhello"),
        of(1, "HTTP/1.0 100 Continue\r\n\r\nHTTP/1.1 407 s3cret\r\nproxy-authenticate: Basic\r\n\r\n"),
        of(2, &refused("200 OK", "applied\u{1b}[2J")),
        of(2, &refused("409 Conflict", "it does not apply")),
        of(3, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        of(3, "HTTP/1.0 503\r\n\r\n"),
    ]
}
