//! Records in the store, without a gateway before it: behind each other, whatever goes wrong between them.

use gateway::store::{Append, Appended, Begin, Page, Piece, Store, StoreError, UNTIL, migrate};
use protocol::session::Class;
use tests::postgres::Postgres;
use tokio::time::Instant;

/// Found by `torture disk`: the disk had refused the first records of a class, and those behind them were stored as the first.
#[test]
fn records_are_stored_behind_those_before_them_and_never_over_a_hole_also_the_first() {
    let place = tempfile::tempdir().expect("a scratch directory");
    stored_behind_each_other(&format!("sqlite:{}", place.path().join("gateway.db").display()));
}

/// A few of them and many take different statements there.
#[test]
fn records_are_stored_behind_those_before_them_on_postgresql_too_by_other_statements() {
    let Some(server) = Postgres::start() else { return };
    stored_behind_each_other(&server.url());
}

#[test]
fn a_write_that_waits_for_somebody_else_goes_by_what_that_one_has_left() {
    let Some(server) = Postgres::start() else { return };
    let runtime = tokio::runtime::Runtime::new().expect("it starts");
    runtime.block_on(async {
        let store = open(&server.url()).await;
        let fence = begin(&store).await;
        let others = ["position = position + 7", "fence = fence + 1"];
        for (seq, (other, then)) in (1..).zip(others.into_iter().zip([Appended::Stored, Appended::Fenced])) {
            let mut holds = server.hold("gateway", &format!("UPDATE sandboxes SET {other}; SELECT pg_sleep(1)"));
            assert_eq!(append(&store, fence, seq, seq, false).await, then, "{other}");
            assert!(holds.wait().expect("ours").success());
        }
        assert_eq!(server.sql("gateway", "SELECT position, seq FROM records"), "8|1", "behind what came between");
    });
}

/// A statement that is a transaction of its own has answered before its commit.
#[test]
fn what_is_refused_with_the_commit_is_not_told_as_stored() {
    let Some(server) = Postgres::start() else { return };
    let runtime = tokio::runtime::Runtime::new().expect("it starts");
    runtime.block_on(async {
        let store = open(&server.url()).await;
        let fence = begin(&store).await;
        let function = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
                        $$ BEGIN RAISE EXCEPTION 'the disk is full'; END $$";
        let trigger = "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON records DEFERRABLE INITIALLY DEFERRED \
                       FOR EACH ROW EXECUTE FUNCTION refuse()";
        for sql in [function, trigger] {
            server.sql("gateway", sql);
        }
        for to in [1, 9] {
            assert!(try_append(&store, fence, 1, to, false).await.is_err(), "{to}");
        }
        server.sql("gateway", "DROP TRIGGER late ON records");
        assert_eq!(server.sql("gateway", "SELECT COUNT(*) FROM records"), "0");
        assert_eq!(append(&store, fence, 1, 1, false).await, Appended::Stored);
    });
}

/// A new store, with its writer.
async fn open(url: &str) -> Store {
    migrate::up(url).await.expect("a new database");
    let (store, writer) = Store::open(url, false, Default::default()).await.expect("nobody else has it");
    tokio::spawn(writer.run());
    store
}

async fn begin(store: &Store) -> i64 {
    store.write(session()).await.expect("it is stored").expect("a session").fence
}

fn session() -> Begin {
    Begin {
        sandbox: "a".into(),
        token: None,
        hello: "{}".into(),
        epoch: "e".into(),
        applied: 0,
        owner: None,
        now_ms: 1,
        until: Instant::now() + UNTIL,
    }
}

async fn append(store: &Store, fence: i64, from: i64, to: i64, gap: bool) -> Appended {
    try_append(store, fence, from, to, gap).await.expect("the database is well")
}

async fn try_append(store: &Store, fence: i64, from: i64, to: i64, gap: bool) -> Result<Appended, StoreError> {
    let last = |seq| if gap { to } else { seq };
    let firsts = if gap { from..=from } else { from..=to };
    let pieces = firsts.map(|seq| Piece { seq, last: last(seq), gap, body: format!("{{\"n\":{seq}}}") });
    let (sandbox, epoch, pieces) = ("a".into(), "e".into(), pieces.collect());
    let append = Append { sandbox, fence, epoch, class: Class::Logs, pieces, now_ms: 1 };
    store.write(append).await
}

fn stored_behind_each_other(url: &str) {
    let runtime = tokio::runtime::Runtime::new().expect("it starts");
    runtime.block_on(async {
        let store = open(url).await;
        let fence = begin(&store).await;
        let append = async |fence, from, to, gap| append(&store, fence, from, to, gap).await;
        assert_eq!(append(fence, 4, 6, false).await, Appended::Moved, "1 to 3 are not there");
        assert_eq!(append(fence - 1, 1, 3, false).await, Appended::Fenced, "of an older session");
        assert_eq!(append(fence, 1, 3, false).await, Appended::Stored);
        assert_eq!(append(fence, 5, 6, false).await, Appended::Moved, "4 is not there");
        assert_eq!(append(fence, 14, 99, false).await, Appended::Moved, "nor are more than a few");
        assert_eq!(append(fence, 4, 4, false).await, Appended::Stored);
        assert_eq!(append(fence, 5, 9, true).await, Appended::Stored);
        assert_eq!(append(fence + 1, 10, 99, false).await, Appended::Fenced, "of a session that is none");
        // The most that go into one statement, and one more.
        assert_eq!(append(fence, 10, 13, false).await, Appended::Stored);
        assert_eq!(append(fence, 14, 18, false).await, Appended::Stored);
        assert_eq!(append(fence, 19, 99, false).await, Appended::Stored);
        assert_eq!(append(fence, 1, 3, false).await, Appended::Moved, "they are there already");
        let page = Page { class: None, after: 0, limit: 1000 };
        let events = store.events("a", page).await.expect("the database is well");
        let found = events.iter().map(|event| (event.position, event.seq, event.last, event.gap)).collect::<Vec<_>>();
        let gap = std::iter::once((5, 5, 9, true));
        let behind = (10..=99).map(|seq| (seq - 4, seq, seq, false));
        let all = (1..=4).map(|seq| (seq, seq, seq, false)).chain(gap).chain(behind).collect::<Vec<_>>();
        assert_eq!(found, all, "each has the next position");
        assert!(events.iter().all(|event| event.body == format!("{{\"n\":{}}}", event.seq)), "with its own body");
    });
}
