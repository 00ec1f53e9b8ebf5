//! How the supervisor comes into a sandbox: by an image volume, as the operator's template has it, or copied by an init
//! container. Which one works is found by running a Pod, never from a version: a policy may forbid image volumes, a
//! runtime may not know them, a kubelet may mount nothing.

use std::sync::OnceLock;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, ImageVolumeSource, ResourceRequirements, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::preflight::{Finding, Trial};
use super::template::Template;
use super::{Kubernetes, TemplateError};
use crate::backend::BackendError;

/// Until what could not be chosen is tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// As the template has it.
    Template,
    /// An image volume as the template has it, where a Pod has run with it; else an init container.
    Auto,
}

/// The template that sandboxes are made from, once it is known.
pub(super) struct Delivered {
    /// The template with an init container; `None` where nothing is to be chosen.
    installing: Option<Template>,
    chosen: OnceLock<Template>,
    /// Held by who tries.
    failed: Mutex<Option<Failure>>,
}

/// A try that has shown nothing to choose: all who wait have it.
#[derive(Clone)]
struct Failure {
    at: Instant,
    kind: fn(String) -> BackendError,
    text: String,
}

impl Delivered {
    /// Nothing is tried yet.
    pub(super) fn new(wanted: Delivery, template: &Template) -> Result<Delivered, TemplateError> {
        let installing = match wanted {
            Delivery::Template => None,
            Delivery::Auto => Some(installing(template).ok_or(TemplateError::NoImageVolume)?),
        };
        Ok(Delivered { installing, chosen: OnceLock::new(), failed: Mutex::new(None) })
    }
}

impl Kubernetes {
    /// What sandboxes are made from. Where that is to be chosen, the first call tries it and the others wait for that; what
    /// was chosen stays for as long as the process runs, and what failed is tried again after [`AGAIN`].
    pub(super) async fn delivered(&self) -> Result<&Template, BackendError> {
        if self.delivered.installing.is_none() {
            return Ok(&self.template);
        }
        let mut failed = self.delivered.failed.lock().await;
        if let Some(chosen) = self.delivered.chosen.get() {
            return Ok(chosen);
        }
        let recent = failed.as_ref().filter(|failure| failure.at.elapsed() < AGAIN).cloned();
        let tried = match recent {
            Some(failure) => Err(failure),
            None => self.choose().await,
        };
        match tried {
            Ok(template) => Ok(self.delivered.chosen.get_or_init(|| template)),
            Err(failure) => {
                let error = (failure.kind)(failure.text.clone());
                *failed = Some(failure);
                Err(error)
            }
        }
    }

    async fn choose(&self) -> Result<Template, Failure> {
        let Tried { works, findings, unclear } = self.tried().await;
        if let Some(template) = works {
            findings.iter().for_each(|finding| tracing::info!(%finding, "how the supervisor comes into sandboxes"));
            return Ok(template.clone());
        }
        let told = ["as an image volume", "by an init container"].into_iter().zip(&findings);
        let told = told.map(|(way, finding)| format!("the supervisor cannot be had {way}: {}", finding.text()));
        let kind: fn(String) -> BackendError = match unclear {
            Some(BackendError::Full(_)) => BackendError::Full,
            Some(_) => BackendError::Away,
            None => BackendError::Operator,
        };
        Err(Failure { at: Instant::now(), kind, text: told.collect::<Vec<_>>().join("; ") })
    }

    /// The templates that may come into question, the better ones first.
    pub(super) fn candidates(&self) -> impl Iterator<Item = &Template> {
        std::iter::once(&self.template).chain(&self.delivered.installing)
    }

    /// Run a Pod of each until one works, or one has not shown that it does not.
    pub async fn tried(&self) -> Tried<'_> {
        let mut findings = Vec::new();
        for template in self.candidates() {
            let trial = self.trial(template).await;
            let finding = trial.finding();
            match trial {
                Trial::Works(_) => {
                    let findings = findings.iter().map(instead).chain([finding]).collect();
                    return Tried { works: Some(template), findings, unclear: None };
                }
                Trial::Refuted(_) => findings.push(finding),
                Trial::Unclear(error) => {
                    findings.push(finding);
                    return Tried { works: None, findings, unclear: Some(error) };
                }
            }
        }
        Tried { works: None, findings, unclear: None }
    }
}

/// What trials have shown.
pub struct Tried<'t> {
    works: Option<&'t Template>,
    /// One for each, for people.
    pub findings: Vec<Finding>,
    /// Why the last one has shown nothing.
    unclear: Option<BackendError>,
}

/// What hindered an image volume, where the init container works.
pub(super) fn instead(finding: &Finding) -> Finding {
    Finding::Warning(format!(
        "an init container copies the supervisor, for an image volume does not work: {}",
        finding.text()
    ))
}

