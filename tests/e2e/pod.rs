//! A Pod that runs: its status, logs, health, and commands in it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};
use kube::Client;
use kube::api::{Api, AttachParams, DeleteParams, LogParams, Patch, PatchParams};
use protocol::health::Health;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::cluster::{Scene, until};

/// The container that the supervisor runs in.
pub(crate) const AGENT: &str = "agent";

/// Enough for the scheduler, the kubelet and a few back-offs on a busy two-core node.
pub(crate) const SOON: Duration = Duration::from_secs(90);

/// Keeps a deleted Pod's last status readable until the test has read it.
const FINALIZER: &str = "chaperone.io/e2e";

/// One Pod, and the container in it that a test is about.
pub(crate) struct Running {
    pub(crate) api: Api<Pod>,
    client: Client,
    namespace: String,
    pub(crate) name: String,
    container: String,
}

/// What a command in a container answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Running {
    /// A Pod whose container has a name.
    pub(crate) fn new(scene: &Scene, name: &str, container: &str) -> Running {
        Running {
            api: scene.api(),
            client: scene.client.clone(),
            namespace: scene.namespace.clone(),
            name: name.to_owned(),
            container: container.to_owned(),
        }
    }

    /// Looks at the Pod until `look` answers.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl FnMut(&Pod) -> Option<T>) -> T {
        until(what, SOON, async || self.api.get(&self.name).await.ok().and_then(|pod| look(&pod))).await
    }

    /// Until the kubelet calls the Pod Ready.
    pub(crate) async fn ready(&self) {
        self.until("the Pod is Ready", |pod| is_ready(pod).then_some(())).await;
    }

    /// Until its container runs, ready or not.
    pub(crate) async fn started(&self) {
        self.until("its container runs", |pod| {
            state(pod, &self.container).and_then(|s| s.running.as_ref().map(|_| ()))
        })
        .await;
    }

    /// Until its container has ended for good.
    pub(crate) async fn ended(&self) -> ContainerStateTerminated {
        self.until("its container has ended", |pod| state(pod, &self.container).and_then(|s| s.terminated.clone()))
            .await
    }

    /// `Failed` or `Succeeded`, once the kubelet has decided; the phase may lag behind the containers' states.
    pub(crate) async fn outcome(&self) -> String {
        self.until("the Pod is over", |pod| is_over(pod).then(|| pod.status.as_ref()?.phase.clone()).flatten()).await
    }

    /// Until its container has been started again `restarts` times; answers how it ended the last time.
    pub(crate) async fn restarted(&self, restarts: i32) -> ContainerStateTerminated {
        self.until("the kubelet has restarted the container", |pod| {
            let status = container(pod, &self.container)?;
            let running = status.state.as_ref().is_some_and(|s| s.running.is_some());
            (status.restart_count >= restarts && running).then(|| status.last_state.clone()?.terminated).flatten()
        })
        .await
    }

    /// Deletes the Pod and answers how its container ended, which a deleted Pod no longer tells by itself.
    pub(crate) async fn delete(&self, grace: u32) -> ContainerStateTerminated {
        self.finalizers(json!([FINALIZER])).await;
        self.api.delete(&self.name, &DeleteParams::default().grace_period(grace)).await.expect("a Pod can be deleted");
        let ended = self.ended().await;
        self.finalizers(Value::Null).await;
        ended
    }

    /// Until the Pod is gone.
    pub(crate) async fn gone(&self) {
        until("the Pod is gone", SOON, async || matches!(self.api.get_opt(&self.name).await, Ok(None)).then_some(()))
            .await;
    }

    async fn finalizers(&self, finalizers: Value) {
        let patch = Patch::Merge(json!({ "metadata": { "finalizers": finalizers } }));
        self.api.patch(&self.name, &PatchParams::default(), &patch).await.expect("a finalizer can be set");
    }

    /// What a container has written to stdout and stderr so far.
    pub(crate) async fn logs_of(&self, container: &str) -> String {
        let wanted = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
        self.api.logs(&self.name, &wanted).await.unwrap_or_default()
    }

    /// The agent's lines: all but the supervisor's own, which are JSON objects with a level.
    pub(crate) async fn agent_output(&self) -> Vec<String> {
        let log = self.logs_of(&self.container).await;
        log.split_inclusive('\n').filter(|line| !is_ours(line)).map(str::to_owned).collect()
    }

    /// Until the agent has written this line.
    pub(crate) async fn says(&self, line: &str) {
        let what = format!("the agent says {line:?}");
        until(&what, SOON, async || {
            // Looked at first, so that what a Pod said before it ended is not missed.
            let over = self.api.get(&self.name).await.is_ok_and(|pod| is_over(&pod));
            let said = self.agent_output().await.iter().any(|l| l.trim_end_matches('\n') == line);
            assert!(said || !over, "the Pod has ended before {what}");
            said.then_some(())
        })
        .await;
    }

    /// GET through the API server's proxy to the supervisor's port: status and body.
    pub(crate) async fn get(&self, path: &str) -> Option<(u16, String)> {
        let url = format!("/api/v1/namespaces/{}/pods/{}:8091/proxy{path}", self.namespace, self.name);
        let mut request = kube::core::Request::new("/api").get("x", &Default::default()).ok()?;
        *request.uri_mut() = url.parse().expect("names and paths of the tests need no escaping");
        let response = self.client.send(request.map(Into::into)).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect_bytes().await.ok()?;
        Some((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Health, once the supervisor answers.
    pub(crate) async fn health(&self) -> Health {
        until("/healthz answers", SOON, async || {
            let (_, body) = self.get("/healthz").await?;
            serde_json::from_str(&body).ok()
        })
        .await
    }

    /// The value of one metric line, `name` or `name{labels}` as printed.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await?;
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Runs a command in its container, as `kubectl exec` does.
    pub(crate) async fn exec(&self, command: &[&str]) -> Answer {
        self.exec_in(&self.container, command).await
    }

    /// Runs a command in one container.
    pub(crate) async fn exec_in(&self, container: &str, command: &[&str]) -> Answer {
        let wanted = AttachParams::default().container(container).stdin(false).stdout(true).stderr(true);
        let mut process = self.api.exec(&self.name, command.iter().copied(), &wanted).await.expect("exec is accepted");
        let (mut out, mut err) = (process.stdout(), process.stderr());
        let status = process.take_status();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let read_out = async {
            if let Some(out) = &mut out {
                out.read_to_end(&mut stdout).await.expect("stdout can be read");
            }
        };
        let read_err = async {
            if let Some(err) = &mut err {
                err.read_to_end(&mut stderr).await.expect("stderr can be read");
            }
        };
        tokio::join!(read_out, read_err);
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Answer { code: exit_code(status.as_ref()), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Runs a shell script in its container and answers what it printed; it has to succeed.
    pub(crate) async fn shell(&self, script: &str) -> String {
        let answer = self.exec(&["bash", "-c", script]).await;
        assert_eq!(answer.code, 0, "{script}: {}{}", answer.stdout, answer.stderr);
        answer.stdout
    }
}

/// One of the supervisor's own log lines.
fn is_ours(line: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|v| v.get("level").is_some() && v.get("timestamp").is_some())
}

/// The API server says Success, or Failure with the exit code among the causes.
fn exit_code(status: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Status>) -> i32 {
    let Some(status) = status else { return -1 };
    if status.status.as_deref() == Some("Success") {
        return 0;
    }
    let causes = status.details.iter().flat_map(|d| d.causes.iter().flatten());
    let code =
        causes.filter(|c| c.reason.as_deref() == Some("ExitCode")).find_map(|c| c.message.as_ref()?.parse().ok());
    code.unwrap_or(-1)
}

/// The condition Ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Whether nothing will run in this Pod any more.
fn is_over(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).is_some_and(|phase| phase == "Failed" || phase == "Succeeded")
}

/// Status of one container.
pub(crate) fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    status.container_statuses.iter().flatten().find(|c| c.name == name)
}

/// Running, waiting or terminated.
pub(crate) fn state<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerState> {
    container(pod, name)?.state.as_ref()
}

/// The termination message, which is JSON.
pub(crate) fn message(ended: &ContainerStateTerminated) -> Value {
    let text = ended.message.as_deref().unwrap_or_default();
    serde_json::from_str(text).unwrap_or_else(|e| panic!("the termination message is not JSON ({e}): {text:?}"))
}
