//! `relay ADDRESS TOKEN-FILE REPOSITORY`: applies approved patches to a git repository; see `tests::relay`.

use std::net::TcpListener;
use std::process::ExitCode;

use tests::relay::Relay;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, token, repository] = arguments.as_slice() else {
        eprintln!("usage: relay ADDRESS TOKEN-FILE REPOSITORY");
        return ExitCode::from(64);
    };
    let token = match std::fs::read_to_string(token) {
        Ok(token) => token,
        Err(error) => {
            eprintln!("relay: cannot read {token}: {error}");
            return ExitCode::from(78);
        }
    };
    match TcpListener::bind(address) {
        Ok(listener) => Relay::new(token.trim(), repository).serve(&listener),
        Err(error) => eprintln!("relay: cannot listen on {address}: {error}"),
    }
    ExitCode::from(69)
}
