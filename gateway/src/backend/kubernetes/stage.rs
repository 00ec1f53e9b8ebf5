//! What a Pod's status says of its sandbox, in words that an operator can act on (002-17, 003-22..24). No I/O, no clock.

use std::time::Duration;

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodCondition, PodStatus,
};
use serde_json::Value;

use crate::backend::State;
use crate::backend::words::cut;

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the making of a Pod to its readiness.
    pub ready: Duration,
    /// Until a Pod that no node takes is called failed.
    pub unschedulable: Duration,
}

/// What a Pod is doing; what follows from it depends on the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No node takes it, since then (Unix milliseconds).
    Unschedulable { since_ms: i64, reason: String },
    /// It has not been ready yet.
    Starting { since_ms: i64, reason: Option<String> },
    /// It cannot start as it is.
    Stuck(String),
    /// Its supervisor answers.
    Ready,
    /// It has ended.
    Ended { code: Option<i32>, reason: String },
    /// It was deleted and ends.
    Ending,
}

impl Stage {
    /// At this time.
    pub(crate) fn state(&self, now_ms: i64, limits: Limits) -> State {
        let over =
            |since_ms: i64, limit: Duration| now_ms - since_ms >= i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        let failed = |reason: String| State::Failed { code: None, reason };
        match self {
            Stage::Unschedulable { since_ms, reason } if over(*since_ms, limits.unschedulable) => {
                failed(format!("no node takes it for {}: {reason}", humantime::format_duration(limits.unschedulable)))
            }
            Stage::Unschedulable { reason, .. } => {
                State::Starting { reason: Some(format!("no node takes it yet: {reason}")) }
            }
            Stage::Starting { since_ms, reason } if over(*since_ms, limits.ready) => {
                let why = reason.as_deref().unwrap_or("its supervisor does not answer");
                failed(format!("it is not ready after {}: {why}", humantime::format_duration(limits.ready)))
            }
            Stage::Starting { reason, .. } => State::Starting { reason: reason.clone() },
            Stage::Stuck(reason) => failed(reason.clone()),
            Stage::Ready => State::Running,
            Stage::Ended { code: Some(0), .. } => State::Ended,
            Stage::Ended { code, reason } => State::Failed { code: *code, reason: reason.clone() },
            Stage::Ending => State::Ending,
        }
    }
}

/// Of a Pod whose agent's container has this name.
pub(crate) fn stage(pod: &Pod, agent: &str) -> Stage {
    if pod.metadata.deletion_timestamp.is_some() {
        return Stage::Ending;
    }
    let nothing = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&nothing);
    let condition = |name: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == name);
    let containers = || all(&status.init_container_statuses).chain(all(&status.container_statuses));
    if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        return ended(pod, status, agent);
    }
    if let Some(scheduled) = condition("PodScheduled").filter(|scheduled| scheduled.status == "False") {
        return Stage::Unschedulable { since_ms: since_ms(pod, Some(scheduled)), reason: words(scheduled) };
    }
    if let Some(reason) = containers().find_map(stuck) {
        return Stage::Stuck(reason);
    }
    let ready = condition("Ready");
    if ready.is_some_and(|ready| ready.status == "True") {
        return Stage::Ready;
    }
    let reason = containers().find_map(waiting).or_else(|| match (status.phase.as_deref(), ready) {
        // Its node does not answer, for instance.
        (Some("Running"), Some(ready)) if ready.reason.as_deref() != Some("ContainersNotReady") => Some(words(ready)),
        (Some("Running"), _) => Some("it runs and does not pass its readiness check".into()),
        _ => None,
    });
    // One that was ready before has its time anew.
    Stage::Starting { since_ms: since_ms(pod, ready), reason }
}

fn all(statuses: &Option<Vec<ContainerStatus>>) -> impl Iterator<Item = &ContainerStatus> {
    statuses.iter().flatten()
}

/// Since when a condition is as it is, or else since the Pod was made, in Unix milliseconds.
fn since_ms(pod: &Pod, condition: Option<&PodCondition>) -> i64 {
    let told = condition.and_then(|condition| condition.last_transition_time.as_ref());
    let made = pod.metadata.creation_timestamp.as_ref();
    told.or(made).map_or(i64::MAX, |time| time.0.as_millisecond())
}

fn words(condition: &PodCondition) -> String {
    cut(condition.message.as_deref().or(condition.reason.as_deref()).unwrap_or("no reason is told"))
}

