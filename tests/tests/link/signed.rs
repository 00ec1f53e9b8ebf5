//! Calls that the gateway has signed, on the supervisor's own port.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::call::{Claims, Header, Key};
use protocol::session::{FromGateway, Welcome};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use tests::control_plane::{self, token_of};
use tests::gateway::{Gateway, Session};
use tests::supervisor::Supervisor;
use tests::tasks::Api;
use tests::wait::wait_until;

use super::{SLOW, link_state, linked};

/// The gateway's clock, seconds: not the date of this machine, which must not matter.
const NOW: f64 = 1_000_000_000.0;

/// A key that signs whatever a test wants to be signed.
struct Signer(Ed25519KeyPair);

impl Signer {
    fn new() -> Signer {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("random numbers");
        Signer(Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("just made"))
    }

    fn key(&self) -> Key {
        Key { kid: "k-1".into(), x: URL_SAFE_NO_PAD.encode(self.0.public_key()) }
    }

    fn sign(&self, header: &Value, claims: &Claims) -> String {
        let part = |json: String| URL_SAFE_NO_PAD.encode(json);
        let signed = format!("{}.{}", part(header.to_string()), part(json!(claims).to_string()));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes())))
    }
}

fn claims(jti: &str) -> Claims {
    Claims { aud: "uid-1".into(), sub: "a-1".into(), iat: NOW + 1.0, exp: NOW + 61.0, jti: jti.into() }
}

/// A supervisor with no token file whose gateway has told this key, at `now` by its clock.
fn told(gateway: &Gateway, keys: Vec<Key>) -> (Supervisor, Api, Session) {
    let supervisor = linked(gateway).set("api-signed", "true").env("POD_NAME", "pod-1").env("POD_UID", "uid-1").start();
    let session = welcome(gateway, &supervisor, keys, NOW);
    let api = Api::of(&supervisor);
    (supervisor, api, session)
}

fn welcome(gateway: &Gateway, supervisor: &Supervisor, keys: Vec<Key>, now: f64) -> Session {
    let mut session = gateway.accept();
    let welcome = Welcome { now_ms: (now * 1e3) as i64, keys, ..Session::usual(SLOW) };
    session.send(&FromGateway::Welcome(Box::new(welcome)));
    wait_until("the session", || link_state(supervisor) == "connected");
    session
}

