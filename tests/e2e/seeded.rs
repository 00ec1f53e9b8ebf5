//! All that a platform needs of a Pod by HTTP alone: a coding agent is seeded with a git repository, followed live, and its
//! approved patch is applied back through a relay outside the cluster.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use tests::relay::Relay;
use tests::tasks::Api;
use tests::tls::Authority;
use tests::{binaries, codex};

use crate::cluster::{Level, in_namespace};
use crate::codex::{PROVIDER, model};
use crate::maker::host;
use crate::sandbox::Sandbox;
use crate::volume::make_secret;

const API_TOKEN: &str = "token-of-the-platform-0123456789";
const RELAY_TOKEN: &str = "token-of-the-relay-0123456789";
const FILES: &str = "/var/run/secrets/platform";

/// On this machine, by HTTPS: its URL, and who signed its certificate.
fn relay(directory: &Path, repository: &Path) -> (String, String) {
    let authority = Authority::new(directory, "ca.crt");
    let ca = std::fs::read_to_string(authority.file()).expect("our own file");
    let server = authority.server(&host());
    let listener = TcpListener::bind((host(), 0)).expect("this machine has the address E2E_HOST");
    let address = listener.local_addr().expect("it is bound");
    let relay = Relay::new(RELAY_TOKEN, repository);
    std::thread::spawn(move || relay.serve_over(&listener, |stream| server.take(stream)));
    (format!("https://{address}/apply"), ca)
}

#[test]
fn codex_in_a_pod_changes_a_seeded_repository_and_its_approved_patch_is_applied_back() {
    if !tests::needs::commands(&["git"]) {
        return;
    }
    let directory = binaries::scratch();
    let repository = codex::repository(directory.path());
    let (url, ca) = relay(directory.path(), &repository);
    in_namespace(Level::Restricted, async |scene| {
        let files = [("api-token", API_TOKEN), ("relay-token", RELAY_TOKEN), ("ca.crt", ca.as_str())];
        make_secret(scene, "platform", &files).await;
        let commands = codex::commands(Path::new("/workspace"));
        let pod = Sandbox::shell("exec sleep infinity")
            .envs(&PROVIDER)
            .env("SUPERVISOR_API_TOKEN_FILE", &format!("{FILES}/api-token"))
            .env("SUPERVISOR_RELAY_URL", &url)
            .env("SUPERVISOR_RELAY_TOKEN_FILE", &format!("{FILES}/relay-token"))
            .env("SUPERVISOR_RELAY_CA_FILE", &format!("{FILES}/ca.crt"))
            .secret("platform", FILES)
            .change(move |spec| {
                let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
                spec.init_containers.get_or_insert_default().push(model(&commands));
            })
            .start(scene)
            .await;
        pod.ready().await;
        let ip = pod.until("its address", |pod| pod.status.as_ref()?.pod_ip.clone()).await;
        let address: SocketAddr = format!("{ip}:8091").parse().expect("an address");
        codex::change_seeded(&Api::at(address, API_TOKEN), "codex", &repository);
        assert_eq!(pod.metric("supervisor_agent_restarts_total").await, Some(0.0));
    });
}
