//! Calls that the gateway has signed for this Pod ([`protocol::call`]).
//!
//! Promises: only Ed25519 by a key of the newest welcome; only for this agent, which the gateway has told from others by its
//! token, and this Pod's uid; never for longer than 120 s after it was
//! signed, by the gateway's clock; once, also across a restart in the same Pod. One algorithm is checked here, so that no
//! library of many is in every Pod.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::call::{Claims, Header, LONGEST, MAX_JTI};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::link::Trust;

/// Tokens of the last two minutes; each takes some 50 bytes.
const REMEMBERED: usize = 4096;
/// The gateway tells its time in a frame that travels, and its clock may be set while a session lasts.
const LEEWAY: f64 = 30.0;

/// Checks signed calls.
#[derive(Debug)]
pub struct Signed {
    agent_id: String,
    audience: String,
    trust: watch::Receiver<Option<Trust>>,
    used: Mutex<Used>,
}

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsigned {
    /// It is not of this kind.
    Shape,
    /// There has been no session yet.
    NoKey,
    /// Another key, or another gateway's.
    Key,
    /// Changed on the way, or made up.
    Signature,
    /// For another agent or Pod.
    Audience,
    /// Over, of the future, or made for too long.
    Time,
    /// Signed for the supervisor before this one.
    Before,
    /// It was used.
    Used,
    /// Too many calls in two minutes.
    Many,
}

impl Unsigned {
    /// For the caller.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Unsigned::Shape => "the bearer token is not the right one",
            Unsigned::NoKey => "no gateway has told its keys yet: call again once the session is there",
            Unsigned::Key => "the token's key is none of the gateway's",
            Unsigned::Signature => "the token's signature is not the gateway's",
            Unsigned::Audience => "the token is for another agent or Pod",
            Unsigned::Time => "the token is over, of the future, or made for more than 120 s",
            Unsigned::Before => "the token was signed before this supervisor began",
            Unsigned::Used => "the token was used; each call needs its own",
            Unsigned::Many => "too many signed calls within two minutes",
        }
    }
}

impl Signed {
    /// For calls to this agent, in the Pod of this uid.
    pub fn new(agent_id: String, audience: String, trust: watch::Receiver<Option<Trust>>) -> Signed {
        Signed { agent_id, audience, trust, used: Mutex::default() }
    }

    /// Whether this call is the gateway's word. A token counts once.
    pub(crate) fn verify(&self, token: &str) -> Result<(), Unsigned> {
        let parts = Parts::of(token).ok_or(Unsigned::Shape)?;
        let trust = self.trust.borrow().clone().filter(Trust::has_keys).ok_or(Unsigned::NoKey)?;
        let claims = parts.claims(&trust)?;
        if claims.sub != self.agent_id || claims.aud != self.audience {
            return Err(Unsigned::Audience);
        }
        let now = trust.now_ms() as f64 / 1e3;
        // Also where a number is none.
        let in_time = claims.iat <= now + LEEWAY && now < claims.exp && claims.exp - claims.iat <= LONGEST;
        if !in_time {
            return Err(Unsigned::Time);
        }
        if claims.iat * 1e3 < trust.since_ms() as f64 {
            return Err(Unsigned::Before);
        }
        self.used.lock().unwrap_or_else(PoisonError::into_inner).take(&claims, now)
    }
}

/// A token in its pieces.
struct Parts<'t> {
    header: Header,
    signed: &'t str,
    payload: &'t str,
    signature: Vec<u8>,
}

impl Parts<'_> {
    fn of(token: &str) -> Option<Parts<'_>> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let header: Header = json(header)?;
        if header.alg != Header::ALGORITHM {
            return None;
        }
        Some(Parts { header, signed, payload, signature: URL_SAFE_NO_PAD.decode(signature).ok()? })
    }

    /// Read only once the signature is found to be right.
    fn claims(&self, trust: &Trust) -> Result<Claims, Unsigned> {
        let key = trust.key(&self.header.kid).ok_or(Unsigned::Key)?;
        UnparsedPublicKey::new(&ED25519, key)
            .verify(self.signed.as_bytes(), &self.signature)
            .map_err(|_| Unsigned::Signature)?;
        json(self.payload).filter(|claims: &Claims| (1..=MAX_JTI).contains(&claims.jti.len())).ok_or(Unsigned::Shape)
    }
}

fn json<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// The tokens that were used and are not over, by a digest of their `jti`.
#[derive(Debug, Default)]
struct Used(HashMap<[u8; 16], f64>);

impl Used {
    fn take(&mut self, claims: &Claims, now: f64) -> Result<(), Unsigned> {
        let mut name = [0; 16];
        name.copy_from_slice(&Sha256::digest(claims.jti.as_bytes())[..16]);
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, exp| *exp > now);
        }
        if self.0.contains_key(&name) {
            return Err(Unsigned::Used);
        }
        if self.0.len() >= REMEMBERED {
            return Err(Unsigned::Many);
        }
        self.0.insert(name, claims.exp);
        Ok(())
    }
}
