//! Tokens of calls past the session: any text, and any claims under a signature that is right.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::call::Claims;
use protocol::session::{FromGateway, Welcome};
use ring::signature::{Ed25519KeyPair, KeyPair};
use supervisor::untrusted;

use super::{text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "signed", longest: 1024, run, seeds };

const NOW_MS: i64 = 1_800_000_000_000;

static KEYS: LazyLock<(Ed25519KeyPair, Welcome)> = LazyLock::new(|| {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).expect("32 bytes");
    let key = URL_SAFE_NO_PAD.encode(pair.public_key());
    let welcome = serde_json::json!({
        "t": "welcome", "protocol": 1, "version": "0", "session": "s-1", "fence": 1, "next": {}, "pace": {}, "in_flight": 1,
        "now_ms": NOW_MS, "keys": [{"kid": "k", "x": key}],
    });
    match FromGateway::decode(&welcome.to_string()) {
        Ok(FromGateway::Welcome(welcome)) => (pair, *welcome),
        other => panic!("{other:?} is no welcome"),
    }
});

fn run(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let (pair, welcome) = &*KEYS;
    assert!(!untrusted::signed(text, welcome), "nobody has signed it");
    // Signing is what takes time here, and what is no object has no claims.
    if !text.starts_with('{') {
        return;
    }
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", encode(r#"{"alg":"EdDSA","typ":"JWT","kid":"k"}"#), encode(text));
    let signature = URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes()));
    if untrusted::signed(&format!("{signed}.{signature}"), welcome) {
        // A number that no machine has is none of ours in a claim that nobody asks for (RFC 7519, 4): so not as any value.
        let claims: Claims = serde_json::from_str(text).expect("claims");
        assert_eq!((claims.sub.as_str(), claims.aud.as_str()), ("agent", "pod"));
        assert!(claims.exp > NOW_MS as f64 / 1e3 && claims.exp - claims.iat <= 120.0, "it never ends");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"sub":"agent","aud":"pod","iat":1800000000,"exp":1800000060,"jti":"1"}"#,
        r#"{"sub":"agent","aud":"pod","iat":1800000000,"exp":1800000060,"jti":"1","other":1e999}"#,
        r#"{"sub":"agent","aud":"pod","iat":1e999,"exp":-1,"jti":""}"#,
        "a.b.c",
    ])
}
