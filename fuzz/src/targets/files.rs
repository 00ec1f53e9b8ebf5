//! Files and words that operators and platforms write: settings of both programs, tokens, certificates, addresses.

use std::collections::BTreeMap;
use std::ffi::OsString;

use gateway::app::Config;
use gateway::config::{Reader, parse as gateway_parse};
use gateway::untrusted::tokens;
use peer::Address;
use peer::untrusted::certificates;
use supervisor::agent::readiness::Check;
use supervisor::config::parse;
use supervisor::netcheck::Target as Place;
use supervisor::untrusted;

use super::{hold_tame, text, texts};
use crate::Target;

pub(crate) const TARGET: Target = Target { name: "files", longest: 4096, run, seeds };

/// Where it stands as a password, no message repeats it.
const SECRET: &str = "s3cret";
const HUNDRED_YEARS: u64 = 100 * 366 * 24 * 3600;

fn run(data: &[u8]) {
    if let Some(count) = certificates(data) {
        assert!(count * "-----BEGIN CERTIFICATE-----".len() <= data.len());
    }
    let Some(text) = text(data) else { return };
    untrusted::settings(text);
    if let Some(names) = tokens(text) {
        assert!(names <= text.lines().count());
    }
    of_the_gateway(text);
    address(text);
    proxy(text);
    words(text);
}

/// A line is a variable of its environment.
fn of_the_gateway(text: &str) {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let variables = pairs.map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
    let Err(mistakes) = Config::read(Reader::new(BTreeMap::new(), variables)) else { return };
    let mut secrets = text.lines().filter(|line| line.contains(SECRET));
    let is_secret = secrets.all(|line| line.starts_with("DATABASE_URL=") || line.starts_with("GATEWAY_DATABASE_URL="));
    assert!(!is_secret || mistakes.iter().all(|mistake| !mistake.to_string().contains(SECRET)), "a password is told");
}

fn address(text: &str) {
    if let Ok(address) = text.parse::<Address>() {
        let again: Address = address.to_string().parse().expect("an address as we write it");
        assert_eq!((again.to_string(), again.port), (address.to_string(), address.port));
        let written = address.authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
        let port = written.filter(|port| !port.is_empty());
        assert!(
            port.is_none_or(|port| port.parse() == Ok(address.port)),
            "another server than the one that is written"
        );
    }
    if let Ok(place) = Place::parse(text) {
        assert_eq!(Place::parse(&place.to_string()), Ok(place));
    }
}

fn proxy(text: &str) {
    let place =
        text.split_once("://").map_or(text, |(_, place)| place).split(['/', '?', '#']).next().unwrap_or_default();
    let is_password =
        place.rsplit_once('@').is_some_and(|(user, host)| user.contains(SECRET) && !host.contains(SECRET));
    match untrusted::proxy(text) {
        Ok(shown) => assert!(!is_password || !shown.contains(SECRET), "a password is shown"),
        Err(problem) => assert!(!problem.contains(SECRET), "a password is told"),
    }
    if let Err(problem) = untrusted::relay_url(text) {
        assert!(!problem.contains(SECRET), "a password is told");
    }
    assert_eq!(untrusted::spares(text, "gateway.example"), untrusted::spares(text, "Gateway.Example."));
    untrusted::spares(text, "10.0.0.1");
    untrusted::spares(text, "fd00::1");
}

fn words(text: &str) {
    match text.parse::<Check>() {
        Ok(Check::Http { port, path }) => {
            let is_one_line = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
            assert!(port != 0 && is_one_line, "it could begin a request of its own");
        }
        Ok(Check::Exec { argv }) => assert!(!argv[0].is_empty() && !argv.iter().any(|word| word.contains('\0'))),
        Ok(_) => {}
        Err(problem) => hold_tame(&problem.to_string()),
    }
    for time in [parse::duration(text), gateway_parse::duration(text)].into_iter().flatten() {
        assert!(time.as_secs() <= HUNDRED_YEARS);
    }
    if let Ok(limit) = parse::limit(text) {
        assert!(limit.soft <= limit.hard, "setrlimit(2) refuses it");
    }
    if let Ok((name, value)) = parse::assignment(text) {
        assert!(!name.contains('=') && format!("{name}={value}") == text && !text.contains('\0'));
    }
    drop((parse::size(text), parse::umask(text), parse::user(text), parse::address(text)));
}

fn seeds() -> Vec<Vec<u8>> {
    let words = texts(&[
        "grace = \"3s\"\n[agent]\nrestart = \"never\"\nenv = { A = \"1\" }\nwrite = [\"/a\", \"/b\"]\n",
        "# users\nada sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\ngrace secret\n",
        "wss://gateway.example:8443/base",
        "http://[::1]:8080",
        "GATEWAY_LISTEN=:8080\nDATABASE_URL=mysql://root:s3cret@db/x\nGATEWAY_ADVERTISE_URL=http://fd00::5:8080\nGATEWAY_BEAT=30s\n",
        "GATEWAY_BACKEND=kubernetes\nGATEWAY_KUBERNETES_NAMESPACE=a\nGATEWAY_IDENTITY_AUDIENCE=g\nGATEWAY_IDENTITY_NAMESPACES=a, b\n",
        "http://ann:s3cret%40@proxy.example:3128",
        "https://ann:s3cret@relay example/apply",
        "/apply#https://ann:s3cret@relay.example/",
        ".example,10.0.0.0/8 [fd00::1]",
        "http:8080/ready?x=1",
        "exec:[\"a b\",\"\"]",
        "[::1]:8091",
        "nofile=1024:4096",
        "10001:10001",
        "25s",
    ]);
    words.into_iter().chain([include_bytes!("../../../peer/src/tls/ca.pem").to_vec()]).collect()
}