/// What the node says of the whole Pod (Evicted, DeadlineExceeded) is the cause of what its containers say.
fn ended(pod: &Pod, status: &PodStatus, agent: &str) -> Stage {
    if status.phase.as_deref() == Some("Succeeded") {
        return Stage::Ended { code: Some(0), reason: "it has ended".into() };
    }
    let terminated =
        |container: &&ContainerStatus| container.state.as_ref().is_some_and(|state| state.terminated.is_some());
    let main = all(&status.container_statuses).filter(terminated).find(|container| container.name == agent);
    // Without it, whatever ended badly before it; but a sidecar's end is the work of whoever ends the Pod.
    let sidecars = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars: Vec<&str> =
        sidecars.filter(|c| c.restart_policy.is_some()).map(|container| container.name.as_str()).collect();
    let before = all(&status.init_container_statuses).filter(terminated);
    let mut before =
        before.filter(|container| !sidecars.contains(&container.name.as_str()) && code(container) != Some(0));
    let who = main.or_else(|| before.next());
    let told =
        [&status.reason, &status.message].into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(": ");
    let reason = match who.and_then(|container| Some((container, container.state.as_ref()?.terminated.as_ref()?))) {
        _ if !told.is_empty() => cut(&told),
        Some((container, end)) if container.name == agent => cut(&terminated_words(end)),
        Some((container, end)) => cut(&format!("container {}: {}", container.name, terminated_words(end))),
        None => "its Pod has failed, and nobody tells why".into(),
    };
    Stage::Ended { code: who.and_then(code).filter(|code| *code != 0), reason }
}

fn code(container: &ContainerStatus) -> Option<i32> {
    Some(container.state.as_ref()?.terminated.as_ref()?.exit_code)
}

/// Why a container does not start and will not by itself, or only if somebody mends what it names.
fn stuck(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let (name, image) = (cut(&container.name), cut(&container.image));
    let told = cut(waiting.message.as_deref().unwrap_or("nothing more is told"));
    let reason = waiting.reason.as_deref()?;
    Some(match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "RegistryUnavailable"
        | "ErrImageNeverPull"
        | "InvalidImageName"
        | "ImageInspectError"
        | "SignatureValidationFailed" => format!(
            "an image for container {name} (`{image}`) cannot be had ({reason}): check its name, and image_pull_secrets: {told}"
        ),
        "ImageVolumeMountFailed" => {
            format!("an image volume cannot be mounted ({reason}): use delivery `install` on such nodes: {told}")
        }
        "CreateContainerConfigError" => {
            format!("container {name} refers to what is not there ({reason}); is a Secret or ConfigMap missing? {told}")
        }
        "CreateContainerError" | "RunContainerError" | "CreatePodSandboxError" => {
            format!("the node cannot start container {name} ({reason}): {told}")
        }
        "CrashLoopBackOff" => {
            let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
            let words = last.map(terminated_words).unwrap_or(told);
            format!("container {name} ends again and again ({} restarts): {}", container.restart_count, cut(&words))
        }
        _ => return None,
    })
}

/// What it is waiting for, where that says something.
fn waiting(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    let ContainerState { waiting: Some(waiting), .. } = state else { return None };
    let reason = waiting.reason.as_deref()?;
    // Everybody's first seconds.
    if matches!(reason, "ContainerCreating" | "PodInitializing") {
        return None;
    }
    let message = waiting.message.as_deref().map(|message| format!(": {}", cut(message))).unwrap_or_default();
    Some(cut(&format!("container {}: {reason}{message}", container.name)))
}

