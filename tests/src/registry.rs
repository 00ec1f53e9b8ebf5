//! A real registry of a test's own, on loopback, where the Debian package is installed.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::http;
use crate::wait::wait_until;

/// A running registry; it ends with this value.
pub struct Registry {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    _directory: TempDir,
}

impl Registry {
    /// Empty. Where the package is not there, why is printed and nothing is started.
    #[track_caller]
    pub fn start() -> Option<Registry> {
        if Command::new("docker-registry").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: there is no registry on this machine (apt-get install docker-registry)");
            return None;
        }
        let directory = tempfile::tempdir().expect("a scratch directory");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("loopback has a free port");
        let config = json!({
            "version": 0.1,
            "log": { "level": "error" },
            "storage": { "filesystem": { "rootdirectory": directory.path().join("data") } },
            "http": { "addr": address.to_string() },
        });
        let file = directory.path().join("config.yml");
        fs::write(&file, config.to_string()).expect("our own directory");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let registry = Registry { address, child, _directory: directory };
        wait_until("the registry answers", || http::get(address, "/v2/").is_ok_and(|answer| answer.status == 200));
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
