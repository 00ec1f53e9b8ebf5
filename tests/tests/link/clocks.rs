//! A changed date, and a process that did not run for a while.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use protocol::session::{Class, Pace, Record, silence_ms};
use tests::date::Date;
use tests::gateway::{Gateway, Session};
use tests::wait::wait_until;

use super::records::take;
use super::{FAST, link_state, linked};

const YEAR: i64 = 365 * 24 * 3600;
/// Of one beat to the next.
const BEAT: Duration = Duration::from_millis(400);
const PACE: Pace = Pace { beat_ms: Some(400), phase_ms: Some(0), window_ms: None };

/// How long the next `count` beats take, which have numbers without a hole.
fn beats(session: &mut Session, count: u32) -> Duration {
    let (mut n, _) = session.beat();
    let begun = Instant::now();
    for _ in 0..count {
        n += 1;
        assert_eq!(session.beat().0, n);
    }
    begun.elapsed()
}

#[test]
fn a_date_that_is_changed_moves_no_beat_no_deadline_and_no_number() {
    let gateway = Gateway::new();
    let builder = linked(&gateway).token().set("link-offline-after", "1h").set("link-offline-action", "stop");
    let date = Date::new(&builder.path("link"));
    let supervisor =
        date.variables().into_iter().fold(builder, |builder, (name, value)| builder.env(name, value)).start();
    supervisor.wait_ready();
    let mut session = gateway.welcome(PACE);
    let (mut next, mut last) = (1, (0, 0));
    let mut follow = |session: &mut Session, until: &str| {
        let mut times = Vec::new();
        take(session, Class::Lifecycle, &mut next, |record: &Record| {
            times.push((record.wall_ms, record.boot_ms));
            record.kind == until
        });
        times
    };
    let before = follow(&mut session, "agent.ready");
    let now = before.last().expect("at least one").0;
    for years in [10, -10] {
        date.ahead(years * YEAR);
        let took = beats(&mut session, 5);
        assert!(took > BEAT * 5 / 2 && took < BEAT * 10, "{took:?} with a date {years} years on");
        // What happens now has the date as it is, and its number and boot time go on.
        session.call(&super::post("/dev-tasks?wait=30s", r#"{"argv":["true"]}"#));
        let times = follow(&mut session, "task.succeeded");
        let (wall, boot) = *times.last().expect("at least one");
        assert!((wall - now - years * YEAR * 1000).abs() < 600_000, "{wall} {now}");
        assert!(boot > last.1, "{boot}");
        last = (wall, boot);
    }
    // Without a gateway, an hour of which only the date says that it has passed ends nothing.
    drop(session);
    date.ahead(10 * YEAR);
    let dialled = Instant::now();
    let mut session = gateway.welcome(PACE);
    assert!(dialled.elapsed() < Duration::from_secs(30), "{:?}", dialled.elapsed());
    beats(&mut session, 2);
    assert_eq!(supervisor.metric("supervisor_link_offline_total{action=\"stop\"}"), None);
    assert_eq!(link_state(&supervisor), "connected");
}

/// Stopped by SIGSTOP, which the boot clock sees as it sees a machine that was suspended.
#[test]
fn time_in_which_a_sandbox_did_not_run_counts_as_time_without_a_gateway_and_never_as_time_with_one() {
    let gateway = Gateway::new();
    let builder = linked(&gateway).set("link-offline-after", "5s").set("link-offline-action", "stop");
    let mut supervisor = builder.start();
    supervisor.wait_ready();
    let mut session = gateway.welcome(FAST);
    session.beat();
    // In session for longer than Y and than the silence: the session is lost, the sandbox is not.
    supervisor.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(silence_ms(50) + 500));
    supervisor.signal(Signal::SIGCONT);
    session.rest();
    let mut session = gateway.welcome(FAST);
    session.beat();
    assert_eq!(supervisor.metric("supervisor_link_offline_total{action=\"stop\"}"), None);
    // Without one: what was chosen happens as soon as it runs again.
    drop((session, gateway));
    wait_until("it is alone", || link_state(&supervisor) != "connected");
    supervisor.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(6));
    supervisor.signal(Signal::SIGCONT);
    let awake = Instant::now();
    supervisor.wait_log("there was no gateway for as long as this sandbox may be without one");
    assert!(awake.elapsed() < Duration::from_secs(4), "{:?} of 5 s more", awake.elapsed());
    assert_eq!(supervisor.wait_code(), 143);
}
