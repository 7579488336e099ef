//! How evenly a command's work is divided among its threads.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// Between two looks at the threads; what the last moments of a command add is missed.
const PERIOD: Duration = Duration::from_millis(100);
/// Clock ticks a second in `/proc`, whatever those of the kernel (`man 5 proc`).
const TICKS: f64 = 100.0;

/// CPU seconds of the thread of process `id` that used most, watched until `done`; `None` where
/// there is no `/proc`.
pub(super) fn watch(id: u32, done: &AtomicBool) -> Option<f64> {
    let mut most = None;
    while !done.load(Ordering::Relaxed) {
        for task in fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten() {
            let used = fs::read_to_string(task.path().join("stat")).ok().and_then(|s| seconds(&s));
            most = used.map_or(most, |used| Some(used.max(most.unwrap_or(0.0))));
        }
        sleep(PERIOD);
    }
    most
}

/// CPU seconds of a thread, in its own code and the kernel's.
fn seconds(stat: &str) -> Option<f64> {
    // The second field is a name that may contain anything; the third follows its parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some((next()? + next()?) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_behind_any_name() {
        let stat = "12 (a (b) c) R 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(seconds(stat), Some(3.0));
        assert_eq!(seconds("12 (a) R 1 2"), None);
    }
}
