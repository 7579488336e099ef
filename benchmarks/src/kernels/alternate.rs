//! Two ways to do the same work, timed in turn.

#[cfg(target_arch = "x86_64")]
use std::cell::RefCell;
use std::time::{Duration, Instant};

use super::rounded;

/// What a burst of calls is stretched to: far above the clock's resolution, far below the time in
/// which a shared machine changes its speed.
const BURST: Duration = Duration::from_micros(500);

/// How many times as fast one way is as the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratio {
    /// Median of the rounds.
    pub(crate) median: f64,
    /// First and third quartile of the rounds.
    pub(crate) quartiles: [f64; 2],
    /// Seconds that a call took one way: the median of the rounds.
    pub(crate) seconds: f64,
}

impl Ratio {
    /// For JSON, to three decimals.
    pub(super) fn rounded(&self) -> f64 {
        rounded(self.median)
    }

    /// The quartiles, likewise.
    pub(super) fn spread(&self) -> [f64; 2] {
        self.quartiles.map(rounded)
    }
}

/// Times both in turn for `rounds` rounds, each going first in every other one, and compares within
/// rounds alone: what slows the machine down for longer than a round slows both.
pub(crate) fn alternate(rounds: usize, mut ours: impl FnMut(), mut theirs: impl FnMut()) -> Ratio {
    let (our_calls, their_calls) = (calls(&mut ours), calls(&mut theirs));
    compare(rounds, || burst(&mut ours, our_calls), || burst(&mut theirs, their_calls))
}

/// The same work in two settings, each of which is set before a burst: how many times as fast it is
/// in the first.
#[cfg(target_arch = "x86_64")]
pub(crate) fn alternate_settings<S: Copy>(
    rounds: usize,
    work: &mut impl FnMut(),
    set: impl Fn(S),
    [first, second]: [S; 2],
) -> Ratio {
    let calls = calls(work);
    let work = RefCell::new(work);
    let in_setting = |setting| {
        set(setting);
        burst(&mut *work.borrow_mut(), calls)
    };
    compare(rounds, || in_setting(first), || in_setting(second))
}

/// Compares bursts that return seconds per call.
fn compare(rounds: usize, mut ours: impl FnMut() -> f64, mut theirs: impl FnMut() -> f64) -> Ratio {
    let (mut ratios, mut seconds): (Vec<f64>, Vec<f64>) = (0..rounds.max(1))
        .map(|round| {
            let (our_time, their_time) = if round % 2 == 0 {
                let our_time = ours();
                (our_time, theirs())
            } else {
                let their_time = theirs();
                (ours(), their_time)
            };
            (their_time / our_time, our_time)
        })
        .unzip();
    ratios.sort_unstable_by(f64::total_cmp);
    seconds.sort_unstable_by(f64::total_cmp);
    let at = |share: usize| (ratios.len() - 1) * share / 4;
    Ratio {
        median: ratios[at(2)],
        quartiles: [ratios[at(1)], ratios[at(3)]],
        seconds: seconds[at(2)],
    }
}

/// Calls that a burst needs, found after as many for warming up.
fn calls(work: &mut impl FnMut()) -> u32 {
    let mut calls = 1;
    loop {
        let start = Instant::now();
        (0..calls).for_each(|_| work());
        if start.elapsed() >= BURST {
            return calls;
        }
        calls *= 2;
    }
}

/// Seconds per call.
fn burst(work: &mut impl FnMut(), calls: u32) -> f64 {
    let start = Instant::now();
    (0..calls).for_each(|_| work());
    start.elapsed().as_secs_f64() / f64::from(calls)
}
