//! How the supervisor comes into a Pod (001-11), and that it is PID 1 there.

use crate::cluster::{Level, in_namespace};
use crate::pod::is_ready;
use crate::sandbox::{Delivery, Sandbox, tests_image};

const AGENT: &str = "echo started; exec sleep infinity";

#[test]
fn an_image_volume_delivers_the_supervisor_as_pid_1() {
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell(AGENT).start(scene).await;
        pod.says("started").await;
        assert_eq!(pod.shell("cat /proc/1/comm").await.trim(), "supervisor");
        let listing = pod.shell("ls -1 /chaperone; stat -c '%a %u' /chaperone/supervisor /chaperone/shim").await;
        assert_eq!(listing.lines().collect::<Vec<_>>(), ["shim", "supervisor", "555 0", "555 0"]);
    });
}

#[test]
fn an_init_container_installs_the_supervisor_where_image_volumes_do_not_work() {
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell(AGENT)
            .delivery(Delivery::Install)
            .change(|spec| {
                let mounts = spec.containers[0].volume_mounts.iter().flatten();
                let chaperone = mounts.into_iter().find(|m| m.name == "chaperone").expect("it is mounted");
                assert_eq!(chaperone.read_only, Some(true), "the agent's container gets the copy read-only");
            })
            .start(scene)
            .await;
        pod.says("started").await;
        let modes = pod.shell("stat -c '%a' /chaperone/supervisor /chaperone/shim").await;
        assert_eq!(modes.lines().collect::<Vec<_>>(), ["555", "555"]);
        let write = pod.exec(&["bash", "-c", "echo x > /chaperone/supervisor"]).await;
        assert_ne!(write.code, 0, "the copy can be changed: {write:?}");
    });
}

#[test]
fn an_image_without_a_shell_or_a_libc_needs_nothing_else() {
    in_namespace(Level::Restricted, async |scene| {
        let pod =
            Sandbox::agent(&["/scripted-model", "--listen", "127.0.0.1:8099"]).image(tests_image()).start(scene).await;
        pod.says("{\"listening\":\"127.0.0.1:8099\"}").await;
        pod.until("the Pod is Ready without a probe", |pod| is_ready(pod).then_some(())).await;
        assert_eq!(pod.health().await.agent.state, "running");
    });
}
