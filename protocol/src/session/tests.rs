use super::*;

/// Every frame as it was written once; a later version must still read it, and write it again as it stands.
const SUPERVISOR: &str = include_str!("../../fixtures/session-1-supervisor.jsonl");
const GATEWAY: &str = include_str!("../../fixtures/session-1-gateway.jsonl");

/// Found by fuzz `frames`: a number of a command's body was read as its neighbour, and written as that.
#[test]
fn a_number_of_a_body_goes_through_as_it_is() {
    let text = r#"{"t":"command","n":1,"do":"stop","body":4.989999999999999e+51}"#;
    let Ok(frame) = FromGateway::decode(text) else { panic!("a command") };
    assert_eq!(encode(&frame), text);
}

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

    /// One message of each kind as it was written once: what it is, and its bytes in hex.
    const KEPT: &str = include_str!("../../fixtures/session-1-streams.hex");

    #[test]
    fn every_kept_message_is_read_and_written_again_as_it_stands() {
        let parts = [
            ("open", Part::Open),
            ("data", Part::Data(b"hi".to_vec())),
            ("credit", Part::Credit(INITIAL_CREDIT)),
            ("close", Part::Close),
            ("reset", Part::Reset("no".into())),
        ];
        assert_eq!(KEPT.lines().count(), parts.len());
        for (line, (kind, part)) in KEPT.lines().zip(parts) {
            let hex = line.strip_prefix(kind).expect("in this order").trim();
            let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
            let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(digits).collect();
            let frame = Frame { stream: 0x0102_0304, part };
            assert_eq!(Frame::decode(&bytes), Ok(frame.clone()), "{kind}");
            assert_eq!(frame.encode(), bytes, "{kind}");
        }
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
