//! TLS of the listener.

use std::io::{Read, Write};
use std::net::TcpStream;

use tests::control_plane::Gateway;
use tests::tls::Authority;

/// The status line of `/livez`, and the certificate that was shown; or why there is none.
fn ask(gateway: &Gateway, authority: &Authority) -> std::io::Result<(String, Vec<u8>)> {
    let mut stream = authority.connect("gateway.test", TcpStream::connect(gateway.address)?);
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    // The end may come without the farewell of TLS; the answer is whole by its length.
    let _ = stream.read_to_string(&mut text);
    let shown = stream.conn.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
    Ok((text.lines().next().unwrap_or_default().into(), shown.unwrap_or_default()))
}

#[test]
fn a_replaced_certificate_is_used_at_once_and_a_broken_one_is_not() {
    let builder = Gateway::build();
    let directory = builder.directory().to_path_buf();
    let authority = Authority::new(&directory, "ca.pem");
    let (certificate, key) = authority.issue("gateway.test", &directory);
    let path = |path: &std::path::Path| path.display().to_string();
    let gateway = builder.set("tls_cert_file", &path(&certificate)).set("tls_key_file", &path(&key)).start();
    let (status, first) = ask(&gateway, &authority).expect("an answer");
    assert_eq!(status, "HTTP/1.1 200 OK");

    authority.issue("gateway.test", &directory);
    let (status, second) = ask(&gateway, &authority).expect("an answer");
    assert!(status.ends_with("200 OK") && second != first, "{status}");

    std::fs::write(&certificate, "nonsense").expect("our own file");
    let (status, third) = ask(&gateway, &authority).expect("an answer");
    assert!(status.ends_with("200 OK") && third == second, "{status}");
    gateway.stderr.wait_text("the last good one stays");

    // Somebody else's authority is not believed by its client, and plain text is not answered.
    let other = Authority::new(&directory, "other.pem");
    assert!(ask(&gateway, &other).is_err());
    assert!(tests::http::get(gateway.address, "/livez").is_err());
}

#[test]
fn a_certificate_without_its_key_is_a_mistake() {
    let builder = Gateway::build();
    assert_eq!(builder.run(&["migrate", "up"]).0, 0);
    let authority = Authority::new(builder.directory(), "ca.pem");
    let (certificate, key) = authority.issue("gateway.test", builder.directory());
    let builder = builder.set("tls_cert_file", &certificate.display().to_string());
    let (code, _, stderr) = builder.run(&["serve"]);
    assert_eq!(code, 78);
    assert!(stderr.contains("GATEWAY_TLS_KEY_FILE"), "{stderr}");
    // The key of another certificate.
    let kept = std::fs::read(&certificate).expect("our own file");
    authority.issue("gateway.test", builder.directory());
    std::fs::write(&certificate, kept).expect("our own file");
    let (code, _, stderr) = builder.set("tls_key_file", &key.display().to_string()).run(&["serve"]);
    assert_eq!(code, 78);
    assert!(stderr.contains("do not belong together"), "{stderr}");
}
