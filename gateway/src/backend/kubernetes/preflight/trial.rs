//! One Pod of the template that runs `supervisor preflight` and ends: image, delivery, node and confinement are tried as a
//! sandbox's are, and not only asked about.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, LogParams, PostParams, WatchParams};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::super::stage::{Stage, stage};
use super::super::{Kubernetes, Template, absent, names, pod};
use super::Finding;
use crate::backend::BackendError;
use crate::backend::words::cut;

/// The label of such a Pod: none of a sandbox's, so that it is taken for none.
const LABEL: &str = "openhive.io/preflight";
/// Read of its answer.
const ANSWER: i64 = 1024 * 1024;
/// Until the server ends a watch of it.
const WATCH_SECONDS: u32 = 20;

/// What such a Pod has shown.
pub(in super::super) enum Trial {
    /// A supervisor has run in it, and says what holds there.
    Works(String),
    /// It is of no use as it is: refused, not started, or without a supervisor that could run.
    Refuted(String),
    /// Something else came between: no room, no time, nobody who answers.
    Unclear(BackendError),
}

impl Trial {
    /// For people.
    pub(in super::super) fn finding(&self) -> Finding {
        match self {
            Trial::Works(how) => Finding::Good(how.clone()),
            Trial::Refuted(why) => Finding::Bad(why.clone()),
            Trial::Unclear(error) => Finding::of(error),
        }
    }
}

impl Kubernetes {
    /// Make it, wait for its end, and delete it.
    pub(in super::super) async fn trial(&self, template: &Template) -> Trial {
        let name = format!("gateway-preflight-{}", names::hash(&self.config.controller));
        // One that an earlier preflight could not delete.
        let run = async {
            self.delete_trial(&name).await?;
            self.run_trial(template, &name).await
        };
        let trial = run.await.unwrap_or_else(|error| match error {
            BackendError::Refused(why) => Trial::Refuted(why),
            error => Trial::Unclear(error),
        });
        match self.delete_trial(&name).await {
            Ok(()) => trial,
            Err(error) => Trial::Unclear(BackendError::Away(format!("Pod {name} is left over: {error}"))),
        }
    }

    async fn run_trial(&self, template: &Template, name: &str) -> Result<Trial, BackendError> {
        let pods: Api<Pod> = self.api();
        let wanted = self.trial_pod(template, name);
        pods.create(&PostParams::default(), &wanted)
            .await
            .map_err(|error| self.act("create", "Pod", name).refused(&error))?;
        let deadline = Instant::now() + self.config.limits.ready;
        let ended = timeout_at(deadline, self.until_over(name)).await;
        Ok(match ended {
            Err(_) => Trial::Unclear(BackendError::Slow(format!(
                "Pod {name} has not ended within {:?}",
                self.config.limits.ready
            ))),
            Ok(stage) => match stage? {
                Stage::Stuck(reason) => Trial::Refuted(format!("Pod {name}: {reason}")),
                Stage::Unschedulable { reason, .. } => {
                    Trial::Unclear(BackendError::Full(format!("Pod {name}: {reason}")))
                }
                Stage::Ended { code, reason } => self.judge(name, code, &reason).await,
                _ => Trial::Unclear(BackendError::Away(format!("Pod {name} was deleted by somebody"))),
            },
        })
    }

    /// From a sandbox's Pod: its init containers and the agent's container, with another command and without probes.
    fn trial_pod(&self, template: &Template, name: &str) -> Pod {
        let (mut pod, agent) = template.pod();
        pod.metadata.name = Some(name.into());
        let label = BTreeMap::from([(LABEL.into(), names::hash(&self.config.controller))]);
        pod.metadata.labels.get_or_insert_default().extend(label);
        if let Some(spec) = &mut pod.spec {
            let mut container = spec.containers.swap_remove(agent);
            let supervisor = container.command.iter().flatten().next().cloned().unwrap_or_default();
            container.command = Some(vec![supervisor, "preflight".into(), "--json".into()]);
            container.args = None;
            pod::identify(&mut container, name, &self.config.controller);
            (container.startup_probe, container.liveness_probe, container.readiness_probe) = (None, None, None);
            container.lifecycle = None;
            if let Some(image) = &self.config.preflight_image {
                container.image = Some(image.clone());
            }
            spec.containers = vec![container];
            spec.restart_policy = Some("Never".into());
            spec.active_deadline_seconds = i64::try_from(self.config.limits.ready.as_secs()).ok();
        }
        pod
    }

    /// Until it has ended, or never will.
    async fn until_over(&self, name: &str) -> Result<Stage, BackendError> {
        let pods: Api<Pod> = self.api();
        let refused = |error: kube::Error| self.act("watch", "Pod", name).refused(&error);
        let wanted = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(WATCH_SECONDS);
        let mut unschedulable = None;
        loop {
            let pod = pods.get(name).await.map_err(refused)?;
            let found = stage(&pod, self.template.agent());
            match found {
                Stage::Starting { .. } | Stage::Ready => {}
                // A cluster that grows may be about to.
                Stage::Unschedulable { .. } => {
                    let since: &mut Instant = unschedulable.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.config.limits.unschedulable {
                        return Ok(found);
                    }
                }
                over => return Ok(over),
            }
            let version = pod.resource_version().unwrap_or_default();
            let mut events = pods.watch(&wanted, &version).await.map_err(refused)?.boxed();
            let _ = tokio::time::timeout(Duration::from_secs(WATCH_SECONDS.into()), events.next()).await;
        }
    }

    /// What it says.
    async fn judge(&self, name: &str, code: Option<i32>, reason: &str) -> Trial {
        let wanted = LogParams {
            container: Some(self.template.agent().into()),
            limit_bytes: Some(ANSWER),
            ..LogParams::default()
        };
        let log = self.api::<Pod>().logs(name, &wanted).await.unwrap_or_default();
        let answer = log.lines().find_map(|line| serde_json::from_str::<Value>(line).ok()).unwrap_or_default();
        if answer["ok"] == true {
            let facts = &answer["facts"];
            let kernel = cut(facts["kernel"].as_str().unwrap_or("unknown"));
            let guarantees = answer["guarantees"].as_array().map_or(0, Vec::len);
            return Trial::Works(format!(
                "Pod {name} has run the supervisor: {guarantees} guarantees tried, kernel {kernel}, Landlock ABI {}",
                facts["landlock_abi"].as_u64().unwrap_or(0)
            ));
        }
        let told = [answer["failure"].as_str().map(str::to_owned), Some(answer["mistakes"].to_string())];
        let told: Vec<String> = told.into_iter().flatten().filter(|text| text != "null" && text != "[]").collect();
        let told = cut(&if told.is_empty() { reason.to_owned() } else { told.join("; ") });
        Trial::Refuted(format!("Pod {name} ended with exit code {}: {told}", code.unwrap_or(-1)))
    }

    async fn delete_trial(&self, name: &str) -> Result<(), BackendError> {
        let pods: Api<Pod> = self.api();
        let refused = |error: kube::Error| self.act("delete", "Pod", name).refused(&error);
        let now = DeleteParams::default().grace_period(0);
        pods.delete(name, &now).await.map(|_| ()).or_else(absent).map_err(refused)
    }
}