fn terminated_words(terminated: &ContainerStateTerminated) -> String {
    let reason = terminated.reason.as_deref().unwrap_or("ended");
    let how = format!("{reason}, exit code {}", terminated.exit_code);
    let message = terminated.message.as_deref().map(str::trim).unwrap_or_default();
    match serde_json::from_str::<Value>(message).ok().and_then(|told| told["reason"].as_str().map(str::to_owned)) {
        // The supervisor's own words.
        Some(reason) => format!("{how}: {reason}"),
        None if message.is_empty() => how,
        None => format!("{how}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LIMITS: Limits = Limits { ready: Duration::from_secs(300), unschedulable: Duration::from_secs(60) };
    /// 2026-01-01T00:00:00Z.
    const MADE_MS: i64 = 1_767_225_600_000;

    fn at(status: Value, after_ms: i64) -> State {
        let pod = json!({ "metadata": { "creationTimestamp": "2026-01-01T00:00:00Z" }, "status": status });
        let pod: Pod = serde_json::from_value(pod).expect("a Pod");
        stage(&pod, "sandbox").state(MADE_MS + after_ms, LIMITS)
    }

    fn waiting(reason: &str, message: &str) -> Value {
        let state = json!({ "waiting": { "reason": reason, "message": message } });
        let container = json!({ "name": "sandbox", "image": "example/x:1", "imageID": "", "ready": false, "restartCount": 3,
                                "state": state });
        json!({ "phase": "Pending", "containerStatuses": [container] })
    }

    fn reason(state: &State) -> &str {
        state.reason().unwrap_or_else(|| panic!("{state:?}"))
    }

    #[test]
    fn a_pod_starts_until_it_is_ready_and_has_failed_where_it_takes_too_long() {
        let creating = waiting("ContainerCreating", "");
        assert_eq!(at(creating.clone(), 1000), State::Starting { reason: None });
        let late = at(creating, 300_000);
        assert!(matches!(&late, State::Failed { .. }) && reason(&late).contains("not ready after 5m"), "{late:?}");
        let ready = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
        assert_eq!(at(ready, 400_000), State::Running);
        let unready = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "False",
            "reason": "ContainersNotReady", "lastTransitionTime": "2026-01-01T01:00:00Z" }] });
        let now = at(unready, 3_600_000 + 299_000);
        assert!(matches!(now, State::Starting { .. }) && reason(&now).contains("readiness check"), "{now:?}");
    }

    #[test]
    fn a_pod_that_no_node_takes_is_told_at_once_and_fails_after_its_limit() {
        let status = json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu.",
            "lastTransitionTime": "2026-01-01T00:00:10Z" }] });
        let early = at(status.clone(), 20_000);
        assert!(matches!(early, State::Starting { .. }) && reason(&early).contains("Insufficient cpu"), "{early:?}");
        let late = at(status, 70_000);
        assert!(matches!(late, State::Failed { .. }) && reason(&late).contains("Insufficient cpu"), "{late:?}");
    }

    #[test]
    fn each_hindrance_is_told_with_what_is_to_be_changed() {
        for (told, words) in [
            ("ImagePullBackOff", "image_pull_secrets"),
            ("InvalidImageName", "`example/x:1`"),
            ("CreateContainerConfigError", "Secret or ConfigMap"),
            ("ImageVolumeMountFailed", "install"),
            ("CrashLoopBackOff", "again and again (3 restarts)"),
        ] {
            let state = at(waiting(told, "the kubelet's\n  words"), 1000);
            assert!(matches!(state, State::Failed { .. }), "{state:?}");
            assert!(reason(&state).contains(words) && reason(&state).contains("the kubelet's words"), "{state:?}");
        }
    }

    #[test]
    fn names_and_images_do_not_steer_a_terminal() {
        let container = json!({ "name": "sandbox", "image": "x\u{1b}[2J", "imageID": "", "ready": false, "restartCount": 0,
                                "state": { "waiting": { "reason": "InvalidImageName" } } });
        let state = at(json!({ "phase": "Pending", "containerStatuses": [container] }), 0);
        assert!(!reason(&state).contains(protocol::words::steers) && reason(&state).contains("x [2J"), "{state:?}");
    }

    #[test]
    fn how_a_pod_ended_is_told_with_its_last_words() {
        let ended = |phase: &str, code: i32| {
            let terminated =
                json!({ "exitCode": code, "reason": "Error", "message": "{\"v\":1,\"reason\":\"no such program\"}" });
            let container = json!({ "name": "sandbox", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                                    "state": { "terminated": terminated } });
            json!({ "phase": phase, "containerStatuses": [container] })
        };
        assert_eq!(at(ended("Succeeded", 0), 0), State::Ended);
        let failed = at(ended("Failed", 71), 0);
        assert!(
            matches!(failed, State::Failed { code: Some(71), .. }) && reason(&failed).ends_with("71: no such program"),
            "{failed:?}"
        );
        let evicted = at(json!({ "phase": "Failed", "reason": "Evicted", "message": "low on memory" }), 0);
        assert_eq!(reason(&evicted), "Evicted: low on memory");
    }

    #[test]
    fn an_init_container_that_failed_is_named_and_a_sidecar_is_not() {
        let ended = |name: &str, code: i32| {
            json!({ "name": name, "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                    "state": { "terminated": { "exitCode": code, "reason": "Error" } } })
        };
        let pod = json!({
            "spec": { "containers": [], "initContainers": [{ "name": "proxy", "restartPolicy": "Always" }, { "name": "install" }] },
            "status": { "phase": "Failed", "initContainerStatuses": [ended("proxy", 137), ended("install", 3)] },
        });
        let pod: Pod = serde_json::from_value(pod).expect("a Pod");
        let state = stage(&pod, "sandbox").state(0, LIMITS);
        assert_eq!(state, State::Failed { code: Some(3), reason: "container install: Error, exit code 3".into() });
    }
}
