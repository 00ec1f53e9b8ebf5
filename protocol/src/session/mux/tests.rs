use super::*;

/// Both ends, and a wire that carries every message at once.
struct Pair {
    gateway: Mux,
    supervisor: Mux,
}

impl Pair {
    fn new() -> Pair {
        Pair { gateway: Mux::new(Side::Gateway), supervisor: Mux::new(Side::Supervisor) }
    }

    fn open(&mut self) -> u32 {
        let id = self.gateway.open().expect("room");
        assert_eq!(self.carry().1, [Event::Opened(id)]);
        id
    }

    /// What the gateway, and what the supervisor was told.
    fn carry(&mut self) -> (Vec<Event>, Vec<Event>) {
        let mut told = (Vec::new(), Vec::new());
        loop {
            let down = self.gateway.next_message();
            let up = self.supervisor.next_message();
            if down.is_none() && up.is_none() {
                return told;
            }
            told.1.extend(down.and_then(|(m, _)| self.supervisor.receive(&m).expect("of this protocol")));
            told.0.extend(up.and_then(|(m, _)| self.gateway.receive(&m).expect("of this protocol")));
        }
    }
}

fn read_all(mux: &mut Mux, id: u32) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), [0; 1000]);
    while let Read::Bytes(count) = mux.read(id, &mut buffer) {
        all.extend(&buffer[..count]);
    }
    all
}

fn byte(position: usize) -> u8 {
    (position % 251) as u8
}

#[test]
fn bytes_arrive_whole_and_in_order_in_both_directions() {
    let mut pair = Pair::new();
    let id = pair.open();
    let total = 3 * INITIAL_CREDIT as usize + 17;
    let (mut down, mut up, mut sent) = (Vec::new(), Vec::new(), (0, 0));
    while down.len() < total || up.len() < total {
        for (mux, sent) in [(&mut pair.gateway, &mut sent.0), (&mut pair.supervisor, &mut sent.1)] {
            let bytes: Vec<u8> = (*sent..total.min(*sent + 5000)).map(byte).collect();
            if let Write::Taken(taken) = mux.write(id, &bytes) {
                *sent += taken;
            }
        }
        pair.carry();
        down.extend(read_all(&mut pair.supervisor, id));
        up.extend(read_all(&mut pair.gateway, id));
    }
    let expected: Vec<u8> = (0..total).map(byte).collect();
    assert!(down == expected && up == expected);
}

#[test]
fn a_reader_that_stops_holds_its_own_stream_at_its_credit_and_no_other() {
    let mut pair = Pair::new();
    let (slow, fast) = (pair.open(), pair.open());
    let mut sent = 0;
    for _ in 0..100 {
        if let Write::Taken(taken) = pair.gateway.write(slow, &[1; 10_000]) {
            sent += taken;
        }
        pair.carry();
    }
    assert_eq!(sent, INITIAL_CREDIT as usize + QUEUE);
    assert_eq!(pair.gateway.write(slow, b"more"), Write::Wait);
    assert_eq!(pair.gateway.write(fast, b"hello"), Write::Taken(5));
    pair.carry();
    assert_eq!(read_all(&mut pair.supervisor, fast), b"hello");
    assert_eq!(read_all(&mut pair.supervisor, slow).len(), INITIAL_CREDIT as usize);
    let told = pair.carry();
    assert!(told.0.contains(&Event::Writable(slow)), "{told:?}");
}

#[test]
fn streams_take_turns_and_control_goes_first() {
    let mut pair = Pair::new();
    let (a, b) = (pair.open(), pair.open());
    for id in [a, b] {
        pair.gateway.write(id, &[0; 2 * MAX_PAYLOAD]);
    }
    let c = pair.gateway.open().expect("room");
    let order: Vec<(u32, u8)> = std::iter::from_fn(|| pair.gateway.next_message())
        .map(|(m, _)| (u32::from_le_bytes([m[1], m[2], m[3], m[4]]), m[0]))
        .collect();
    assert_eq!(order, [(c, 1), (a, 2), (b, 2), (a, 2), (b, 2)]);
}

