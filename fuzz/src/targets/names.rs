//! What a DNS server answers, and the resolver's own files.

use peer::untrusted;

use super::text;
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "names", longest: 1500, run, seeds };

const NAME: &str = "gateway.example";
const ID: u16 = 0x1234;

fn run(data: &[u8]) {
    if let Some(addresses) = untrusted::answer(data, ID, NAME) {
        assert!(addresses.len() * 4 <= data.len());
    }
    // The engine need not find the question: it is ours.
    let mut answer = untrusted::question(ID, NAME).expect("a name");
    answer[2] |= 0x80;
    if let Some((head, rest)) = data.split_at_checked(3) {
        (answer[3], answer[6], answer[7]) = (head[0], head[1], head[2]);
        answer.extend(rest);
        untrusted::answer(&answer, ID, NAME);
    }
    if let Some(text) = text(data) {
        let candidates = untrusted::resolver(text, NAME);
        assert!(candidates.iter().any(|candidate| candidate == NAME));
        untrusted::question(ID, text);
        let found = untrusted::hosts(text, NAME);
        assert!(found.len() <= text.lines().count(), "more addresses than lines");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let resolver = b"search a.example b.example\nnameserver 10.0.0.10\noptions ndots:5 timeout:2\n".to_vec();
    let answer = vec![0, 0, 1, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 1];
    let hosts = b"# made by the kubelet\n127.0.0.1 localhost\nfd00::5 x Gateway.Example. # it\n".to_vec();
    vec![resolver, hosts, answer, vec![3, 0, 0], vec![0, 0, 2, 0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 12]]
}
