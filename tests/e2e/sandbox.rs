//! The Pod of a sandbox, as the documentation tells people to write it.
//!
//! Root file system read-only (000-59), a volume for each writable place (000-60), a HOME of its own (000-62), no
//! service account token, every security setting that the namespace's level asks for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, EnvVar, Pod, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, VolumeMount,
};
use kube::api::{Api, ObjectMeta, PostParams};

use crate::cluster::{Level, Scene};
use crate::pod::{AGENT, Running};
use crate::volume::{self, mount, named, scratch};

/// The uid of the sandbox image's user.
pub(crate) const USER: i64 = 10001;

/// Where the supervisor is mounted.
pub(crate) const SUPERVISOR: &str = "/chaperone/supervisor";

/// How the supervisor comes into the Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    ImageVolume,
    /// An init container runs `supervisor install` into an emptyDir.
    Install,
}

type Change = Box<dyn FnOnce(&mut PodSpec)>;

/// A Pod to be.
pub(crate) struct Sandbox {
    name: String,
    image: String,
    delivery: Delivery,
    /// Arguments of the supervisor; the agent's argv follows `--`.
    command: Vec<String>,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    changes: Vec<Change>,
}

/// The image of that name, or what the environment says.
pub(crate) fn image(variable: &str, name: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| format!("localhost/chaperone-{name}:dev"))
}

pub(crate) fn supervisor_image() -> String {
    image("E2E_SUPERVISOR_IMAGE", "supervisor")
}

pub(crate) fn sandbox_image() -> String {
    image("E2E_SANDBOX_IMAGE", "sandbox")
}

pub(crate) fn gateway_image() -> String {
    image("E2E_GATEWAY_IMAGE", "gateway")
}

pub(crate) fn tests_image() -> String {
    image("E2E_TESTS_IMAGE", "tests")
}

/// An image under `localhost/` was loaded into the node and can be pulled from nowhere.
pub(crate) fn pull_policy(image: &str) -> Option<String> {
    Some(if image.starts_with("localhost/") { "Never" } else { "IfNotPresent" }.to_owned())
}

impl Sandbox {
    /// An agent that is a shell script.
    pub(crate) fn shell(script: &str) -> Sandbox {
        Sandbox::agent(&["bash", "-c", script])
    }

    /// Any agent of the sandbox image.
    pub(crate) fn agent(argv: &[&str]) -> Sandbox {
        Sandbox {
            name: "sandbox".to_owned(),
            image: sandbox_image(),
            delivery: Delivery::ImageVolume,
            command: vec!["run".to_owned()],
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            env: Vec::new(),
            changes: Vec::new(),
        }
    }

    pub(crate) fn name(mut self, name: &str) -> Sandbox {
        self.name = name.to_owned();
        self
    }

    pub(crate) fn image(mut self, image: String) -> Sandbox {
        self.image = image;
        self
    }

    pub(crate) fn delivery(mut self, delivery: Delivery) -> Sandbox {
        self.delivery = delivery;
        self
    }