/// The same with an init container `install` that copies what the image volume would show; `None` where the supervisor's program is
/// in no image volume that is mounted as a whole, or the name is taken.
fn installing(template: &Template) -> Option<Template> {
    let (mut pod, agent) = template.pod();
    let spec = pod.spec.as_mut()?;
    let container = spec.containers.get(agent)?.clone();
    let program = container.command.as_ref()?.first()?;
    let mount = container.volume_mounts.iter().flatten().find(|mount| holds(mount, program))?.clone();
    let volume = spec.volumes.iter_mut().flatten().find(|volume| volume.name == mount.name)?;
    let image = volume.image.take()?;
    volume.empty_dir = Some(EmptyDirVolumeSource { size_limit: Some(Quantity("64Mi".into())), ..Default::default() });
    let install = copying(image, volume, &mount, &container)?;
    let init = spec.init_containers.get_or_insert_default();
    let taken = init.iter().any(|other| other.name == install.name);
    init.insert(0, install);
    (!taken).then(|| template.with(pod))
}

fn holds(mount: &VolumeMount, program: &str) -> bool {
    let inside = program.strip_prefix(mount.mount_path.trim_end_matches('/'));
    mount.sub_path.is_none() && mount.sub_path_expr.is_none() && inside.is_some_and(|rest| rest.starts_with('/'))
}

/// With no more rights than the agent's own container.
fn copying(image: ImageVolumeSource, volume: &Volume, mount: &VolumeMount, agent: &Container) -> Option<Container> {
    let amounts = |pairs: &[(&str, &str)]| {
        Some(pairs.iter().map(|(name, amount)| ((*name).into(), Quantity((*amount).into()))).collect())
    };
    let path = mount.mount_path.clone();
    Some(Container {
        name: "install".into(),
        image: Some(image.reference?),
        image_pull_policy: image.pull_policy,
        command: Some(vec!["/supervisor".into(), "install".into(), path.clone()]),
        security_context: agent.security_context.clone(),
        resources: Some(ResourceRequirements {
            requests: amounts(&[("cpu", "10m"), ("memory", "16Mi")]),
            limits: amounts(&[("memory", "64Mi")]),
            ..ResourceRequirements::default()
        }),
        volume_mounts: Some(vec![VolumeMount {
            name: volume.name.clone(),
            mount_path: path,
            ..VolumeMount::default()
        }]),
        ..Container::default()
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::super::template::tests::PLAIN;
    use super::*;

    fn with_image_volume() -> String {
        PLAIN
            .replace("volumeMounts: [", "volumeMounts: [{name: chaperone, mountPath: /chaperone, readOnly: true}, ")
            .replace(
                "  volumes:\n",
                "  volumes:\n    - {name: chaperone, image: {reference: example/supervisor:1, pullPolicy: Never}}\n",
            )
            .replace("      ports:", "      securityContext: {runAsUser: 7}\n      ports:")
    }

    fn installs(text: &str) -> Option<Pod> {
        installing(&Template::parse(text).expect("a good template")).map(|template| template.pod().0)
    }

    #[test]
    fn an_image_volume_becomes_an_empty_one_that_an_init_container_fills() {
        let pod = installs(&with_image_volume()).expect("it has an image volume");
        let spec = pod.spec.expect("a spec");
        let volume = spec.volumes.iter().flatten().find(|volume| volume.name == "chaperone").expect("kept");
        assert!(volume.image.is_none() && volume.empty_dir.is_some());
        let [install] = spec.init_containers.as_deref().unwrap_or_default() else { panic!("one") };
        assert_eq!(
            (install.image.as_deref(), install.image_pull_policy.as_deref()),
            (Some("example/supervisor:1"), Some("Never"))
        );
        assert_eq!(install.command.as_deref().unwrap_or_default(), ["/supervisor", "install", "/chaperone"]);
        assert_eq!(install.security_context, spec.containers[0].security_context, "no more rights than the agent's");
        let [mount] = install.volume_mounts.as_deref().unwrap_or_default() else { panic!("one") };
        assert_eq!((mount.name.as_str(), mount.read_only), ("chaperone", None));
        let agent = spec.containers[0].volume_mounts.iter().flatten().find(|mount| mount.name == "chaperone");
        assert_eq!(agent.and_then(|mount| mount.read_only), Some(true));
    }

    #[test]
    fn where_the_program_is_in_no_image_volume_there_is_nothing_to_choose() {
        assert!(installs(PLAIN).is_none());
        assert!(installs(&with_image_volume().replace("mountPath: /chaperone,", "mountPath: /chap,")).is_none());
        assert!(
            installs(&with_image_volume().replace("mountPath: /chaperone,", "mountPath: /chaperone, subPath: x,"))
                .is_none()
        );
        let taken = "  volumes:\n";
        let taken =
            with_image_volume().replace(taken, &format!("  initContainers: [{{name: install, image: x}}]\n{taken}"));
        assert!(installs(&taken).is_none());
        let template = Template::parse(PLAIN).expect("a good template");
        assert!(matches!(Delivered::new(Delivery::Auto, &template), Err(TemplateError::NoImageVolume)));
        assert!(Delivered::new(Delivery::Template, &template).is_ok());
    }
}
