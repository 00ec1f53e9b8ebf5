//! A gateway behind an HTTP proxy.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::session::FromGateway;
use tests::binaries;
use tests::gateway::{self, Gateway, Session};
use tests::proxy::Proxy;
use tests::supervisor::{Builder, Supervisor};
use tests::tls::Authority;
use tests::wait::wait_until;

use super::{FAST, link_state, linked};

/// A gateway of this name, by TLS, and a supervisor that believes it.
fn behind(name: &str, directory: &std::path::Path) -> (Gateway, Builder) {
    let authority = Authority::new(directory, "ca.pem");
    let gateway = Gateway::tls(authority.server(name));
    let builder = linked(&gateway).set("gateway-url", "wss://gateway.test").set("link-ca-file", authority.file());
    (gateway, builder)
}

fn dials(supervisor: &Supervisor, outcome: &str) -> f64 {
    supervisor.metric(&format!("supervisor_link_dials_total{{outcome=\"{outcome}\"}}")).unwrap_or(0.0)
}

#[test]
fn through_a_proxy_the_session_is_by_tls_with_the_gateway_and_nothing_of_it_is_seen() {
    let (proxy, dir) = (Proxy::new(), binaries::scratch());
    let (gateway, builder) = behind("gateway.test", dir.path());
    let url = format!("http://name:pass%3Aword-CANARY@{}", proxy.address());
    let supervisor = builder.env("HTTPS_PROXY", url).start();
    let asked = proxy.asked();
    // The name goes there as it is: only the proxy has to know its address.
    assert!(asked.head.starts_with("CONNECT gateway.test:443 HTTP/1.1\r\n"), "{}", asked.head);
    let credentials = STANDARD.encode("name:pass:word-CANARY");
    assert!(asked.head.contains(&format!("proxy-authorization: Basic {credentials}\r\n")), "{}", asked.head);
    assert!(!asked.head.contains(gateway::TOKEN), "the token is the gateway's");
    asked.tunnel(gateway.address());
    let dial = gateway.dial();
    assert_eq!(dial.header("authorization"), Some(format!("Bearer {}", gateway::TOKEN).as_str()));
    assert_eq!(dial.header("proxy-authorization"), None);
    let mut session = dial.upgrade();
    session.send(&FromGateway::Welcome(Box::new(Session::usual(FAST))));
    session.beat();
    wait_until("connected", || link_state(&supervisor) == "connected");
    for text in [supervisor.stderr.text(), supervisor.get("/healthz").body, supervisor.get("/metrics").body] {
        assert!(!text.contains("CANARY") && !text.contains(&credentials), "{text}");
    }
}

#[test]
fn another_name_than_the_gateways_is_refused_behind_a_proxy_too() {
    let (proxy, dir) = (Proxy::new(), binaries::scratch());
    let (gateway, builder) = behind("other.test", dir.path());
    let supervisor = builder.env("https_proxy", proxy.address().to_string()).start();
    proxy.asked().tunnel(gateway.address());
    assert!(gateway.try_dial().is_err(), "it was shown another name and went on");
    wait_until("a failed handshake", || dials(&supervisor, "tls") > 0.0);
    assert_eq!(supervisor.wait_log("there is no link to the gateway")["kind"], "tls");
}

#[test]
fn a_proxy_that_refuses_talks_nonsense_or_stays_silent_is_named_and_asked_again() {
    let (proxy, dir) = (Proxy::new(), binaries::scratch());
    let (gateway, builder) = behind("gateway.test", dir.path());
    let supervisor = builder.env("SUPERVISOR_LINK_PROXY", format!("http://{}", proxy.address())).start();
    let answers = [
        "HTTP/1.1 403 CANARY\r\ncontent-length: 6\r\n\r\nCANARY",
        "HTTP/1.1 407 -\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 302 -\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        "SSH-2.0-CANARY\r\n",
        "",
    ];
    for (failed, answer) in (1..).zip(answers) {
        proxy.asked().answer(answer);
        wait_until("a failed dial", || dials(&supervisor, "proxy") == f64::from(failed));
    }
    // Nothing at all: it is left, and asked again on a new connection.
    let silent = proxy.asked();
    proxy.asked().tunnel(gateway.address());
    drop(silent);
    assert_eq!(dials(&supervisor, "proxy"), answers.len() as f64 + 1.0);
    let mut session = gateway.welcome(FAST);
    session.beat();
    let told = supervisor.wait_log("there is no link to the gateway");
    assert_eq!(told["kind"], "proxy");
    assert!(told["reason"].as_str().is_some_and(|reason| reason.contains("403")), "{told}");
    assert!(!supervisor.stderr.text().contains("CANARY"), "{}", supervisor.stderr.text());
}

#[test]
fn a_gateway_on_this_machine_and_one_that_no_proxy_names_are_dialled_directly() {
    let (proxy, gateway) = (Proxy::new(), Gateway::new());
    let url = format!("http://{}", proxy.address());
    let usual = || linked(&gateway).env("http_proxy", &url).env("ALL_PROXY", &url);
    // Each connection outlives its supervisor, which would dial once more else, in the way of the next one.
    let of_direct = {
        let _direct = usual().start();
        gateway.accept()
    };
    // As an address that is not known to be this machine's.
    let elsewhere = format!("ws://[::ffff:127.0.0.1]:{}", gateway.address().port());
    let elsewhere = || usual().set("gateway-url", elsewhere.clone()).set("link-plain", "true");
    let of_spared = {
        let _spared = elsewhere().env("NO_PROXY", "other.example, ::ffff:127.0.0.0/104").start();
        gateway.accept()
    };
    let of_without = {
        let _without = elsewhere().env("SUPERVISOR_LINK_PROXY", "none").start();
        gateway.accept()
    };
    drop((of_direct, of_spared, of_without));
    assert!(!proxy.is_asked());
    let through = elsewhere().start();
    assert!(proxy.asked().head.starts_with("CONNECT [::ffff:127.0.0.1]:"));
    drop(through);
    // Named for the link, it is taken for this machine too.
    let _named = linked(&gateway).env("SUPERVISOR_LINK_PROXY", &url).env("NO_PROXY", "*").start();
    proxy.asked().tunnel(gateway.address());
    gateway.accept();
}

#[test]
fn a_proxy_that_is_none_is_a_mistake_by_the_name_of_its_variable_without_its_password() {
    let gateway = Gateway::new();
    let elsewhere = || linked(&gateway).set("gateway-url", "wss://gateway.test");
    for (variable, value) in [
        ("SUPERVISOR_LINK_PROXY", "socks5://name:CANARY@127.0.0.1:1"),
        ("SUPERVISOR_LINK_PROXY", "http://name:CANARY%@127.0.0.1:1"),
        ("HTTPS_PROXY", "https://name:CANARY@127.0.0.1:1"),
        ("all_proxy", "http://name:CANARY@"),
    ] {
        let mut supervisor = elsewhere().env(variable, value).start();
        assert_eq!(supervisor.wait_code(), 78, "{variable}");
        let text = supervisor.stderr.text();
        assert!(text.contains(variable) && !text.contains("CANARY"), "{text}");
    }
}
