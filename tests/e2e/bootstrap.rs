//! Defaults are copied into a volume once; what people edit stays theirs (000-26 to 000-32).

use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::cluster::{Level, Scene, in_namespace};
use crate::pod::Running;
use crate::sandbox::{SUPERVISOR, Sandbox, container_security, pull_policy, sandbox_image, variable};
use crate::volume::{claimed, make_claim, mount, scratch};

const CLAIM: &str = "agent-config-pvc";

/// A container of the sandbox image in the house's security settings.
fn init(name: &str, command: &[&str]) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(sandbox_image()),
        image_pull_policy: pull_policy(&sandbox_image()),
        command: Some(command.iter().map(|c| (*c).to_owned()).collect()),
        security_context: Some(container_security(Level::Restricted)),
        ..Container::default()
    }
}

/// The claim at `/data/config`, and an init container that runs `supervisor bootstrap` (000-26).
fn config_bootstrap(spec: &mut PodSpec, source: &str, version: &str) {
    spec.volumes.get_or_insert_default().push(claimed("config", CLAIM));
    let mut mounts = vec![mount("chaperone", "/chaperone"), mount("config", "/data/config")];
    if source == "/defaults" {
        mounts.push(mount("defaults", "/defaults"));
    }
    spec.init_containers.get_or_insert_default().push(Container {
        env: Some(vec![
            variable("SUPERVISOR_BOOTSTRAP_SOURCE", source),
            variable("SUPERVISOR_BOOTSTRAP_TARGET", "/data/config"),
            variable("SUPERVISOR_BOOTSTRAP_VERSION", version),
        ]),
        volume_mounts: Some(mounts),
        ..init("config-bootstrap", &[SUPERVISOR, "bootstrap"])
    });
    spec.containers[0].volume_mounts.get_or_insert_default().push(mount("config", "/data/config"));
}

async fn start(scene: &Scene, name: &str, version: &'static str) -> Running {
    let pod = Sandbox::shell("echo started; exec sleep infinity")
        .name(name)
        .env("SUPERVISOR_AGENT_WRITE", "/data/config")
        .change(move |spec| config_bootstrap(spec, "/app/defaults/agent", version))
        .start(scene)
        .await;
    pod.says("started").await;
    pod
}

#[test]
fn an_edit_survives_a_restart_and_new_defaults_appear_after_a_version_bump() {
    in_namespace(Level::Restricted, async |scene| {
        make_claim(scene, CLAIM).await;
        let first = start(scene, "first", "1").await;
        assert_eq!(first.shell("head -n 1 /data/config/.version").await.trim(), "1", "000-30");
        let default = first.shell("cat /data/config/AGENT.md").await;
        assert_eq!(default, first.shell("cat /app/defaults/agent/AGENT.md").await);
        first.shell("echo custom > /data/config/HEARTBEAT.md").await;
        first.delete(5).await;
        first.gone().await;

        let second = start(scene, "second", "1").await;
        assert_eq!(second.shell("cat /data/config/HEARTBEAT.md").await.trim(), "custom", "000-31");
        second.delete(5).await;
        second.gone().await;

        // The next image has a file more and another text in the one that was edited.
        let next =
            init("next-defaults", &["bash", "-c", "echo v2 > /defaults/HEARTBEAT.md; echo new > /defaults/NEW.md"]);
        let third = Sandbox::shell("echo started; exec sleep infinity")
            .name("third")
            .change(move |spec| {
                spec.volumes.get_or_insert_default().push(scratch("defaults"));
                let mounts = Some(vec![mount("defaults", "/defaults")]);
                spec.init_containers = Some(vec![Container { volume_mounts: mounts, ..next }]);
                config_bootstrap(spec, "/defaults", "2");
            })
            .start(scene)
            .await;
        third.says("started").await;
        assert_eq!(third.shell("cat /data/config/HEARTBEAT.md").await.trim(), "custom", "000-32");
        assert_eq!(third.shell("cat /data/config/NEW.md").await.trim(), "new", "000-32");
        assert_eq!(third.shell("head -n 1 /data/config/.version").await.trim(), "2");
        assert_eq!(third.shell("cat /data/config/AGENT.md").await, default, "what the new defaults lack stays");
    });
}