#[test]
fn a_close_follows_the_last_byte_and_the_other_direction_goes_on() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.gateway.write(id, b"request");
    pair.gateway.close(id);
    assert!(matches!(pair.gateway.write(id, b"x"), Write::Reset(_)));
    pair.carry();
    assert_eq!(read_all(&mut pair.supervisor, id), b"request");
    assert_eq!(pair.supervisor.read(id, &mut [0; 9]), Read::End);
    pair.supervisor.write(id, b"answer");
    pair.supervisor.close(id);
    pair.carry();
    assert_eq!(read_all(&mut pair.gateway, id), b"answer");
    assert_eq!(pair.gateway.read(id, &mut [0; 9]), Read::End);
    assert_eq!((pair.gateway.live(), pair.supervisor.live()), (0, 0));
}

#[test]
fn more_than_the_credit_resets_that_stream_only() {
    let mut pair = Pair::new();
    let (bad, good) = (pair.open(), pair.open());
    let data = |stream| Frame { stream, part: Part::Data(vec![0; MAX_PAYLOAD]) }.encode();
    for _ in 0..INITIAL_CREDIT as usize / MAX_PAYLOAD {
        assert_eq!(pair.supervisor.receive(&data(bad)), Ok(Some(Event::Readable(bad))));
    }
    assert_eq!(pair.supervisor.receive(&data(bad)), Ok(Some(Event::Over(bad))));
    assert_eq!(pair.supervisor.receive(&data(good)), Ok(Some(Event::Readable(good))));
    assert_eq!(pair.carry().0, [Event::Over(bad)]);
    assert!(matches!(pair.gateway.write(bad, b"x"), Write::Reset(_)));
}

#[test]
fn one_stream_too_many_is_reset_and_a_place_comes_free_when_one_ends() {
    let mut pair = Pair::new();
    let ids: Vec<u32> = (0..MAX_STREAMS).map(|_| pair.open()).collect();
    assert_eq!(pair.gateway.open(), None);
    let open = Frame { stream: 9999, part: Part::Open }.encode();
    assert_eq!(pair.supervisor.receive(&open), Ok(None));
    let (reset, _) = pair.supervisor.next_message().expect("an answer");
    assert!(matches!(Frame::decode(&reset).map(|f| f.part), Ok(Part::Reset(_))));
    pair.gateway.forget(ids[0]);
    assert_eq!(pair.carry().1, [Event::Over(ids[0])]);
    assert!(pair.gateway.open().is_some());
}

#[test]
fn who_asks_for_answers_and_reads_none_is_malformed_before_they_fill_memory() {
    let mut gateway = Mux::new(Side::Gateway);
    let open = |stream| Frame { stream, part: Part::Open }.encode();
    assert_eq!(gateway.receive(&open(1)), Err(Malformed::Open), "a supervisor opens none");
    assert!(!gateway.has_message());
    let mut supervisor = Mux::new(Side::Supervisor);
    let asked = (1..).take_while(|&stream| supervisor.receive(&open(stream)).is_ok()).count();
    assert_eq!(supervisor.receive(&open(0)), Err(Malformed::Flood));
    assert!((MAX_STREAMS..100 * MAX_STREAMS).contains(&asked), "{asked} before that");
}

#[test]
fn what_comes_for_a_stream_that_is_gone_is_skipped_and_so_is_a_later_kind() {
    let mut supervisor = Mux::new(Side::Supervisor);
    for part in [Part::Data(b"x".to_vec()), Part::Credit(9), Part::Close, Part::Reset("r".into())] {
        assert_eq!(supervisor.receive(&Frame { stream: 5, part }.encode()), Ok(None));
    }
    assert_eq!(supervisor.receive(&[77, 0, 0, 0, 0, 1, 2]), Ok(None));
    assert_eq!(supervisor.receive(&[2, 0]), Err(Malformed::Short));
    assert!(!supervisor.has_message());
}

#[test]
fn who_closes_and_leaves_is_still_heard_to_the_end() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.supervisor.write(id, &[7; 40_000]);
    pair.supervisor.close(id);
    pair.supervisor.forget(id);
    pair.carry();
    assert_eq!(read_all(&mut pair.gateway, id), [7; 40_000]);
    assert_eq!(pair.gateway.read(id, &mut [0; 9]), Read::End);
    assert!(matches!(pair.gateway.write(id, b"x"), Write::Reset(_)), "nobody reads it");
    assert_eq!((pair.gateway.live(), pair.supervisor.live()), (0, 0));
}