/// Status and detail of a call with this token.
fn call(api: &Api, token: &str) -> (u16, String) {
    let answer = api.clone().with_token(Some(token)).get("/dev-tasks");
    (answer.status(), answer.json()["detail"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_signed_call_counts_once_and_only_for_this_pod_and_its_time_by_the_gateways_clock() {
    let gateway = Gateway::new();
    let signer = Signer::new();
    let (_supervisor, api, _session) = told(&gateway, vec![signer.key()]);
    let header = json!(Header { alg: "EdDSA".into(), kid: "k-1".into() });
    let good = signer.sign(&header, &claims("good"));
    assert_eq!(call(&api, &good).0, 200);
    assert_eq!(call(&api, &good), (401, "the token was used; each call needs its own".into()));

    let over = Claims { iat: NOW - 60.0, exp: NOW - 1.0, ..claims("over") };
    let early = Claims { iat: NOW + 600.0, exp: NOW + 660.0, ..claims("early") };
    let long = Claims { exp: NOW + 122.0, ..claims("long") };
    let other = Claims { aud: "uid-2".into(), ..claims("other") };
    // What another agent gets that claims to be in this Pod.
    let liar = Claims { sub: "a-2".into(), ..claims("liar") };
    // By the date of this machine they are good.
    let here = SystemTime::now().duration_since(UNIX_EPOCH).expect("a date").as_secs_f64();
    let here = Claims { iat: here, exp: here + 60.0, ..claims("here") };
    let before = Claims { iat: NOW - 1.0, ..claims("before") };
    for (claims, why) in [
        (&over, "is over"),
        (&early, "of the future"),
        (&long, "more than 120 s"),
        (&here, "of the future"),
        (&other, "another agent or Pod"),
        (&liar, "another agent or Pod"),
        (&before, "before this supervisor began"),
    ] {
        let (status, detail) = call(&api, &signer.sign(&header, claims));
        assert!(status == 401 && detail.contains(why), "{}: {status} {detail}", claims.jti);
    }

    let forged = Signer::new().sign(&header, &claims("forged"));
    let (kid, hmac, none) =
        (json!({ "alg": "EdDSA", "kid": "k-2" }), json!({ "alg": "HS256", "kid": "k-1" }), json!({ "alg": "none" }));
    let (signed, _) = good.rsplit_once('.').expect("three parts");
    for (token, why) in [
        (forged, "signature"),
        (signer.sign(&kid, &claims("kid")), "key"),
        (signer.sign(&hmac, &claims("hmac")), "not the right one"),
        (signer.sign(&none, &claims("none")), "not the right one"),
        (format!("{signed}."), "signature"),
        ("nonsense".into(), "not the right one"),
        ("a.b.c".into(), "not the right one"),
        ("x".repeat(8_000), "not the right one"),
    ] {
        let (status, detail) = call(&api, &token);
        assert!(status == 401 && detail.contains(why), "{token}: {status} {detail}");
    }
    assert_eq!(call(&api, &signer.sign(&header, &claims("another"))).0, 200, "nothing of this has closed the door");
}

#[test]
fn after_a_restart_in_the_same_pod_no_call_of_before_counts_and_a_new_key_takes_the_place_of_the_old() {
    let gateway = Gateway::new();
    let (first, second) = (Signer::new(), Signer::new());
    let header = json!(Header { alg: "EdDSA".into(), kid: "k-1".into() });
    let (supervisor, api, session) = told(&gateway, vec![first.key()]);
    let kept = first.sign(&header, &claims("kept"));
    session.close(protocol::session::close::GOING_AWAY);
    wait_until("the session is over", || link_state(&supervisor) != "connected");
    assert_eq!(call(&api, &first.sign(&header, &claims("between"))).0, 200, "keys outlive their session");
    let session = welcome(&gateway, &supervisor, vec![second.key()], NOW + 5.0);
    assert_eq!(call(&api, &kept).0, 401);
    let new = Claims { iat: NOW + 6.0, exp: NOW + 66.0, ..claims("new") };
    assert_eq!(call(&api, &second.sign(&header, &new)).0, 200);
    drop(session);
    drop(supervisor);

    // Another supervisor, for which the clock has gone on.
    let supervisor =
        linked(&gateway).set("api-signed", "true").env("POD_NAME", "pod-1").env("POD_UID", "uid-1").start();
    let api = Api::of(&supervisor);
    assert_eq!(call(&api, &kept).0, 503, "no gateway has told its keys");
    let _session = welcome(&gateway, &supervisor, vec![first.key()], NOW + 10.0);
    let (status, detail) = call(&api, &kept);
    assert!(status == 401 && detail.contains("before this supervisor began"), "{status} {detail}");
}

/// Part 8 as a user sees it: the gateway's word opens the port of its sandbox, once, and nothing else does.
#[test]
fn a_user_gets_a_token_from_the_gateway_and_calls_the_sandbox_past_it() {
    let gateway = control_plane::Gateway::start();
    let supervisor = Supervisor::new();
    let token = supervisor.path("token");
    std::fs::write(&token, token_of("a")).expect("our own directory");
    let supervisor = supervisor
        .set("gateway-url", format!("ws://{}", gateway.address))
        .set("link-token-file", token)
        .set("agent-id", "a")
        .set("api-signed", "true")
        .agent(["sleep", "1000"])
        .start();
    wait_until("the session", || link_state(&supervisor) == "connected");
    let sign = || gateway.api().call("POST", "/v1/sandboxes/a/call-tokens", &[], b"");
    let answer = sign();
    assert_eq!((answer.status(), &answer.json()["audience"]), (201, &json!("a")));
    let token = answer.json()["token"].as_str().expect("text").to_owned();
    let api = Api::of(&supervisor);
    assert_eq!(call(&api, &token).0, 200);
    assert_eq!(call(&api, &token).0, 401);
    assert_eq!(gateway.api().with_token(None).call("POST", "/v1/sandboxes/a/call-tokens", &[], b"").status(), 401);
    assert!(!supervisor.stderr.text().contains(&token) && !gateway.stderr.text().contains(&token));
    drop(supervisor);
    wait_until("it is away", || sign().status() == 503);
    assert_eq!(gateway.api().call("POST", "/v1/sandboxes/nobody/call-tokens", &[], b"").status(), 404);
}
