//! Secrets are replaced while records flow: the gateway's certificate, the authority that vouches for it, and the sandboxes' tokens. Both
//! sides know the new one before the old one goes, so nothing is lost and everybody comes back; by a certificate that nobody
//! vouches for, and by plain text, nobody does.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use super::account::Account;
use super::chance::Chance;
use super::kills::DOUBTS;
use super::load::{Sandbox, Settings};
use tempfile::TempDir;

use crate::balancer::Balancer;
use crate::bench::Line;
use crate::control_plane::{Gateway, token_of};
use crate::tls::Authority;
use crate::wait::{LONG, within};
use crate::{binaries, http};

/// Each has a supervisor.
const SANDBOXES: [&str; 2] = ["a", "b"];
/// As the sandboxes call their gateway.
const NAME: &str = "127.0.0.1";
/// So often each of them tries in vain while the gateway shows a certificate that nobody vouches for.
const DIALS: usize = 3;

/// So many rotations.
pub fn measure(rotations: usize) -> Vec<Line> {
    let mut chance = Chance::seeded(0xbb67_ae85_84ca_a73b);
    let mut site = Site::start();
    let (mut away, mut believed, mut shown) = (0, 0, 0);
    for round in 0..rotations {
        chance.pause(300);
        match round % 4 {
            0 => site.certificate(),
            1 => site.authority(round),
            2 => site.tokens(round),
            _ => {
                let (begun, dials) = site.stranger(round);
                believed += begun;
                shown += dials;
            }
        }
        // New secrets are for new sessions.
        if chance.below(2) == 0 {
            site.gateway.kill();
            site.gateway.start_again();
        } else {
            site.sandboxes[round % SANDBOXES.len()].kill_and_start_again();
        }
        away += usize::from(!site.all_are_there());
    }
    let plain = site.front.plain();
    let faults = format!("{rotations} rotations of certificates, authorities and tokens");
    let mut account = Account::default();
    let (sandboxes, gateway) = (&mut site.sandboxes, &mut site.gateway);
    let mut plain_again = false;
    account.settle_by(sandboxes, |id| {
        // Its API is asked without TLS.
        if !std::mem::replace(&mut plain_again, true) {
            gateway.kill();
            ["tls_cert_file", "tls_key_file"].into_iter().for_each(|name| gateway.unset(name));
            gateway.start_again();
        }
        gateway.events(id)
    });
    let mut lines = account.lines(&faults);
    lines.push(account.gaps(&faults, DOUBTS));
    lines.push(Line::new(format!("times that not all came back in {faults}"), 0.0, away as f64, "rotations"));
    let stranger = "a certificate that nobody vouches for";
    lines.push(Line::new(format!("sessions by {stranger}, in {faults}"), 0.0, believed as f64, "sessions"));
    // One for each time that it is shown.
    let least = (rotations / 4) as f64;
    lines.push(Line::at_least(format!("dials that met {stranger}, in {faults}"), least, shown as f64, "dials"));
    lines.push(Line::new(format!("dials without TLS in {faults}"), 0.0, plain as f64, "dials"));
    lines
}

struct Site {
    gateway: Gateway,
    front: Balancer,
    sandboxes: [Sandbox; 2],
    authority: Authority,
    /// Of what the sandboxes believe, where no agent may write.
    believed: TempDir,
}

impl Site {
    fn start() -> Site {
        // All of a long run.
        let builder = Gateway::build().set("events_keep_count", "10000000");
        let place = builder.directory().to_path_buf();
        let authority = Authority::new(&place, "authority-0");
        let (certificate, key) = authority.issue(NAME, &place);
        let text = |path: &Path| path.display().to_string();
        let gateway = builder.set("tls_cert_file", &text(&certificate)).set("tls_key_file", &text(&key)).start();
        let believed = binaries::scratch();
        let bundle = believed.path().join("bundle");
        replace(&bundle, &fs::read(authority.file()).expect("our own file"));
        let front = Balancer::before(&[gateway.address]);
        let settings = || Settings::default().set("link-ca-file", &bundle);
        let sandboxes = SANDBOXES.map(|id| Sandbox::start_with(id, &format!("wss://{}", front.address), settings()));
        Site { gateway, front, sandboxes, authority, believed }
    }

    fn place(&self) -> PathBuf {
        self.gateway.directory().to_path_buf()
    }

    /// Whoever is cut off again and again waits for up to a minute (docs/features/link.md).
    fn all_are_there(&self) -> bool {
        let there = || sessions(&self.gateway, &self.authority) == SANDBOXES.len() as f64;
        within(2 * LONG, || there().then_some(())).is_some()
    }

    /// Another certificate of the same authority.
    fn certificate(&self) {
        issue(&self.authority, &self.place());
    }

    /// Another authority: its clients believe both, until the gateway has a certificate of the new one.
    fn authority(&mut self, round: usize) {
        let (place, bundle) = (self.place(), self.believed.path().join("bundle"));
        let new = Authority::new(&place, &format!("authority-{}", round + 1));
        let both = [&self.authority, &new].map(|authority| fs::read(authority.file()).expect("our own file")).concat();
        replace(&bundle, &both);
        issue(&new, &place);
        replace(&bundle, &fs::read(new.file()).expect("our own file"));
        self.authority = new;
    }

    /// Other tokens: the gateway takes both, until the sandboxes have the new ones.
    fn tokens(&mut self, round: usize) {
        let file = self.place().join("sandboxes");
        let new = |id: &str| format!("{}-{round}", token_of(id));
        let old = fs::read_to_string(&file).expect("our own file");
        let only_new = SANDBOXES.map(|id| format!("{id} {}\n", new(id))).concat();
        replace(&file, format!("{old}{only_new}").as_bytes());
        for sandbox in &self.sandboxes {
            replace(&sandbox.token_file(), new(sandbox.id).as_bytes());
        }
        replace(&file, only_new.as_bytes());
    }

    /// For a moment the gateway shows a certificate that nobody vouches for; how many sessions began by it, of how many dials.
    fn stranger(&mut self, round: usize) -> (usize, usize) {
        let place = self.place();
        let stranger = Authority::new(&place, &format!("stranger-{round}"));
        issue(&stranger, &place);
        self.gateway.kill();
        self.gateway.start_again();
        let before = self.front.taken();
        let dials = || self.front.taken() - before;
        let begun = || sessions(&self.gateway, &stranger) > 0.0;
        let _ = within(LONG, || (begun() || dials() >= DIALS * SANDBOXES.len()).then_some(()));
        let seen = (usize::from(begun()), dials());
        issue(&self.authority, &place);
        seen
    }
}

/// Sessions that the gateway has, by its own metric; none where it does not answer by a certificate of this authority.
fn sessions(gateway: &Gateway, authority: &Authority) -> f64 {
    let ask = || {
        let mut stream = authority.connect(NAME, TcpStream::connect(gateway.address)?);
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        // The end may come without the farewell of TLS.
        let _ = stream.read_to_string(&mut text);
        std::io::Result::Ok(text)
    };
    http::metric(&ask().unwrap_or_default(), "gateway_sessions").unwrap_or(0.0)
}

fn issue(authority: &Authority, place: &Path) {
    authority.issue(NAME, place);
}

/// As the kubelet does: another file under the same name.
fn replace(path: &Path, bytes: &[u8]) {
    let next = path.with_extension("next");
    fs::write(&next, bytes).and_then(|()| fs::rename(&next, path)).expect("our own directory");
}
