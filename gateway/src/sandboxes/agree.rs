//! What is wanted and what there is are made to agree: at the start, and again and again. For backends whose sandboxes have an
//! identity of their own.
//!
//! Promises: what was wanted and is missing is made, what was to be ended is ended; what nobody wants is ended too, but only
//! where the backend calls it this gateway's, and where it was seen twice, a minute apart, as the same instance (000-37): a
//! request that is under way is no orphan. What cannot be done now is tried again, and told once.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::{SandboxError, Sandboxes, lock};
use crate::backend::{Managed, State};
use crate::exit::reason;
use crate::store::{Row, StoreError};

/// Between two looks.
pub const EVERY: Duration = Duration::from_secs(20);
/// Between two sightings of what nobody wants.
const ORPHAN: Duration = Duration::from_secs(60);
/// Rows of one query.
const PAGE: i64 = 500;

/// What one look has found of the other side.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Wanted, and not there, or not all of it.
    Make(String),
    /// To be ended.
    End(String),
    /// There, and wanted by nobody.
    Orphan(Managed),
}

impl Step {
    fn id(&self) -> &str {
        match self {
            Step::Make(id) | Step::End(id) => id,
            Step::Orphan(managed) => &managed.id,
        }
    }
}

/// When an orphan was seen first, by id and instance.
type Sightings = HashMap<(String, String), Instant>;

impl Sandboxes {
    /// For as long as this gateway leads.
    pub(super) async fn agree(self) {
        // To its end also where another one leads meanwhile: what it tries is removed by who has tried it.
        let preparing = self.clone();
        tokio::spawn(async move { preparing.prepare().await });
        self.look_again_and_again().await;
    }

    /// So that the first who asks for a sandbox need not wait for it, and an operator reads of trouble before a user does.
    async fn prepare(&self) {
        if let Err(error) = self.0.backend.prepare().await {
            tracing::warn!(error = reason(&error), "sandboxes cannot be made now; it is tried again with the next one");
        }
    }

    async fn look_again_and_again(&self) {
        let mut looks = tokio::time::interval(EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sightings = Sightings::new();
        loop {
            looks.tick().await;
            match self.look().await {
                Ok(steps) => self.take(due(steps, &mut sightings, Instant::now())),
                Err(error) => {
                    let error = reason(&error);
                    tracing::warn!(error, "what is wanted and what there is cannot be compared now");
                }
            }
        }
    }

    async fn look(&self) -> Result<Vec<Step>, SandboxError> {
        // In this order, so that one that was asked for and made meanwhile is not taken for missing.
        let wanted = self.wanted().await?;
        let there = self.0.backend.list().await?;
        for row in &wanted {
            // What has failed by its time alone has changed nothing.
            if self.see(row).is_some_and(|seen| matches!(seen.state, State::Failed { .. })) {
                self.tell_of(&row.id).await?;
            }
        }
        let mut steps = Vec::new();
        for step in compare(wanted, there) {
            // One that was asked for since is no orphan.
            if let Step::Orphan(managed) = &step
                && !is_nobodys(self.0.store.sandbox(&managed.id).await?.as_ref())
            {
                continue;
            }
            steps.push(step);
        }
        Ok(steps)
    }

    pub(super) async fn wanted(&self) -> Result<Vec<Row>, StoreError> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let rows = self.0.store.wanted(&after, PAGE).await?;
            let Some(last) = rows.last() else { return Ok(all) };
            after.clone_from(&last.id);
            all.extend(rows);
        }
    }

    /// Each in a task of its own: an end may have to wait for a node that does not answer. Who is busy, and an end for which there
    /// is no place now, is left for the next look.
    fn take(&self, steps: Vec<Step>) {
        for step in steps {
            let place = match step {
                Step::Make(_) => None,
                Step::End(_) | Step::Orphan(_) => match self.0.places.clone().try_acquire_owned() {
                    Ok(place) => Some(place),
                    Err(_) => continue,
                },
            };
            let Some(busy) = self.0.busy_if_free(step.id()) else { continue };
            let sandboxes = self.clone();
            tokio::spawn(async move {
                sandboxes.step(step).await;
                drop((busy, place));
            });
        }
    }

    /// One step, after a look at whether it is still to be taken.
    async fn step(&self, step: Step) {
        let (id, term) = (step.id().to_string(), self.0.lease.term());
        let row = match self.0.store.sandbox(&id).await {
            Ok(row) => row,
            Err(error) => {
                return tracing::warn!(sandbox = id, error = reason(&error), "a sandbox cannot be looked up now");
            }
        };
        let done = match (&step, row) {
            (Step::Make(_), Some(row)) if row.spec.is_some() && !row.ending => self.0.make_again(&row).await,
            (Step::End(_), Some(row)) if row.ending => self.0.end(&id, term).await,
            (Step::Orphan(managed), row) if is_nobodys(row.as_ref()) => {
                self.0.backend.delete(&id, Some(&managed.instance)).await.map_err(SandboxError::from)
            }
            _ => return,
        };
        let done = done.map_err(|error| reason(&error));
        self.note(&step, &id, done);
    }

    fn note(&self, step: &Step, id: &str, done: Result<(), String>) {
        let mut troubles = lock(&self.0.troubles);
        match done {
            Ok(()) => {
                troubles.remove(id);
                let (word, what) = match step {
                    Step::Make(_) => ("made", "was not there, or not all of it, and is whole"),
                    Step::End(_) => ("ended", "was to be ended and is"),
                    Step::Orphan(_) => ("orphan", "was wanted by nobody and is ended"),
                };
                self.0.metrics.sandboxes_mended.get_or_create(&vec![("step", word.into())]).inc();
                tracing::info!(sandbox = id, "a sandbox {what}");
            }
            Err(error) => {
                if troubles.insert(id.into(), error.clone()).as_ref() != Some(&error) {
                    tracing::warn!(sandbox = id, error, "a sandbox is not yet as it is wanted; that is tried again");
                }
            }
        }
    }
}

