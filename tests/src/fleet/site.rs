//! The gateways of a run: one on SQLite, or several on one PostgreSQL, where one can be replaced while its sandboxes go on.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::looks;
use super::{Plan, id, plain, probes};
use tempfile::TempDir;

use crate::control_plane::{Builder, Gateway, token_of};
use crate::postgres::Postgres;
use crate::tls::Authority;
use crate::wait::{wait_for, wait_until};
use crate::{binaries, processes};

/// They end with this value, the database last.
pub(super) struct Site {
    pub(super) gateways: Vec<Gateway>,
    server: Option<Postgres>,
    /// Where sandboxes dial by TLS: the directory of the certificates, whom to believe, and the one gateway's own address. That of its
    /// [`Gateway`] is a door for clients then.
    tls: Option<(TempDir, Authority, SocketAddr)>,
}

impl Site {
    /// `None` where it needs PostgreSQL and this machine has none, which is printed.
    pub(super) fn start(plan: &Plan) -> Option<Site> {
        let server = if plan.needs_doors() { Some(Postgres::start()?) } else { None };
        let mut site = Site { gateways: Vec::new(), server, tls: None };
        if plan.tls {
            site.start_by_tls(plan);
        } else {
            (0..plan.gateways).for_each(|_| site.add(plan));
        }
        Some(site)
    }

    fn start_by_tls(&mut self, plan: &Plan) {
        let place = binaries::scratch();
        let authority = Authority::new(place.path(), "ca.pem");
        let (certificate, key) = authority.issue("127.0.0.1", place.path());
        let path = |path: &Path| path.display().to_string();
        let builder = self.build(plan).set("tls_cert_file", &path(&certificate)).set("tls_key_file", &path(&key));
        let mut gateway = builder.start();
        let address = gateway.address;
        gateway.address = plain::door(address, authority.client());
        self.gateways.push(gateway);
        self.tls = Some((place, authority, address));
    }

    /// Whom sandboxes have to believe, where they dial by TLS.
    pub(super) fn authority(&self) -> Option<&Path> {
        self.tls.as_ref().map(|(_, authority, _)| authority.file())
    }

    /// One more, which all others have seen on return.
    pub(super) fn add(&mut self, plan: &Plan) {
        self.start_one(plan);
        self.wait_together();
    }

    /// One more.
    pub(super) fn start_one(&mut self, plan: &Plan) {
        self.gateways.push(self.build(plan).start());
    }

    /// All have seen all others.
    pub(super) fn wait_together(&self) {
        if self.server.is_some() {
            let count = self.gateways.len() as f64;
            let sees_all = |gateway: &Gateway| gateway.metric("gateway_gateways") == count;
            wait_until("the gateways see each other", || self.gateways.iter().all(sees_all));
        }
    }

    fn build(&self, plan: &Plan) -> Builder {
        let builder = Gateway::build()
            .set("beat", &format!("{}ms", plan.beat().as_millis()))
            .set("admission_rate", &plan.rate.to_string())
            // Elsewhere those who move would be counted among those who come back.
            .set("balance_after", if plan.add { "10s" } else { "1h" })
            .set("grace", &format!("{}s", plan.grace().as_secs()))
            .set("log_level", "info");
        let ids = (0..plan.links).map(id).chain(probes::ids());
        let tokens: String = ids.map(|id| format!("{id} {}\n", token_of(&id))).collect();
        std::fs::write(builder.directory().join("sandboxes"), tokens).expect("our own directory");
        match &self.server {
            Some(server) => builder.among_several(&server.url()),
            None => builder,
        }
    }

    /// Where sandboxes dial.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        if let Some((_, _, address)) = &self.tls {
            return vec![*address];
        }
        self.gateways.iter().map(|gateway| gateway.address).collect()
    }

    /// KiB that they have in memory.
    pub(super) fn resident(&self) -> f64 {
        let of = |gateway: &Gateway| processes::resident_kib(gateway.pid());
        self.gateways.iter().map(of).sum()
    }

    /// Sessions that the first of them has, once all of them together have these and no probe's any more.
    #[track_caller]
    pub(super) fn first_has(&self, links: usize) -> f64 {
        let of = |gateway: &Gateway| gateway.metric("gateway_sessions");
        wait_until("the probes have gone", || self.gateways.iter().map(of).sum::<f64>() == links as f64);
        of(&self.gateways[0])
    }

    /// Sessions that they asked to move.
    pub(super) fn moves(&self) -> f64 {
        self.gateways.iter().map(|gateway| gateway.metric("gateway_moves_total")).sum()
    }

    /// Dials that they refused, all of which live.
    #[track_caller]
    pub(super) fn refused(&self) -> f64 {
        self.gateways.iter().map(refused_by).sum()
    }

    /// How many sandboxes of the fleet they call connected.
    pub(super) fn connected(&self) -> usize {
        looks::connected(&self.gateways[0].api(), 1000, || true).unwrap_or(0)
    }
}

/// The same of one that lives.
#[track_caller]
pub(super) fn refused_by(gateway: &Gateway) -> f64 {
    wait_for("a gateway says what it refused", || refused(gateway))
}

/// Dials that this one refused since it began, for whatever reason, and connections for which it had no place; `None` where it does not answer.
pub(super) fn refused(gateway: &Gateway) -> Option<f64> {
    let dials = gateway.sum("gateway_dials_refused_total")?;
    Some(dials + gateway.sum("gateway_connections_refused_total")?)
}

impl Plan {
    /// Sandboxes dial by a door that can be put before other gateways.
    pub(super) fn needs_doors(&self) -> bool {
        self.gateways > 1 || self.add || self.drain
    }

    /// P, as gateways tell it once they know the whole fleet.
    pub(super) fn window(&self) -> Duration {
        let rate = (self.rate * self.gateways) as f64;
        Duration::from_secs_f64((1.25 * self.links as f64 / rate).max(0.25))
    }

    /// T.
    pub(super) fn beat(&self) -> Duration {
        Duration::from_millis((1000 * self.links / super::BEATS).max(1000) as u64)
    }

    /// A gateway that stops says goodbye for three fifths of its grace, to half as many in a second as may begin in one.
    fn grace(&self) -> Duration {
        let goodbyes = 2.0 * (self.links / self.gateways) as f64 / self.rate as f64;
        Duration::from_secs_f64(25.0 + goodbyes * 5.0 / 3.0)
    }
}
