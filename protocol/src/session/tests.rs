use super::*;

/// Every frame as it was written once; a later version must still read it, and write it again as it stands.
const SUPERVISOR: &str = include_str!("../../fixtures/session-1-supervisor.jsonl");
const GATEWAY: &str = include_str!("../../fixtures/session-1-gateway.jsonl");

#[test]
fn every_kept_frame_is_read_and_written_again_as_it_stands() {
    for kept in SUPERVISOR.lines() {
        assert_eq!(encode(&FromSupervisor::decode(kept).expect("a kept frame is read")), kept);
    }
    for kept in GATEWAY.lines() {
        assert_eq!(encode(&FromGateway::decode(kept).expect("a kept frame is read")), kept);
    }
}

#[test]
fn an_unknown_frame_and_an_unknown_field_are_skipped() {
    let frame = FromGateway::decode(r#"{"t":"poem","lines":14}"#).expect("read");
    assert!(matches!(frame, FromGateway::Unknown));
    let frame = FromSupervisor::decode(r#"{"t":"beat","n":1,"d":"0","mood":"good"}"#).expect("read");
    assert!(matches!(frame, FromSupervisor::Beat { n: 1, .. }));
}

#[test]
fn a_beat_has_at_most_48_bytes() {
    let beat = FromSupervisor::Beat { n: 9_999_999_999, d: "0123456789ab".into() };
    assert!(encode(&beat).len() <= 48, "{}", encode(&beat));
}

#[test]
fn the_newest_common_protocol_is_agreed() {
    let range = |min, max| Range { min, max };
    assert_eq!(range(1, 3).agree(range(2, 5)), Some(3));
    assert_eq!(range(2, 5).agree(range(1, 3)), Some(3));
    assert_eq!(range(1, 1).agree(range(2, 5)), None);
    assert_eq!(range(2, 5).agree(range(1, 1)), None);
}

mod streams {
    use super::super::stream::*;

    #[test]
    fn every_frame_survives_the_wire() {
        let parts =
            [Part::Open, Part::Data(vec![0; MAX_PAYLOAD]), Part::Credit(7), Part::Close, Part::Reset("no".into())];
        for part in parts {
            let frame = Frame { stream: 0x0102_0304, part };
            assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }
    }

    #[test]
    fn the_bytes_are_as_documented() {
        assert_eq!(Frame { stream: 0x0102_0304, part: Part::Credit(256) }.encode(), [3, 4, 3, 2, 1, 0, 1, 0, 0]);
        assert_eq!(Frame { stream: 1, part: Part::Data(b"hi".to_vec()) }.encode(), [2, 1, 0, 0, 0, b'h', b'i']);
    }

    #[test]
    fn bad_messages_are_told_apart() {
        assert_eq!(Frame::decode(&[]), Err(Malformed::Short));
        assert_eq!(Frame::decode(&[2, 0, 0, 0]), Err(Malformed::Short));
        assert_eq!(Frame::decode(&[3, 0, 0, 0, 0, 1]), Err(Malformed::Credit));
        assert_eq!(Frame::decode(&[9, 0, 0, 0, 0]), Err(Malformed::Kind(9)));
        assert_eq!(Frame::decode(&[2; MAX_MESSAGE + 1]), Err(Malformed::Long));
    }
}
