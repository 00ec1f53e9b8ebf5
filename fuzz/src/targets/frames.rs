//! Frames of the session, those of both sides, and what an attached client asks.

use protocol::attach::Ask;
use protocol::object::Only;
use protocol::session::{FromGateway, FromSupervisor, encode};

use super::{text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "frames", longest: 4096, run, seeds };

fn run(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(frame) = FromSupervisor::decode(text)
        && !matches!(frame, FromSupervisor::Unknown)
    {
        let written = encode(&frame);
        let again = FromSupervisor::decode(&written).expect("our own frame");
        assert_eq!(encode(&again), written);
    }
    if let Ok(frame) = FromGateway::decode(text)
        && !matches!(frame, FromGateway::Unknown)
    {
        let written = encode(&frame);
        let again = FromGateway::decode(&written).expect("our own frame");
        assert_eq!(encode(&again), written);
    }
    if let Ok(Only(ask)) = serde_json::from_str::<Only<Ask>>(text) {
        let written = serde_json::to_string(&ask).expect("JSON");
        assert_eq!(serde_json::from_str::<Ask>(&written).expect("our own words"), ask);
    }
}

fn seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"t":"hello","protocol":{"min":1,"max":1},"version":"0.1.0","agent_id":"a","boot_id":"b","log_epoch":"c","classes":{"logs":{"first_unacked":1,"last":7}},"applied":0,"capabilities":["stream"],"offline":{"after_ms":1000,"action":"stop-after-tasks"},"boot_ms":1,"wall_ms":2}"#,
        r#"{"t":"beat","n":1,"d":"0a"}"#,
        r#"{"t":"state","d":"0a","state":{"ready":true}}"#,
        r#"{"t":"data","class":"lifecycle","records":[{"seq":1,"record":{"kind":"x"}}]}"#,
        r#"{"t":"gap","class":"logs","from":1,"to":9,"bytes":12,"reason":"budget"}"#,
        r#"{"t":"applied","n":3,"after":2,"outcomes":[{"n":3,"ok":false,"reason":"unsupported"}]}"#,
        r#"{"t":"bye","reason":"it stops","last":true}"#,
        r#"{"t":"welcome","protocol":1,"version":"0.1.0","session":"s-1","fence":1,"next":{"logs":1},"pace":{"beat_ms":1000},"in_flight":65536,"now_ms":1,"keys":[]}"#,
        r#"{"t":"ack","acks":{"logs":5},"applied":2}"#,
        r#"{"t":"goaway","reason":"drain","reconnect_in_ms":100}"#,
        r#"{"t":"command","n":1,"after":0,"do":"stop","body":{}}"#,
        r#"{"t":"pace","window_ms":100}"#,
        r#"{"resize":{"rows":24,"cols":80},"eof":true}"#,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_seed_is_read() {
        for seed in seeds() {
            let text = text(&seed).expect("a seed that is text");
            let up = FromSupervisor::decode(text).is_ok_and(|frame| !matches!(frame, FromSupervisor::Unknown));
            let down = FromGateway::decode(text).is_ok_and(|frame| !matches!(frame, FromGateway::Unknown));
            assert!(up || down || serde_json::from_str::<Only<Ask>>(text).is_ok(), "{text}");
        }
    }
}
