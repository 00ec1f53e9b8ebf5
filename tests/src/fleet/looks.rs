//! Somebody who looks at all sandboxes again and again, a page at a time, as a platform's dashboard does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use crate::tasks::Api;

/// For all of them.
const ROUND: Duration = Duration::from_secs(10);
/// The page that the API gives to who asks for none.
const PAGE: usize = 100;

/// They go on until they are told to stop.
pub(super) struct Looks {
    over: Arc<AtomicBool>,
    looking: Option<JoinHandle<usize>>,
}

impl Looks {
    /// At a fleet of so many.
    pub(super) fn start(api: Api, links: usize) -> Looks {
        let over = Arc::<AtomicBool>::default();
        let pause = ROUND / links.div_ceil(PAGE).max(10) as u32;
        let ends = over.clone();
        let looking = std::thread::spawn(move || {
            let mut dead = 0;
            while let Some(connected) = connected(&api, PAGE, || {
                sleep(pause);
                !ends.load(Ordering::Relaxed)
            }) {
                dead = dead.max(links.saturating_sub(connected));
            }
            dead
        });
        Looks { over, looking: Some(looking) }
    }

    /// How many were called something else than connected, at most.
    pub(super) fn stop(mut self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        self.looking.take().map_or(0, |looking| looking.join().expect("the gateway answers"))
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // It would miss the gateways that end next.
        self.looking.take().map(JoinHandle::join);
    }
}

/// How many sandboxes of the fleet are called connected; none where it does not go on behind some page.
pub(super) fn connected(api: &Api, page: usize, goes_on: impl Fn() -> bool) -> Option<usize> {
    let (mut count, mut cursor) = (0, String::new());
    loop {
        let page = api.get(&format!("/v1/sandboxes?status=connected&limit={page}&cursor={cursor}")).json();
        let sandboxes = page["sandboxes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let of_fleet = |sandbox: &&serde_json::Value| sandbox["id"].as_str().is_some_and(|id| id.starts_with("s-"));
        count += sandboxes.iter().filter(of_fleet).count();
        if !goes_on() {
            return None;
        }
        match page["cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => return Some(count),
        }
    }
}
