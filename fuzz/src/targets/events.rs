//! What a client of the gateway reads: the events of a task's output, the words of one who is attached, answers and refusals. A sandbox
//! has a hand in all of it. The first byte says which.

use std::sync::LazyLock;

use gateway::client::attach::Heard;
use gateway::client::follow::Piece;
use gateway::untrusted;
use peer::Address;

use super::peer::Peer;
use super::{at_once, hold_tame};
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "events", longest: 4096, run, seeds };

static GATEWAY: LazyLock<Address> = LazyLock::new(|| "http://127.0.0.1:8080".parse().expect("an address"));

fn run(data: &[u8]) {
    let [what, number, data @ ..] = data else { return };
    match what % 4 {
        0 => output(data, usize::from(*number) + 1),
        1 => attached(data),
        // The engine need not make frames of words.
        2 => attached(&data.split(|byte| *byte == b'\n').flat_map(frame).collect::<Vec<u8>>()),
        _ => answer(data, 300 + u16::from(*number)),
    }
}

fn output(data: &[u8], piece: usize) {
    let (shown, why) = at_once(untrusted::output(data.chunks(piece).map(<[u8]>::to_vec).collect()));
    let mut next: u64 = 0;
    for piece in &shown {
        match piece {
            Piece::Bytes(bytes) => next += bytes.len() as u64,
            Piece::Cut { from, to } => {
                assert!(*from == next && to >= from, "a hole, or bytes twice");
                next = *to;
            }
            Piece::Lost(_) => panic!("only a refusal says so"),
        }
    }
    why.iter().for_each(|why| hold_tame(why));
    let whole = at_once(untrusted::output(vec![data.to_vec()]));
    assert_eq!((shown, why), whole, "it is another one where it is cut");
}

fn attached(bytes: &[u8]) {
    let (heard, why) = at_once(untrusted::attached(Peer::new(bytes)));
    hold_tame(&why);
    // Where it begins is said before anything comes.
    let mut before: Option<[u64; 2]> = None;
    for (what, places) in heard {
        let mut wanted = before.replace(places);
        match what {
            Heard::Exited(_) => {}
            Heard::Bytes(stream, bytes) => {
                wanted.iter_mut().for_each(|places| places[stream as usize] += bytes.len() as u64);
            }
            Heard::Cut(cut) => {
                assert!(wanted.is_none_or(|places| places[cut.stream as usize] == cut.from) && cut.from <= cut.to);
                wanted.iter_mut().for_each(|places| places[cut.stream as usize] = cut.to);
            }
            Heard::Refused(refused) => [refused.what, refused.why].iter().for_each(|text| hold_tame(text)),
        }
        assert!(wanted.is_none_or(|wanted| wanted == places), "a hole, or bytes twice");
    }
}

/// A word or bytes, as a supervisor sends them.
fn frame(line: &[u8]) -> Vec<u8> {
    let kind = if line.starts_with(b"{") { 0x81 } else { 0x82 };
    let [high, low] = u16::try_from(line.len()).expect("no input is longer").to_be_bytes();
    let head = if line.len() < 126 { vec![kind, low] } else { vec![kind, 126, high, low] };
    [&head[..], line].concat()
}

fn answer(body: &[u8], status: u16) {
    untrusted::answered(&GATEWAY, body).err().iter().for_each(|told| hold_tame(told));
    untrusted::refused(&GATEWAY, status, body).iter().for_each(|told| hold_tame(told));
}

fn seeds() -> Vec<Vec<u8>> {
    let of = |what: u8, number: u8, text: &str| [&[what, number][..], text.as_bytes()].concat();
    let words = concat!(
        r#"{"attached":{"cursor":3,"stderr_cursor":0,"terminal":{"rows":24,"cols":80},"read_only":false,"state":"running"}}"#,
        "\nabc\n",
        r#"{"stream":"stderr"}"#,
        "\nerr\n",
        r#"{"cut":{"stream":"stdout","from":6,"to":9}}"#,
        "\n",
        r#"{"refused":{"what":"input","why":"it is full\u001b[2J"}}"#,
        "\n",
        r#"{"resized":{"rows":1,"cols":1}}"#,
        "\n",
        r#"{"exited":{"state":"succeeded","exit_code":0,"signal":null,"reason":null}}"#,
    );
    let framed = words.as_bytes().split(|byte| *byte == b'\n').flat_map(frame).collect::<Vec<u8>>();
    let goodbye = [0x88, 5, 0x03, 0xe8, b'x', 0x1b, b'c'];
    let task = concat!(
        r#"{"task_id":"t","state":"running","exit_code":null,"signal":null,"reason":null,"oom_killed":null,"created_at":"2026-11-21T11:18:32Z","#,
        r#""started_at":null,"finished_at":null,"runtime":{"backend_run_id":"r","execution_class":"local","artifact_root":"/a","log_root":"/l"},"#,
        r#""output":{"stdout_bytes":0,"stderr_bytes":0,"cut_bytes":0},"usage":{"user_us":0,"system_us":0,"max_rss_kib":0}}"#,
    );
    vec![
        of(
            0,
            7,
            "event: output\nid: 3\ndata: YWJj\n\n: busy\n\nevent: cut\nid: 9\ndata: {\"from\":3,\"to\":9}\n\nevent: end\nid: 9\ndata:\n\n",
        ),
        of(0, 255, "id: 18446744073709551615\nevent: cut\n\nevent: output\nid: 0\ndata: YQ==\n\n"),
        [&[1, 0][..], &framed, &goodbye].concat(),
        of(2, 0, words),
        of(3, 0, task),
        of(3, 200, r#"{"title":"x","status":500,"detail":"no\u001b]0;x\u0007","state":"\u009b2J"}"#),
        of(3, 101, r#"{"detail":"not yours\u0007"}"#),
        of(3, 0, r#"{"task_id":"t","state":"\u001b[2J"}"#),
    ]
}
