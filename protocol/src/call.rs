//! Calls past the session: a token that the gateway signs for one call to one supervisor's port.
//!
//! It is a JSON Web Token (RFC 7519) with the one algorithm EdDSA over Ed25519 (RFC 8037). The keys that it is checked with
//! come in the gateway's welcome, so nothing has to be given out beforehand.

use serde::{Deserialize, Serialize};

use crate::session::Pod;

/// The longest time from `iat` to `exp`, seconds.
pub const LONGEST: f64 = 120.0;
/// The longest `jti`, bytes.
pub const MAX_JTI: usize = 64;

/// The first part of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// `EdDSA`.
    pub alg: String,
    /// Which [`Key`].
    pub kid: String,
}

impl Header {
    /// The only algorithm.
    pub const ALGORITHM: &str = "EdDSA";
}

/// What a token says. Times are seconds since 1970, with fractions, by the gateway's clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// For whom: the Pod's uid, or the agent's id where there is no Pod. What a supervisor says of its Pod nobody has checked,
    /// so this alone opens nothing.
    pub aud: String,
    /// The agent's id, as the gateway knows it by its token.
    pub sub: String,
    /// When it was signed.
    pub iat: f64,
    /// From then on it is worth nothing.
    pub exp: f64,
    /// Unique: a token counts once.
    pub jti: String,
}

/// A public key of the gateway, named as in a JSON Web Key (RFC 7517).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its name.
    pub kid: String,
    /// Its 32 bytes, base64url without padding.
    pub x: String,
}

/// Whom a call must be for, [`Claims::aud`].
pub fn audience<'a>(pod: Option<&'a Pod>, agent_id: &'a str) -> &'a str {
    pod.map(|pod| pod.uid.as_str()).filter(|uid| !uid.is_empty()).unwrap_or(agent_id)
}
