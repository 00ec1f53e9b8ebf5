use super::*;
use proptest::prelude::*;

/// A server that answers each question with `answer`, made of the question.
async fn server(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> (Names, tempfile::TempDir) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    let port = socket.local_addr().expect("bound").port();
    tokio::spawn(async move {
        let mut bytes = [0; 512];
        while let Ok((count, peer)) = socket.recv_from(&mut bytes).await {
            let _ = socket.send_to(&answer(&bytes[..count]), peer).await;
        }
    });
    let dir = tempfile::tempdir().expect("tempdir");
    let (hosts, settings) = (dir.path().join("hosts"), dir.path().join("resolv.conf"));
    std::fs::write(&hosts, "10.0.0.9 written.example alias # other.example\n::9 written.example\n").expect("write");
    let text = "search ns.svc.cluster.local svc.cluster.local\nnameserver 127.0.0.1\noptions ndots:5 timeout:1\n";
    std::fs::write(&settings, text).expect("write");
    let names = Names { hosts, settings, port };
    (names, dir)
}

fn is_for(question: &[u8], name: &str, kind: Kind) -> bool {
    question == message::question(u16::from_be_bytes([question[0], question[1]]), name, kind)
}

/// The question as an answer with this result and these records.
fn reply(question: &[u8], result: u8, records: &[(Kind, &[u8])]) -> Vec<u8> {
    let mut bytes = question.to_vec();
    (bytes[2], bytes[3]) = (0x81, 0x80 | result);
    bytes[7] = records.len() as u8 + 1;
    // An alias first, with its name as a pointer to the question's.
    bytes.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 5, 0, 2, 0xc0, 12]);
    for (kind, data) in records {
        bytes.extend([0xc0, 12, 0, *kind as u8, 0, 1, 0, 0, 0, 5, 0, data.len() as u8]);
        bytes.extend(*data);
    }
    bytes
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
}

#[test]
fn the_hosts_file_goes_first_and_an_address_is_itself() {
    runtime().block_on(async {
        let (names, _dir) = server(|_| Vec::new()).await;
        let of = async |host| names.resolve(host).await.expect("known");
        assert_eq!(
            of("WRITTEN.example.").await,
            ["10.0.0.9".parse::<IpAddr>().expect("v4"), "::9".parse().expect("v6")]
        );
        assert_eq!(of("alias").await.len(), 1);
        assert_eq!(of("[::1]").await, ["::1".parse::<IpAddr>().expect("v6")]);
        assert_eq!(of("localhost").await.len(), 2);
    });
}

#[test]
fn the_search_list_is_asked_for_and_both_kinds_are_taken() {
    runtime().block_on(async {
        let (names, _dir) = server(|question| {
            let full = "gateway.agents.svc.cluster.local";
            if is_for(question, full, Kind::A) {
                reply(question, 0, &[(Kind::A, &[10, 0, 0, 1]), (Kind::A, &[10, 0, 0, 2])])
            } else if is_for(question, full, Kind::Aaaa) {
                reply(question, 0, &[(Kind::Aaaa, &[0xfd; 16])])
            } else {
                reply(question, 3, &[])
            }
        })
        .await;
        let found = names.resolve("gateway.agents").await.expect("known by the search list");
        assert_eq!(found.len(), 3);
        assert!(found[0].is_ipv6());
        assert!(matches!(names.resolve("nowhere").await, Err(NameError::Unknown(_))));
    });
}

#[test]
fn an_answer_to_another_question_is_not_believed() {
    runtime().block_on(async {
        let (names, _dir) = server(|question| {
            let mut forged = reply(question, 0, &[(Kind::A, &[6, 6, 6, 6])]);
            forged[0] = !forged[0];
            forged
        })
        .await;
        assert!(matches!(names.resolve("gateway").await, Err(NameError::Silent { .. })));
    });
}

#[test]
fn what_is_not_a_name_is_not_asked_for() {
    runtime().block_on(async {
        for bad in ["", ".", "a..b", "a b", "name\r\nX: y", &"a".repeat(64), &"a.".repeat(128)] {
            assert!(matches!(Names::default().resolve(bad).await, Err(NameError::Invalid(_))), "{bad:?}");
        }
    });
}

#[test]
fn a_name_with_enough_dots_is_asked_for_as_it_is_first() {
    let settings = Settings::parse("search a.example b.example\noptions ndots:2\n");
    assert_eq!(settings.candidates("x.y"), ["x.y.a.example", "x.y.b.example", "x.y"]);
    assert_eq!(settings.candidates("x.y.z"), ["x.y.z", "x.y.z.a.example", "x.y.z.b.example"]);
}

proptest! {
    #[test]
    fn any_bytes_from_a_server_are_taken_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = message::addresses(&bytes);
        let _ = message::answers(&bytes, 1, "a.example", Kind::A);
    }
}
