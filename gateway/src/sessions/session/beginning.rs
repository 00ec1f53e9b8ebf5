//! From the upgrade to the welcome: who it is, its fence in the store, its place among those that are here.

use std::sync::Arc;
use std::time::Duration;

use protocol::session::{FromGateway, Gap, Hello, Pace, Sum, Welcome, close};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::Session;
use crate::awake::wall_ms;
use crate::lease;
use crate::registry::Live;
use crate::sessions::end::End;
use crate::sessions::outbox::Outbox;
use crate::sessions::under_way::{IN_FLIGHT, UnderWay};
use crate::sessions::upgrade::Who;
use crate::sessions::wire::{Event, Wire};
use crate::sessions::{Sessions, drain, hello, sequence};
use crate::store::{Begin, Begun, NotBegun, UNTIL};

/// From the upgrade to the hello.
const HELLO: Duration = Duration::from_secs(5);

impl<'p> Session<'p> {
    /// From the hello on; the welcome is the first thing to be sent.
    pub(super) async fn begin<S: AsyncRead + AsyncWrite + Unpin>(
        part: &'p Sessions,
        who: Who,
        wire: &mut Wire<S>,
    ) -> Result<Session<'p>, End> {
        let sandbox = &who.sandbox;
        let text = tokio::time::timeout(HELLO, first_text(wire)).await;
        let text = text.map_err(|_| End::close(close::TIMEOUT, "no hello within 5 s"))??;
        let mut received = Sum::default();
        received.add(text.as_bytes());
        let (hello, protocol) = hello::read(&text, sandbox)?;
        let _beginning = part.admission.begin();
        let now_ms = wall_ms();
        let begin = Begin {
            sandbox: sandbox.clone(),
            token: who.token.clone(),
            hello: protocol::session::encode(&hello),
            epoch: hello.log_epoch.clone(),
            applied: hello.applied,
            owner: part.lease.id(),
            now_ms,
            until: Instant::now() + UNTIL,
        };
        let owner = begin.owner.clone();
        let lost = || End::close(close::STORE, lease::LOST);
        if part.lease.is_lost() {
            return Err(lost());
        }
        // The fence is in force before anybody is welcomed.
        let begun = part.store.write(begin).await?.map_err(|why| match why {
            NotBegun::Lease => lost(),
            NotBegun::Token => unknown(),
        })?;
        let streams = hello.capabilities.iter().any(|capability| capability == "stream");
        let live = Arc::new(Live::new(sandbox.clone(), begun.fence, now_ms, streams));
        let mut session = Session {
            part,
            orders: live.orders(),
            live,
            owner,
            outbox: Outbox::default(),
            epoch: hello.log_epoch.clone(),
            next: begun.next.clone(),
            under_way: UnderWay::default(),
            commanded: hello.applied,
            applied: hello.applied,
            told_of: 0,
            received,
            sent: Sum::default(),
            window: part.admission.window(),
            heard_ms: part.awake.now(),
        };
        session.mend(&hello).await?;
        if !part.registry.enter(&session.live) {
            return Err(End::fenced());
        }
        if let Err(end) = session.still_counts(&who).await {
            session.over(&end).await;
            return Err(end);
        }
        // A drain that began meanwhile has asked only those that it saw.
        if *part.draining.borrow() {
            session.live.order(drain::late(part));
        }
        tracing::info!(sandbox, fence = begun.fence, version = hello.version, "a session began");
        session.outbox.welcome = Some(FromGateway::Welcome(Box::new(session.welcome(protocol, begun))));
        Ok(session)
    }

    /// Now that whatever ends sessions finds it: what ended before that has told nobody.
    async fn still_counts(&self, who: &Who) -> Result<(), End> {
        if self.part.lease.id() != self.owner {
            return Err(End::close(close::STORE, lease::LOST));
        }
        match &who.token {
            Some(token) if self.part.store.sandbox_of_token(token).await?.is_none() => Err(unknown()),
            _ => Ok(()),
        }
    }

    /// A gap for what only the store that is no more had.
    async fn mend(&mut self, hello: &Hello) -> Result<(), End> {
        for (class, from, to) in hello::lost_here(hello, &self.next) {
            tracing::warn!(sandbox = self.live.sandbox, class = class.name(), from, to, "this store has lost records");
            let gap = Gap { class, from, to, bytes: 0, reason: "store".into() };
            let (pieces, next) = sequence::of_gap(from, gap)?;
            self.append(class, pieces, next).await?;
        }
        Ok(())
    }

    fn welcome(&self, protocol: u32, begun: Begun) -> Welcome {
        let millis = |duration: Duration| Some(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        Welcome {
            protocol,
            version: env!("CARGO_PKG_VERSION").into(),
            capabilities: vec!["stream".into()],
            session: format!("s-{}", begun.fence),
            fence: begun.fence,
            next: self.next.clone(),
            d: None,
            pace: Pace {
                beat_ms: millis(self.part.beat),
                phase_ms: millis(self.part.next_phase()),
                window_ms: millis(self.window),
            },
            in_flight: IN_FLIGHT as u64,
            now_ms: wall_ms(),
            keys: vec![self.part.signer.key()],
        }
    }
}

/// It was deleted since its token was shown, or has another one.
fn unknown() -> End {
    End::close(close::UNAUTHENTICATED, "the token counts no more")
}

async fn first_text<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> Result<String, End> {
    loop {
        match wire.event(true).await? {
            Event::Text(text) => return Ok(text.to_string()),
            Event::Binary(_) => return Err(End::malformed("the first message is binary")),
            Event::Sign | Event::Sent => {}
        }
    }
}
