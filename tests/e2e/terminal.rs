//! A Pod with `tty: true`: the agent has the terminal, as without a supervisor.

use kube::api::AttachParams;
use tokio::io::AsyncWriteExt;

use crate::cluster::{Level, in_namespace};
use crate::pod::AGENT;
use crate::sandbox::Sandbox;

#[test]
fn the_agent_has_the_terminal_and_its_keys() {
    // Ctrl-C reaches whoever is in the terminal's foreground group: read by the line discipline, not by us.
    let script = "trap 'echo interrupted' INT; test -t 0 && test -t 1 && echo on-a-terminal; \
                  until read -r line; do :; done; echo got-$line; exit 4";
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell(script)
            .container(|c| {
                c.tty = Some(true);
                c.stdin = Some(true);
            })
            .start(scene)
            .await;
        pod.says("on-a-terminal").await;
        let wanted = AttachParams::default().container(AGENT).stdin(true).stdout(true).stderr(false).tty(true);
        let mut attached = pod.api.attach(&pod.name, &wanted).await.expect("attach is accepted");
        let mut keys = attached.stdin().expect("stdin was asked for");
        keys.write_all(b"\x03").await.expect("keys can be sent");
        pod.says("^Cinterrupted").await;
        keys.write_all(b"hello\n").await.expect("keys can be sent");
        assert_eq!(pod.ended().await.exit_code, 4);
        pod.says("got-hello").await;
    });
}
