//! Tokens checked by the keys that the cluster publishes (OpenID Connect Discovery; KEP-1393): no call for a dial.
//!
//! Every service account may read them (`system:service-account-issuer-discovery`), so the gateway needs no right of its own.

use std::time::{Duration, Instant};

use axum::http::Request;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use kube::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::IdentityError;
use super::claims::{Bound, Claims};

/// How old keys may become: one that was taken back is believed for so long at most.
const OLD: Duration = Duration::from_secs(600);
/// A key that is not known is looked for this often, and so is a cluster that did not answer.
const AGAIN: Duration = Duration::from_secs(10);
/// What API servers sign with.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384];

/// The cluster's keys, as they were told last. Old ones are better than none while the API server is away.
pub(super) struct Keys {
    client: Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: Option<Known>,
    asked: Option<Instant>,
}

struct Known {
    issuer: String,
    keys: JwkSet,
}

impl Keys {
    /// Nobody is asked yet.
    pub(super) fn new(client: Client) -> Keys {
        Keys { client, state: Mutex::default() }
    }

    /// As they are now.
    pub(super) async fn learn(&self) -> Result<(), IdentityError> {
        let mut state = self.state.lock().await;
        state.asked = Some(Instant::now());
        state.known = Some(fetch(&self.client).await?);
        Ok(())
    }

    /// To whom the token is bound; `None` where another issuer has made it.
    pub(super) async fn check(&self, token: &str, audience: &str) -> Result<Option<Bound>, IdentityError> {
        let Ok(header) = decode_header(token) else { return Ok(None) };
        let kid = header.kid.unwrap_or_default();
        self.renew(&kid).await;
        let state = self.state.lock().await;
        let known = state.known.as_ref().ok_or(IdentityError::Unusable("keys are not known yet"))?;
        let Some(key) = known.keys.find(&kid) else { return Ok(None) };
        let key = DecodingKey::from_jwk(key).map_err(|_| IdentityError::Unusable("key cannot be used"))?;
        let mut validation = Validation::new(header.alg);
        validation.algorithms.retain(|algorithm| ALGORITHMS.contains(algorithm));
        validation.set_issuer(&[&known.issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_nbf = true;
        drop(state);
        let claims = decode::<Claims>(token, &key, &validation).map_err(|error| refusal(error.kind(), audience))?;
        claims.claims.bound().map(Some)
    }
}

impl Keys {
    /// Ask again where the keys are old, or do not have this one. Whoever comes meanwhile waits for the one who asks.
    async fn renew(&self, kid: &str) {
        let mut state = self.state.lock().await;
        let has = state.known.as_ref().is_some_and(|known| known.keys.find(kid).is_some());
        let due = if has { OLD } else { AGAIN };
        if state.asked.is_some_and(|asked| asked.elapsed() < due) {
            return;
        }
        state.asked = Some(Instant::now());
        match fetch(&self.client).await {
            Ok(known) => state.known = Some(known),
            Err(error) => super::log(&error),
        }
    }
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
    #[derive(Deserialize)]
    struct Discovery {
        issuer: String,
    }
    let discovery: Discovery = get(client, "/.well-known/openid-configuration").await?;
    // Not its `jwks_uri`, which may be an address that only the outside reaches.
    let keys = get(client, "/openid/v1/jwks").await?;
    Ok(Known { issuer: discovery.issuer, keys })
}

async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T, IdentityError> {
    let request = Request::get(path).body(Vec::new()).expect("a path of ours");
    let text = client.request_text(request).await.map_err(IdentityError::away("did not tell its keys"))?;
    serde_json::from_str(&text).map_err(|_| IdentityError::Unusable("keys cannot be read"))
}
