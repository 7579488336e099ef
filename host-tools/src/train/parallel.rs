//! Work on a few threads whose result does not depend on how many there are.

use std::sync::{Mutex, PoisonError};

/// Calls `work(state, item)` for every item, on one thread per state. Which thread takes which item
/// is left to chance, so `work` must leave the same result in the item whatever the state.
pub(crate) fn for_each<S: Send, I: Send>(
    states: &mut [S],
    items: impl Iterator<Item = I> + Send,
    work: impl Fn(&mut S, I) + Sync,
) {
    let queue = Mutex::new(items);
    // A panic inside `next` is impossible to recover from anyway; the scope passes it on.
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = |state: &mut S| {
        while let Some(item) = next() {
            work(state, item);
        }
    };
    if let [state] = states {
        return run(state);
    }
    std::thread::scope(|scope| {
        for state in states {
            scope.spawn(|| run(state));
        }
    });
}
