//! Two ways to do the same work, timed in turn.

use std::time::{Duration, Instant};

/// What a burst of calls is stretched to: far above the clock's resolution, far below the time in which
/// a shared machine changes its speed.
const BURST: Duration = Duration::from_micros(500);

/// How many times as fast one way is as the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratio {
    /// Median of the rounds.
    pub(crate) median: f64,
    /// First and third quartile of the rounds.
    pub(crate) quartiles: [f64; 2],
}

/// Times both in turn for `rounds` rounds, each going first in every other one, and compares within
/// rounds alone: what slows the machine down for longer than a round slows both.
pub(crate) fn alternate(rounds: usize, mut ours: impl FnMut(), mut theirs: impl FnMut()) -> Ratio {
    let (our_calls, their_calls) = (calls(&mut ours), calls(&mut theirs));
    let mut ratios: Vec<f64> = (0..rounds.max(1))
        .map(|round| {
            let (our_time, their_time) = if round % 2 == 0 {
                let our_time = burst(&mut ours, our_calls);
                (our_time, burst(&mut theirs, their_calls))
            } else {
                let their_time = burst(&mut theirs, their_calls);
                (burst(&mut ours, our_calls), their_time)
            };
            their_time / our_time
        })
        .collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let at = |share: usize| ratios[(ratios.len() - 1) * share / 4];
    Ratio { median: at(2), quartiles: [at(1), at(3)] }
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
