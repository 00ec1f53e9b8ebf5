//! A real Prometheus of a test's own, on loopback, where the Debian package is installed.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http;
use crate::wait::wait_until;

/// A running server that scrapes; it ends with this value.
pub struct Prometheus {
    address: SocketAddr,
    child: Child,
    directory: TempDir,
}

/// Who is scraped: a job, an address, and the labels that Kubernetes would give.
pub type Target<'t> = (&'t str, SocketAddr, Value);

impl Prometheus {
    /// With these rules (YAML). Where the package is not there, why is printed and nothing is started.
    #[track_caller]
    pub fn start(rules: &str, targets: &[Target]) -> Option<Prometheus> {
        if Command::new("prometheus").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            eprintln!("skipped: there is no Prometheus on this machine (apt-get install prometheus)");
            return None;
        }
        let directory = tempfile::tempdir().expect("a scratch directory");
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("our own directory");
        let scrape = targets.iter().map(|(job, address, labels)| {
            json!({ "job_name": job, "static_configs": [{ "targets": [address.to_string()], "labels": labels }] })
        });
        let config = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": ["rules.yaml"],
            "scrape_configs": scrape.collect::<Vec<_>>(),
        });
        write("rules.yaml", rules);
        write("prometheus.yaml", &config.to_string());
        let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("loopback has a free port");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", directory.path().join("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.path().join("log")).expect("our own directory"))
            .spawn()
            .expect("it starts");
        let mut server = Prometheus { address, child, directory };
        wait_until("Prometheus is ready", || {
            let ended = server.child.try_wait().expect("our own child");
            assert!(ended.is_none(), "{}", fs::read_to_string(server.directory.path().join("log")).unwrap_or_default());
            http::get(address, "/-/ready").is_ok_and(|answer| answer.status == 200)
        });
        Some(server)
    }

    /// The series that an expression has now, or why it is none.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric();
        let escaped = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        let expression: String = expression.bytes().map(escaped).collect();
        let answer = self.get(&format!("/api/v1/query?query={expression}"));
        match answer["data"]["result"].as_array() {
            Some(series) => Ok(series.clone()),
            None => Err(answer["error"].to_string()),
        }
    }

    /// Its rules, each with `name`, `health` and `lastError`.
    pub fn rules(&self) -> Vec<Value> {
        let answer = self.get("/api/v1/rules");
        let groups = answer["data"]["groups"].as_array().into_iter().flatten();
        groups.flat_map(|group| group["rules"].as_array().into_iter().flatten()).cloned().collect()
    }

    fn get(&self, path: &str) -> Value {
        // HTTP/1.0: no chunks.
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        http::exchange(self.address, &request).map(|answer| answer.json()).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
