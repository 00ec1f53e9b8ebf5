//! Signs calls past the session ([`protocol::call`]): whoever has such a token calls a sandbox's own port, once.
//!
//! The key is made at the start and is nowhere but in this process; sandboxes learn its public half with each welcome.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::call::{Claims, Header, Key};
use ring::error::Unspecified;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::Serialize;

/// How long a token is worth something, seconds.
const LIFE: f64 = 60.0;

/// The key.
pub struct Signer {
    pair: Ed25519KeyPair,
    kid: String,
    random: SystemRandom,
}

/// A token for one call.
pub struct Call {
    /// To be shown to the sandbox as a bearer token.
    pub token: String,
    /// When it is over, ms since 1970.
    pub expires_ms: i64,
}

impl Signer {
    /// A new key. `Err` where the machine has no random numbers.
    pub fn new() -> Result<Signer, Unspecified> {
        let random = SystemRandom::new();
        let document = Ed25519KeyPair::generate_pkcs8(&random)?;
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).map_err(|_| Unspecified)?;
        let kid = name(&random)?;
        Ok(Signer { pair, kid, random })
    }

    /// What sandboxes check with.
    pub fn key(&self) -> Key {
        Key { kid: self.kid.clone(), x: URL_SAFE_NO_PAD.encode(self.pair.public_key()) }
    }

    /// A call to the sandbox `id`, in the Pod that `audience` names.
    pub fn sign(&self, id: &str, audience: &str, now_ms: i64) -> Result<Call, Unspecified> {
        let header = Header { alg: Header::ALGORITHM.into(), kid: self.kid.clone() };
        let iat = now_ms as f64 / 1e3;
        let claims = Claims { aud: audience.into(), sub: id.into(), iat, exp: iat + LIFE, jti: name(&self.random)? };
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes()));
        Ok(Call { token: format!("{signed}.{signature}"), expires_ms: now_ms + (LIFE * 1e3) as i64 })
    }
}

fn part(value: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).expect("text and numbers"))
}

/// Nobody has had it before.
fn name(random: &SystemRandom) -> Result<String, Unspecified> {
    let mut bytes = [0; 16];
    random.fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
