//! Tokens of service accounts that are shown to the gateway, and what the cluster says of them: its keys, or its review. Any text as a
//! token, any claims under the cluster's own signature, any keys.

use std::sync::LazyLock;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gateway::untrusted::{self, Keys, Owner};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

use super::{text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "identity", longest: 2048, run, seeds };

/// The key of RFC 7515, A.3: everybody has its private half.
const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const D: &str = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI";

const ISSUER: &str = "https://cluster.example";
const AUDIENCE: &str = "gateway";
/// Clocks of two machines, and this run's own time.
const LEEWAY: f64 = 60.0;

struct Cluster {
    pair: EcdsaKeyPair,
    keys: Keys,
    /// Signed, and good for long.
    token: String,
}

static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).expect("as the RFC has it");
    let (private, public) = (decode(D), [vec![4], decode(X), decode(Y)].concat());
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &private, &public, &SystemRandom::new());
    let pair = pair.expect("a pair");
    let set =
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "k", "alg": "ES256", "use": "sig", "x": X, "y": Y }] });
    let keys = Keys::read(&discovery(), &set.to_string()).expect("one key");
    let token = sign(&pair, &good().to_string());
    assert!(keys.owner(&token, AUDIENCE).is_some(), "a good token counts");
    Cluster { pair, keys, token }
});

fn discovery() -> String {
    json!({ "issuer": ISSUER }).to_string()
}

fn good() -> Value {
    let pod = json!({ "namespace": "hive-sandbox", "pod": { "name": "a", "uid": "u" } });
    json!({ "iss": ISSUER, "aud": [AUDIENCE], "exp": 4_000_000_000_u64, "nbf": 1, "kubernetes.io": pod })
}

fn sign(pair: &EcdsaKeyPair, claims: &str) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", encode(br#"{"alg":"ES256","kid":"k"}"#), encode(claims.as_bytes()));
    let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).expect("random numbers");
    format!("{signed}.{}", encode(signature.as_ref()))
}

fn run(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Cluster { pair, keys, token } = &*CLUSTER;
    assert_eq!(keys.owner(text, AUDIENCE), None, "nobody has signed it");
    if let Some(theirs) = Keys::read(&discovery(), text)
        && theirs.owner(token, AUDIENCE).is_some()
        && let Ok(set) = serde_json::from_str::<Value>(text)
    {
        let ours = |key: &Value| key["x"] == X && key["y"] == Y;
        assert!(set["keys"].as_array().is_some_and(|keys| keys.iter().any(ours)), "signed by a key that is not there");
    }
    Keys::read(text, r#"{"keys":[]}"#);
    if let Some(Owner { namespace, .. }) = untrusted::reviewed(text, AUDIENCE) {
        let status = serde_json::from_str::<Value>(text);
        assert!(status.is_err() || status.is_ok_and(|status| status["authenticated"] == true));
        assert!(!namespace.contains(':'));
    }
    // Signing is what takes time here, and what is no object has no claims.
    if text.starts_with('{')
        && let Some(owner) = keys.owner(&sign(pair, text), AUDIENCE)
        // A number that no double has may stand in a claim that nobody reads.
        && let Ok(claims) = serde_json::from_str(text)
    {
        hold(&owner, &claims);
    }
}

/// To whoever has these claims under the cluster's signature.
fn hold(owner: &Owner, claims: &Value) {
    let names = |claim: &Value, name: &str| {
        claim == name || claim.as_array().is_some_and(|all| all.iter().any(|one| one == name))
    };
    assert!(names(&claims["iss"], ISSUER) && names(&claims["aud"], AUDIENCE), "it is for somebody else");
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_secs_f64();
    let time = |name: &str| claims[name].as_f64();
    assert!(time("exp").is_some_and(|exp| exp > now - LEEWAY), "it is over, or never ends");
    assert!(time("nbf").is_none_or(|nbf| nbf < now + LEEWAY), "it is of the future");
    let bound = &claims["kubernetes.io"];
    let pod = |field: &str| bound["pod"][field].as_str();
    assert_eq!(bound["namespace"], owner.namespace.as_str());
    assert_eq!((pod("name"), pod("uid")), (Some(owner.pod.as_str()), Some(owner.uid.as_str())));
}

fn seeds() -> Vec<Vec<u8>> {
    let review = json!({
        "authenticated": true,
        "audiences": [AUDIENCE],
        "user": {
            "username": "system:serviceaccount:hive-sandbox:agent",
            "extra": {
                "authentication.kubernetes.io/pod-name": ["a"],
                "authentication.kubernetes.io/pod-uid": ["u"],
            },
        },
    });
    let rsa = json!({ "kty": "RSA", "kid": "k", "alg": "RS256", "use": "sig", "n": "AQAB", "e": "AQAB" });
    let shared = json!({ "kty": "oct", "kid": "k", "alg": "HS256", "k": X });
    let point = json!({ "kty": "EC", "crv": "P-256", "kid": "k", "x": X, "y": Y });
    let edwards = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k", "x": X });
    [
        good(),
        json!({ "iss": ISSUER, "aud": AUDIENCE, "exp": 1e300, "nbf": "x", "kubernetes.io": { "namespace": "n", "pod": null } }),
        review,
        json!({ "keys": [rsa, shared] }),
        json!({ "keys": [point] }),
        json!({ "keys": [edwards] }),
        json!({ "issuer": ISSUER, "jwks_uri": "https://elsewhere.example" }),
    ]
    .iter()
    .map(|value| value.to_string().into_bytes())
    // {"alg":"none","kid":"k"} and {"alg":"HS256","kid":"k"}, as JSON Web Tokens have them.
    .chain(texts(&["eyJhbGciOiJub25lIiwia2lkIjoiayJ9.e30.", "eyJhbGciOiJIUzI1NiIsImtpZCI6ImsifQ.e30.AAAA"]))
    .collect()
}
