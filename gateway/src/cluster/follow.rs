//! The Pods of a namespace as they come, change and go: listed, then watched, and listed again where a watch has lost its place.

use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, WatchEvent, WatchParams};

use super::pages::pages;
use crate::exit::reason;

/// The server ends a watch after so long, and another one begins.
const WATCH_SECONDS: u32 = 280;
/// Between two attempts to list.
const PAUSE: Duration = Duration::from_secs(3);

/// What is told.
pub enum Change {
    /// All that there are, in the place of what was told before.
    All(Vec<Pod>),
    /// One that has come or changed.
    There(Pod),
    /// One that has gone, as it was.
    Gone(Pod),
    /// What changes is not known now, and why; once, until all of them are told again.
    Away(String),
}

/// Tell of the Pods with these labels for as long as the process lives. `whose` is for the log, where it cannot be done.
pub async fn follow(pods: Api<Pod>, selector: &str, whose: &str, mut take: impl FnMut(Change)) {
    let mut away = false;
    loop {
        let mut tell = |change| {
            if matches!(change, Change::All(_)) && std::mem::take(&mut away) {
                tracing::info!("{whose} are watched again");
            }
            take(change);
        };
        if let Err(error) = once(&pods, selector, &mut tell).await {
            if !std::mem::replace(&mut away, true) {
                let error = reason(&error);
                tracing::warn!(error, "{whose} cannot be watched now");
                take(Change::Away(error));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// List, then watch for as long as that goes.
async fn once(pods: &Api<Pod>, selector: &str, take: &mut impl FnMut(Change)) -> Result<(), kube::Error> {
    let page = |wanted| {
        let pods = pods.clone();
        async move { pods.list(&wanted).await }
    };
    let (all, mut version) = pages(selector, page).await?;
    take(Change::All(all));
    loop {
        let wanted = WatchParams::default().labels(selector).timeout(WATCH_SECONDS);
        let mut events = pods.watch(&wanted, &version).await?.boxed();
        while let Some(event) = events.next().await {
            match event? {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                    version = pod.resource_version().unwrap_or(version);
                    take(Change::There(pod));
                }
                WatchEvent::Deleted(pod) => {
                    version = pod.resource_version().unwrap_or(version);
                    take(Change::Gone(pod));
                }
                WatchEvent::Bookmark(mark) => version = mark.metadata.resource_version,
                // What lies between is not kept any more.
                WatchEvent::Error(status) if status.code == 410 => return Ok(()),
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            }
        }
    }
}
