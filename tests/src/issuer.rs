//! As much of a cluster as a gateway needs to know Pods by their tokens: published keys, one Pod, and tokens for it that are
//! good for as long as a test wants. The tokens of a real cluster are in `e2e/identity.rs`; none of those is ever over in time.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

/// For whom its tokens are.
pub const AUDIENCE: &str = "openhive-gateway";
/// Where its Pod is.
pub const NAMESPACE: &str = "sandboxes";
const ISSUER: &str = "https://issuer.test";
const KEYS: &str = "/openid/v1/jwks";

/// Listens until the process ends.
pub struct Issuer {
    key: EcdsaKeyPair,
    /// The key's name.
    kid: u32,
    answers: Answers,
    address: SocketAddr,
}

/// By path.
type Answers = Arc<Mutex<BTreeMap<&'static str, Value>>>;

/// A new key, and what is published of it.
fn key(kid: u32) -> (EcdsaKeyPair, Value) {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("random numbers");
    let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).expect("just made");
    // An uncompressed point: 4, x, y.
    let (x, y) = key.public_key().as_ref()[1..].split_at(32);
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    let kid = format!("k-{kid}");
    let jwk = json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": x, "y": y });
    (key, json!({ "keys": [jwk] }))
}

impl Issuer {
    /// Its one Pod is the sandbox of this agent.
    pub fn new(agent: &str) -> Issuer {
        let (key, published) = key(1);
        let metadata = json!({
            "name": "pod-1", "namespace": NAMESPACE, "uid": "uid-1", "annotations": { "openhive.io/agent-id": agent },
        });
        let pods = json!({
            "apiVersion": "v1", "kind": "PodList", "metadata": { "resourceVersion": "1" }, "items": [{ "metadata": metadata }],
        });
        let answers = Arc::new(Mutex::new(BTreeMap::from([
            ("/.well-known/openid-configuration", json!({ "issuer": ISSUER })),
            (KEYS, published),
            ("/api/v1/namespaces/sandboxes/pods", pods),
        ])));
        let serving = answers.clone();
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let answers = serving.clone();
                std::thread::spawn(move || answer(connection, &answers));
            }
        });
        Issuer { key, kid: 1, answers, address }
    }

    /// From now on it signs with another key, and publishes only that.
    pub fn rotate(&mut self) {
        self.kid += 1;
        let (key, published) = key(self.kid);
        self.key = key;
        self.answers.lock().expect("nobody panics").insert(KEYS, published);
    }

    /// The way to it, as the text of a kubeconfig.
    pub fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": format!("http://{}", self.address) } }],
            "users": [{ "name": "u", "user": {} }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        })
        .to_string()
    }

    /// A token of the Pod that is over in so many seconds, or was so long ago.
    pub fn token(&self, seconds: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a date").as_secs() as i64;
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": format!("k-{}", self.kid) });
        let claims = json!({
            "iss": ISSUER, "aud": [AUDIENCE], "iat": now - 3600, "nbf": now - 3600, "exp": now + seconds,
            "sub": "system:serviceaccount:sandboxes:default",
            "kubernetes.io": { "namespace": NAMESPACE, "pod": { "name": "pod-1", "uid": "uid-1" } },
        });
        let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).expect("random numbers");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// One request a connection. A watch is kept open, and nothing changes.
fn answer(mut connection: TcpStream, answers: &Answers) {
    let reader = BufReader::new(connection.try_clone().expect("a descriptor"));
    let lines: Vec<String> = reader.lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let target = lines.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let known = answers.lock().expect("nobody panics").get(path).map(Value::to_string);
    let (status, body) = known.map_or(("404 Not Found", "{}".into()), |body| ("200 OK", body));
    let watch = query.contains("watch=true");
    let length = if watch { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{length}connection: close\r\n\r\n");
    // Whoever asked may have gone.
    let _ = connection.write_all(head.as_bytes());
    match watch {
        true => drop(std::io::copy(&mut connection, &mut std::io::sink())),
        false => drop(connection.write_all(body.as_bytes())),
    }
}
