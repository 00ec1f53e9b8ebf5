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
/// A key that is not known is looked for this often.
const AGAIN: Duration = Duration::from_secs(10);
/// What API servers sign with.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384];

/// The cluster's keys.
pub(super) struct Keys {
    client: Client,
    known: Mutex<Known>,
}

struct Known {
    issuer: String,
    keys: JwkSet,
    at: Instant,
}

impl Keys {
    /// As they are now.
    pub(super) async fn fetch(client: Client) -> Result<Keys, IdentityError> {
        let known = Mutex::new(fetch(&client).await?);
        Ok(Keys { client, known })
    }

    /// To whom the token is bound; `None` where another issuer has made it.
    pub(super) async fn check(&self, token: &str, audience: &str) -> Result<Option<Bound>, IdentityError> {
        let Ok(header) = decode_header(token) else { return Ok(None) };
        let kid = header.kid.unwrap_or_default();
        let mut known = self.known.lock().await;
        let wanted = if known.keys.find(&kid).is_some() { OLD } else { AGAIN };
        if known.at.elapsed() >= wanted {
            // Old keys are better than none while the API server is away.
            match fetch(&self.client).await {
                Ok(new) => *known = new,
                Err(error) => {
                    super::log(&error);
                    known.at = Instant::now();
                }
            }
        }
        let Some(key) = known.keys.find(&kid) else { return Ok(None) };
        let unusable = |_| IdentityError::Unusable("public key");
        let key = DecodingKey::from_jwk(key).map_err(unusable)?;
        let mut validation = Validation::new(header.alg);
        validation.algorithms.retain(|algorithm| ALGORITHMS.contains(algorithm));
        validation.set_issuer(&[&known.issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_nbf = true;
        drop(known);
        let claims = decode::<Claims>(token, &key, &validation).map_err(|error| refusal(error.kind(), audience))?;
        claims.claims.bound().map(Some)
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
    Ok(Known { issuer: discovery.issuer, keys, at: Instant::now() })
}

async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T, IdentityError> {
    let request = Request::get(path).body(Vec::new()).expect("a path of ours");
    let text = client.request_text(request).await.map_err(IdentityError::away("did not tell its keys"))?;
    serde_json::from_str(&text).map_err(|_| IdentityError::Unusable("keys"))
}
