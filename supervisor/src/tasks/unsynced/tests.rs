use super::super::journal::Journal;
use super::*;

/// A journal without records, and the folder whose loss makes each sync of it fail.
fn journal() -> (tempfile::TempDir, Journal) {
    let dir = tempfile::tempdir().expect("tempdir");
    let folder = dir.path().join("tasks");
    std::fs::create_dir(&folder).expect("our own directory");
    let (mut journal, _) = Journal::open(&folder.join("journal")).expect("opens");
    std::fs::rename(&folder, dir.path().join("elsewhere")).expect("our own directory");
    journal.unname();
    (dir, journal)
}

fn line(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn lines(all: &[(&str, &str)]) -> Lines {
    all.iter().map(|(id, text)| ((*id).to_owned(), line(text))).collect()
}

#[tokio::test]
async fn what_a_sync_was_refused_for_is_written_again_but_for_what_is_newer() {
    let ((_dir, journal), unsynced, metrics) = (journal(), Unsynced::default(), Metrics::default());
    unsynced.wrote("a", line("a1"));
    unsynced.wrote("b", line("b1"));
    unsynced.wrote("c", line("c1"));
    unsynced.sync(journal.syncer(), &metrics).await.expect_err("its folder is away");
    assert_eq!((metrics.journal_degraded.get(), metrics.journal_sync_failures.get()), (1, 1));
    unsynced.wrote("a", line("a2"));
    assert_eq!(unsynced.take_refused(Instant::now()), None, "not at once: each time makes the file longer");
    // This one is refused for the newer line, too.
    unsynced.sync(journal.syncer(), &metrics).await.expect_err("its folder is away");
    unsynced.wrote("c", line("c2"));
    assert_eq!(unsynced.take_refused(Instant::now() + RETRY), Some(lines(&[("a", "a2"), ("b", "b1")])));
    assert!(unsynced.again().is_none());
}

#[tokio::test]
async fn a_line_that_was_taken_back_is_not_written_again_and_what_it_stood_for_is() {
    let ((dir, journal), unsynced, metrics) = (journal(), Unsynced::default(), Metrics::default());
    unsynced.wrote("a", line("a1"));
    let before = unsynced.wrote("a", line("a2"));
    assert_eq!(before, Some(line("a1")));
    unsynced.wrote("b", line("b1"));
    unsynced.sync(journal.syncer(), &metrics).await.expect_err("its folder is away");
    unsynced.took_back("a", before);
    unsynced.took_back("b", None);
    std::fs::rename(dir.path().join("elsewhere"), dir.path().join("tasks")).expect("our own directory");
    unsynced.sync(journal.syncer(), &metrics).await.expect("it is there again");
    assert_eq!(
        unsynced.take_refused(Instant::now() + RETRY),
        Some(lines(&[("a", "a1")])),
        "a sync that was granted says nothing of that"
    );
    assert_eq!(metrics.journal_degraded.get(), 0);
}
