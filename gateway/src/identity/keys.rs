//! Tokens checked by the keys that the cluster publishes (OpenID Connect Discovery; KEP-1393): no call for a dial.
//!
//! Every service account may read them (`system:service-account-issuer-discovery`), so the gateway needs no right of its own.
//! Promises: a token whose key is known is checked at once, whatever the API server does; one whose key is not known makes the keys
//! be read again, by one at a time and every 10 s at most, and whoever goes meanwhile stops nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::Request;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use kube::Client;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::IdentityError;
use super::claims::{Bound, Claims};

/// How old keys may become: one that was taken back is believed for so long at most, while the API server answers.
const OLD: Duration = Duration::from_secs(600);
/// Between two attempts to read them.
const AGAIN: Duration = Duration::from_secs(10);
/// For one attempt.
const PATIENCE: Duration = Duration::from_secs(10);
/// Clocks of two machines.
const LEEWAY: u64 = 10;
/// What API servers sign with.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384];

/// The cluster's keys, as they were told last.
#[derive(Clone)]
pub(super) struct Keys(Arc<Inner>);

struct Inner {
    client: Client,
    known: Mutex<Option<Arc<Known>>>,
    /// When the last attempt ended; held by who makes one.
    tried: tokio::sync::Mutex<Option<Instant>>,
}

/// What the cluster has published.
pub(crate) struct Known {
    issuer: String,
    keys: JwkSet,
    /// Keys beside these that are of a kind that is not known.
    strange: usize,
    at: Instant,
}

impl Keys {
    /// They are being read.
    pub(super) fn new(client: Client) -> Keys {
        let keys = Keys(Arc::new(Inner { client, known: Mutex::default(), tried: tokio::sync::Mutex::default() }));
        tokio::spawn(keys.clone().renew());
        keys
    }

    /// To whom the token is bound; `None` where another issuer has made it.
    pub(super) async fn check(&self, token: &str, audience: &str) -> Result<Option<Bound>, IdentityError> {
        let Ok(header) = decode_header(token) else { return Ok(None) };
        self.with(kid(&header)).await?.bound(&header, token, audience)
    }

    /// With the key of that name, where the cluster has it.
    async fn with(&self, kid: &str) -> Result<Arc<Known>, IdentityError> {
        match self.known().filter(|known| known.keys.find(kid).is_some()) {
            Some(known) if known.at.elapsed() < OLD => {}
            Some(_) => drop(tokio::spawn(self.clone().renew())),
            // A task of its own goes on when this caller goes.
            None => drop(tokio::spawn(self.clone().renew()).await),
        }
        self.known().ok_or(IdentityError::Unusable("keys are not known yet"))
    }

    /// Read them, unless that was just tried. Old ones are better than none.
    async fn renew(self) {
        let mut tried = self.0.tried.lock().await;
        if tried.is_some_and(|at| at.elapsed() < AGAIN) {
            return;
        }
        let silent = |_| Err(IdentityError::Unusable("keys were not told in time"));
        match timeout(PATIENCE, fetch(&self.0.client)).await.unwrap_or_else(silent) {
            Ok(known) => {
                let before = self.lock().replace(Arc::new(known)).map_or(0, |before| before.strange);
                self.tell_of_strange(before);
            }
            Err(error) => super::log(&error),
        }
        *tried = Some(Instant::now());
    }

    /// Once, and not at each reading.
    fn tell_of_strange(&self, before: usize) {
        let strange = self.known().map_or(0, |known| known.strange);
        if strange != before {
            tracing::warn!(
                strange,
                "so many of the cluster's keys are of a kind that is not known: nobody is believed by them"
            );
        }
    }

    fn known(&self) -> Option<Arc<Known>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Known>>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// From its discovery document and its set of keys.
    pub(crate) fn read(discovery: &str, keys: &str) -> Result<Known, IdentityError> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
        }
        let wrong = |_| IdentityError::Unusable("keys cannot be read");
        // One of a kind that is not known leaves the others as they are (RFC 7517, 5).
        #[derive(Deserialize)]
        struct Published {
            keys: Vec<Value>,
        }
        let Discovery { issuer } = serde_json::from_str(discovery).map_err(wrong)?;
        let Published { keys } = serde_json::from_str(keys).map_err(wrong)?;
        let published = keys.len();
        let keys: Vec<Jwk> = keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect();
        Ok(Known { issuer, strange: published - keys.len(), keys: JwkSet { keys }, at: Instant::now() })
    }

    /// To whom a token with this header is bound; `None` where another issuer has made it.
    pub(crate) fn bound(&self, header: &Header, token: &str, audience: &str) -> Result<Option<Bound>, IdentityError> {
        let Some(key) = self.keys.find(kid(header)) else { return Ok(None) };
        let key = DecodingKey::from_jwk(key).map_err(|_| IdentityError::Unusable("key cannot be used"))?;
        let mut validation = Validation::new(header.alg);
        validation.algorithms.retain(|algorithm| ALGORITHMS.contains(algorithm));
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        let claims = decode::<Claims>(token, &key, &validation).map_err(|error| refusal(error.kind(), audience))?;
        claims.claims.bound().map(Some)
    }
}

fn kid(header: &Header) -> &str {
    header.kid.as_deref().unwrap_or_default()
}

fn refusal(kind: &ErrorKind, audience: &str) -> IdentityError {
    IdentityError::refused(match kind {
        ErrorKind::ExpiredSignature => "the service account's token is over".to_owned(),
        ErrorKind::ImmatureSignature => "the service account's token is of the future: compare the clocks".to_owned(),
        ErrorKind::InvalidAudience => format!("the service account's token is not for audience {audience}"),
        ErrorKind::InvalidIssuer => "the service account's token is of another cluster".to_owned(),
        _ => "the service account's token is not one of this cluster for a Pod".to_owned(),
    })
}

async fn fetch(client: &Client) -> Result<Known, IdentityError> {
    let discovery = get(client, "/.well-known/openid-configuration").await?;
    // Not its `jwks_uri`, which may be an address that only the outside reaches.
    Known::read(&discovery, &get(client, "/openid/v1/jwks").await?)
}

async fn get(client: &Client, path: &str) -> Result<String, IdentityError> {
    let request = Request::get(path).body(Vec::new()).expect("a path of ours");
    client.request_text(request).await.map_err(IdentityError::away("did not tell its keys"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_kind_that_is_not_known_leaves_the_others_as_they_are() {
        let new = r#"{ "kty": "AKP", "kid": "new", "alg": "ML-DSA-44", "pub": "AQAB" }"#;
        let old = r#"{ "kty": "RSA", "kid": "old", "alg": "RS256", "use": "sig", "n": "AQAB", "e": "AQAB" }"#;
        let read = |keys: &str| Known::read(r#"{ "issuer": "https://cluster.example" }"#, keys);
        let known = read(&format!(r#"{{ "keys": [{new}, {old}] }}"#)).expect("one key");
        assert!(known.keys.find("old").is_some() && known.keys.find("new").is_none());
        // Whatever was known before was taken back then.
        assert!(read(&format!(r#"{{ "keys": [{new}] }}"#)).expect("none").keys.keys.is_empty());
    }
}