/// A row that its own session has made wants nothing: an orphan dials too.
fn is_nobodys(row: Option<&Row>) -> bool {
    row.is_none_or(|row| row.spec.is_none() && !row.ending)
}

/// What is to be done about each.
fn compare(wanted: Vec<Row>, there: Vec<Managed>) -> Vec<Step> {
    let mut there: BTreeMap<String, Managed> = there.into_iter().map(|managed| (managed.id.clone(), managed)).collect();
    let mut steps = Vec::new();
    for row in wanted {
        match there.remove(&row.id) {
            _ if row.ending => steps.push(Step::End(row.id)),
            Some(managed) if managed.whole => {}
            _ => steps.push(Step::Make(row.id)),
        }
    }
    steps.extend(there.into_values().map(Step::Orphan));
    steps
}

/// Those that are certain: at once, but for an orphan at its second sighting. One that is not seen again was none.
fn due(steps: Vec<Step>, sightings: &mut Sightings, now: Instant) -> Vec<Step> {
    let before = std::mem::take(sightings);
    let certain = |step: &Step| {
        let Step::Orphan(managed) = step else { return true };
        let key = (managed.id.clone(), managed.instance.clone());
        let first = *before.get(&key).unwrap_or(&now);
        sightings.insert(key, first);
        now - first >= ORPHAN
    };
    steps.into_iter().filter(certain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, ending: bool) -> Row {
        Row {
            id: id.into(),
            created_ms: 0,
            fence: 0,
            position: 0,
            hello: None,
            state: None,
            begun_ms: None,
            ended_ms: None,
            ended_awake_ms: None,
            gone: false,
            spec: Some("{}".into()),
            ending,
            owner: None,
        }
    }

    fn managed(id: &str, instance: &str, whole: bool) -> Managed {
        Managed { id: id.into(), instance: instance.into(), whole }
    }

    #[test]
    fn each_difference_has_its_step() {
        let wanted =
            vec![row("ending", true), row("gone", true), row("half", false), row("lost", false), row("well", false)];
        let there = vec![
            managed("ending", "1", true),
            managed("half", "2", false),
            managed("well", "3", true),
            managed("who", "4", true),
        ];
        let steps = compare(wanted, there);
        let of = |id: &str| id.to_string();
        let orphan = Step::Orphan(managed("who", "4", true));
        let expected =
            [Step::End(of("ending")), Step::End(of("gone")), Step::Make(of("half")), Step::Make(of("lost")), orphan];
        assert_eq!(steps, expected);
    }

    #[test]
    fn an_orphan_is_ended_after_two_sightings_of_the_same_instance_a_minute_apart() {
        let (mut seen, start) = (Sightings::new(), Instant::now());
        let look = |instance: &str, seen: &mut Sightings, after: u64| {
            due(vec![Step::Orphan(managed("a", instance, true))], seen, start + Duration::from_secs(after)).len()
        };
        assert_eq!(look("1", &mut seen, 0), 0);
        assert_eq!(look("1", &mut seen, 50), 0);
        assert_eq!(look("2", &mut seen, 61), 0, "another one is new");
        assert_eq!(look("2", &mut seen, 120), 0);
        assert_eq!(look("2", &mut seen, 121), 1);
        due(Vec::new(), &mut seen, start + Duration::from_secs(122));
        assert_eq!(look("2", &mut seen, 200), 0, "it had gone in between");
    }

    #[test]
    fn what_is_missing_or_to_be_ended_does_not_wait() {
        let (mut seen, now) = (Sightings::new(), Instant::now());
        assert_eq!(due(vec![Step::End("a".into()), Step::Make("b".into())], &mut seen, now).len(), 2);
    }
}