    /// Another command of the supervisor instead of `run`, without an agent.
    pub(crate) fn command(mut self, command: &[&str]) -> Sandbox {
        self.command = command.iter().map(|a| (*a).to_owned()).collect();
        self.argv.clear();
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Sandbox {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Several at once.
    pub(crate) fn envs(mut self, pairs: &[(&str, &str)]) -> Sandbox {
        self.env.extend(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self
    }

    /// The files of a Secret, at this path of the agent's container.
    pub(crate) fn secret(self, name: &str, path: &str) -> Sandbox {
        let (volume, mount) = (volume::secret(name), mount(name, path));
        self.change(|spec| spec.volumes.get_or_insert_default().push(volume))
            .container(|c| c.volume_mounts.get_or_insert_default().push(mount))
    }

    /// Whatever else this test's Pod has.
    pub(crate) fn change(mut self, change: impl FnOnce(&mut PodSpec) + 'static) -> Sandbox {
        self.changes.push(Box::new(change));
        self
    }

    /// A change of the agent's container.
    pub(crate) fn container(self, change: impl FnOnce(&mut Container) + 'static) -> Sandbox {
        self.change(|spec| change(&mut spec.containers[0]))
    }

    /// Makes the Pod.
    pub(crate) async fn start(self, scene: &Scene) -> Running {
        let running = Running::new(scene, &self.name, AGENT);
        let pods: Api<Pod> = scene.api();
        let pod = self.pod(scene.level);
        pods.create(&PostParams::default(), &pod).await.expect("the namespace's Pod Security level admits the Pod");
        running
    }

    pub(crate) fn pod(self, level: Level) -> Pod {
        let chaperone = match self.delivery {
            Delivery::ImageVolume => volume::image("chaperone", supervisor_image()),
            Delivery::Install => scratch("chaperone"),
        };
        let install = Container {
            name: "install".to_owned(),
            image: Some(supervisor_image()),
            image_pull_policy: pull_policy(&supervisor_image()),
            command: Some(["/supervisor", "install", "/chaperone"].map(str::to_owned).into()),
            volume_mounts: Some(vec![mount("chaperone", "/chaperone")]),
            security_context: Some(container_security(level)),
            ..Container::default()
        };
        let mut spec = PodSpec {
            restart_policy: Some("Never".to_owned()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(30),
            security_context: Some(pod_security(level)),
            init_containers: (self.delivery == Delivery::Install).then(|| vec![install]),
            volumes: Some(vec![chaperone, scratch("state"), scratch("workspace"), scratch("tmp"), scratch("home")]),
            containers: vec![agent_container(&self.image, level, &self.command, &self.argv, &self.env)],
            ..PodSpec::default()
        };
        for change in self.changes {
            change(&mut spec);
        }
        Pod { metadata: labelled(&self.name), spec: Some(spec), status: None }
    }
}

fn agent_container(
    image: &str,
    level: Level,
    command: &[String],
    argv: &[String],
    env: &[(String, String)],
) -> Container {
    let mut whole = vec![SUPERVISOR.to_owned()];
    whole.extend_from_slice(command);
    if !argv.is_empty() {
        whole.push("--".to_owned());
        whole.extend_from_slice(argv);
    }
    let chaperone = VolumeMount { read_only: Some(true), ..mount("chaperone", "/chaperone") };
    Container {
        name: AGENT.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: pull_policy(image),
        command: Some(whole),
        env: Some(env.iter().map(|(name, value)| variable(name, value)).collect()),
        security_context: Some(container_security(level)),
        volume_mounts: Some(vec![
            chaperone,
            mount("state", "/var/lib/supervisor"),
            mount("workspace", "/workspace"),
            mount("tmp", "/tmp"),
            mount("home", "/home/codex"),
        ]),
        ..Container::default()
    }
}

/// An environment variable.
pub(crate) fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), ..EnvVar::default() }
}

/// Metadata with a name, which policies and services select by too.
pub(crate) fn labelled(name: &str) -> ObjectMeta {
    ObjectMeta { labels: Some(label(name)), ..named(name) }
}

/// The label that tells one test's Pods apart.
pub(crate) fn label(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("app.kubernetes.io/name".to_owned(), name.to_owned())])
}

/// What the level asks of a Pod.
pub(crate) fn pod_security(level: Level) -> PodSecurityContext {
    let user = if level == Level::Restricted { USER } else { 0 };
    PodSecurityContext {
        run_as_user: Some(user),
        run_as_group: Some(user),
        run_as_non_root: Some(level == Level::Restricted),
        fs_group: (level == Level::Restricted).then_some(USER),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
        ..PodSecurityContext::default()
    }
}

/// Level restricted: no capability at all. Baseline: just what the supervisor needs to give the agent its own uid.
pub(crate) fn container_security(level: Level) -> SecurityContext {
    let added = ["SETUID", "SETGID", "SETPCAP", "KILL"].map(str::to_owned).to_vec();
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: (level == Level::Baseline).then_some(added),
        }),
        ..SecurityContext::default()
    }
}
