//! One test over many rows, a few at a time, that says which rows went wrong.

use std::sync::Mutex;

/// As many at once as keeps two cores busy while others wait.
const AT_ONCE: usize = 3;

/// Try every row; a row's problem is one line. Panics with all of them.
#[track_caller]
pub fn each<T: Send>(what: &str, rows: impl IntoIterator<Item = T>, attempt: impl Fn(T) -> Option<String> + Sync) {
    none(what, &wrong(rows, attempt));
}

/// Panics with all problems, where there are any.
#[track_caller]
pub fn none(what: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{what}: {} went wrong\n{}", wrong.len(), wrong.join("\n"));
}

/// Try every row; the problems, in order.
pub fn wrong<T: Send>(rows: impl IntoIterator<Item = T>, attempt: impl Fn(T) -> Option<String> + Sync) -> Vec<String> {
    let left = Mutex::new(rows.into_iter().collect::<Vec<T>>());
    let wrong = Mutex::new(Vec::new());
    let next = || left.lock().expect("no panic holds it").pop();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(row) = next() {
                    if let Some(problem) = attempt(row) {
                        wrong.lock().expect("no panic holds it").push(problem);
                    }
                }
            });
        }
    });
    let mut wrong: Vec<String> = wrong.into_inner().expect("no panic held it");
    wrong.sort();
    wrong
}
