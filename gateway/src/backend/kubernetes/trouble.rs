//! What a Pod's status leaves out: its newest warning, and what a container wrote before it ended. Asked for only where a sandbox
//! does not come up (002-19), and never more than fits (002-18).

use futures_util::io::AsyncReadExt;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::ResourceExt;
use kube::api::{ListParams, LogParams};

use super::Kubernetes;
use crate::backend::words::{cut, cut_to_end};

/// Events that are looked at.
const EVENTS: u32 = 50;
/// Read of a log, whatever the server sends.
const LOG: i64 = 1024 * 1024;
/// Of its end, so many lines are told.
const LINES: i64 = 5;

impl Kubernetes {
    /// In words, where there are any. Who may not read events or logs is told less, and no error.
    pub(super) async fn trouble(&self, id: &str) -> Option<String> {
        let pod = self.pod(id).await.ok().flatten()?;
        let told = [self.warning(&pod).await, self.last_words(&pod).await];
        let told: Vec<String> = told.into_iter().flatten().collect();
        (!told.is_empty()).then(|| told.join("; "))
    }

    async fn warning(&self, pod: &Pod) -> Option<String> {
        let of_it = format!("involvedObject.uid={},type=Warning", pod.uid()?);
        let wanted = ListParams::default().fields(&of_it).limit(EVENTS);
        let events = self.api::<Event>().list(&wanted).await.ok()?;
        // That a probe was not answered says nothing of why.
        let telling = events.items.into_iter().filter(|event| event.reason.as_deref() != Some("Unhealthy"));
        let newest = telling.max_by_key(|event| {
            let time = event.last_timestamp.as_ref().map(|time| time.0);
            time.or_else(|| event.event_time.as_ref().map(|time| time.0))
        })?;
        let reason = newest.reason.unwrap_or_default();
        Some(cut(&format!("{reason}: {}", newest.message.unwrap_or_default())))
    }

    async fn last_words(&self, pod: &Pod) -> Option<String> {
        let status = pod.status.as_ref()?;
        let init = status.init_container_statuses.iter().flatten();
        let failed = init.chain(status.container_statuses.iter().flatten()).find_map(how_it_failed)?;
        let (container, previous) = failed;
        let wanted = LogParams {
            container: Some(container.clone()),
            previous,
            tail_lines: Some(LINES),
            limit_bytes: Some(LOG),
            ..LogParams::default()
        };
        let log = self.api::<Pod>().log_stream(&pod.name_any(), &wanted).await.ok()?;
        let mut bytes = Vec::new();
        // Also where a server minds no limit.
        log.take(LOG.unsigned_abs()).read_to_end(&mut bytes).await.ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        (!text.is_empty()).then(|| format!("container {container} wrote last: {}", cut_to_end(text)))
    }
}

/// A container that ended badly and told the kubelet nothing; whether its log is that of the run before.
fn how_it_failed(container: &ContainerStatus) -> Option<(String, bool)> {
    let of = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| state.as_ref()?.terminated.clone();
    let (terminated, previous) = match of(&container.state) {
        Some(terminated) => (terminated, false),
        None => (of(&container.last_state)?, true),
    };
    let silent = terminated.message.as_deref().is_none_or(|message| message.trim().is_empty());
    (terminated.exit_code != 0 && silent).then(|| (container.name.clone(), previous))
}
