//! The shared thread pool, and parallel work whose result does not depend on its size.

use std::hint;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use rayon::prelude::*;
use resnet_bk_core as core;

use crate::error::{Error, Result};

/// Sets the number of threads of this process; the default is the number of cores.
///
/// # Errors
///
/// [`Error::Usage`] if the system refuses, or the pool is already in use.
pub fn set(count: usize) -> Result<()> {
    let built = rayon::ThreadPoolBuilder::new().num_threads(count).build_global();
    built.map_err(|error| Error::Usage(format!("--threads {count}: {error}")))
}

/// The pool for products of [`core::Model::with_threads`], for callers that run in [`awake`].
#[derive(Debug)]
pub struct Pool;

impl core::Parallel for Pool {
    fn threads(&self) -> usize {
        rayon::current_num_threads()
    }

    fn run(&self, parts: usize, part: &(dyn Fn(usize) + Sync)) {
        (0..parts).into_par_iter().with_max_len(1).for_each(part);
    }
}

/// Runs `work` on a thread of the pool while all others wait for its parallel parts without going
/// to sleep: to wake them takes longer than a matrix.
pub fn awake<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    /// Lets the others go, also when `work` panics.
    struct Release<'a>(&'a AtomicBool);

    impl Drop for Release<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let (done, waiting) = (&AtomicBool::new(false), &AtomicUsize::new(0));
    let others = rayon::current_num_threads() - 1;
    // Until every other thread has one of the tasks below, nobody looks for work: no thread can
    // take two, and this one none.
    let all_wait = move || {
        while waiting.load(Ordering::Relaxed) < others {
            hint::spin_loop();
        }
    };
    rayon::scope(|scope| {
        for _ in 0..others {
            scope.spawn(move |_| {
                waiting.fetch_add(1, Ordering::Relaxed);
                all_wait();
                while !done.load(Ordering::Relaxed) {
                    if rayon::yield_now() != Some(rayon::Yield::Executed) {
                        hint::spin_loop();
                    }
                }
            });
        }
        let _release = Release(done);
        all_wait();
        work()
    })
}

/// One state per thread of the pool, at most `most`.
pub(crate) fn states<S>(most: usize, state: impl FnMut() -> S) -> Vec<S> {
    let count = rayon::current_num_threads().clamp(1, most.max(1));
    std::iter::repeat_with(state).take(count).collect()
}

/// Calls `work(state, item)` for every item, in parallel with one thread per state. The pairing of
/// states and items is not deterministic, so the result in the item must not depend on the state.
pub(crate) fn for_each<S: Send, I: Send>(
    states: &mut [S],
    items: impl Iterator<Item = I> + Send,
    work: impl Fn(&mut S, I) + Sync,
) {
    let queue = Mutex::new(items);
    // A panic inside `next` cannot be recovered from; the scope passes it on.
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = |state: &mut S| {
        while let Some(item) = next() {
            work(state, item);
        }
    };
    if let [state] = states {
        return run(state);
    }
    rayon::scope(|scope| {
        for state in states {
            scope.spawn(|_| run(state));
        }
    });
}

/// The finished share of work whose parts any thread finishes.
pub(crate) struct Progress<F> {
    finished: AtomicUsize,
    total: usize,
    report: F,
}

impl<F: Fn(f64) + Sync> Progress<F> {
    /// Work of this total, in any unit; `report` receives the finished share, from 0 to 1.
    pub(crate) fn new(total: usize, report: F) -> Self {
        Self { finished: AtomicUsize::new(0), total, report }
    }

    /// Reports a part that is finished, and how much of the total it is.
    pub(crate) fn add(&self, part: usize) {
        let finished = self.finished.fetch_add(part, Ordering::Relaxed) + part;
        (self.report)(finished as f64 / self.total as f64);
    }
}

/// A value that numbered items change in their order, whichever thread computes them: a sum of
/// floats then does not depend on the number of threads.
///
/// Every number from 0 on must have its turn, also that of an item whose work failed: the next ones
/// wait for it.
pub(crate) struct Turn<T> {
    /// The value, and the item that changes it next.
    value: Mutex<(T, usize)>,
    passed: Condvar,
}

impl<T> Turn<T> {
    /// A value that no item has changed.
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new((value, 0)), passed: Condvar::new() }
    }

    /// Lets `item` change the value when it is its turn, then lets the next one pass; does nothing
    /// if it has passed before.
    pub(crate) fn take(&self, item: usize, work: impl FnOnce(&mut T)) {
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        while value.1 < item {
            value = self.passed.wait(value).unwrap_or_else(PoisonError::into_inner);
        }
        if value.1 == item {
            work(&mut value.0);
            value.1 = item + 1;
            self.passed.notify_all();
        }
    }

    /// The value after the last item.
    pub(crate) fn into_inner(self) -> T {
        self.value.into_inner().unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Runs `work` on a separate pool of this many threads.
#[cfg(test)]
pub(crate) fn with<R: Send>(count: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(count).build().unwrap().install(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_take_turns_in_their_order() {
        let order = Turn::new(Vec::new());
        with(3, || {
            for_each(&mut states(3, || ()), 0..50, |(), item| {
                order.take(item, |order| order.push(item));
                order.take(item, |_| unreachable!("it has passed"));
            });
        });
        assert_eq!(order.into_inner(), (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn threads_that_are_awake_share_the_parts_and_end() {
        for count in [1, 2, 5] {
            let done = with(count, || {
                awake(|| {
                    let done = [const { AtomicUsize::new(0) }; 20];
                    for _ in 0..50 {
                        core::Parallel::run(&Pool, done.len(), &|p| {
                            done[p].fetch_add(1, Ordering::Relaxed);
                        });
                    }
                    done.map(AtomicUsize::into_inner)
                })
            });
            assert_eq!(done, [50; 20]);
            let panics = std::panic::AssertUnwindSafe(|| with(count, || awake(|| panic!("here"))));
            assert!(std::panic::catch_unwind(panics).is_err());
        }
    }

    #[test]
    fn every_item_is_worked_on_once_by_any_number_of_threads() {
        for count in [1, 2, 5] {
            let (items, met) = with(count, || {
                let mut states = states(4, || 0);
                let mut items = vec![0; 100];
                for_each(&mut states, items.iter_mut(), |met, item| {
                    *item += 1;
                    *met += 1;
                });
                (items, states)
            });
            assert_eq!((items, met.len()), (vec![1; 100], count.min(4)));
            assert_eq!(met.iter().sum::<usize>(), 100);
        }
    }
}
