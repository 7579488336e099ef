//! Paired timing of two ways to do the same work, in alternation.

#[cfg(target_arch = "x86_64")]
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// Shortest duration of a burst of calls: far above the clock's resolution, far below the time
/// scale on which a shared machine changes its speed.
const BURST: Duration = Duration::from_micros(500);

/// Speed of one way relative to the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratio {
    /// Median over rounds.
    pub(crate) median: f64,
    /// First and third quartile over rounds.
    pub(crate) quartiles: [f64; 2],
    /// Median seconds per call of the first way.
    pub(crate) seconds: f64,
}

impl Ratio {
    /// The median for JSON, to three decimals.
    pub(super) fn rounded(&self) -> f64 {
        rounded(self.median)
    }

    /// The quartiles, to three decimals.
    pub(super) fn spread(&self) -> [f64; 2] {
        self.quartiles.map(rounded)
    }
}

/// Times both in each of `rounds` rounds, in alternating order, and takes ratios within rounds:
/// a slowdown of the machine that lasts longer than a round affects both.
pub(crate) fn alternate(rounds: usize, mut ours: impl FnMut(), mut theirs: impl FnMut()) -> Ratio {
    let (our_calls, their_calls) = (calls(&mut ours), calls(&mut theirs));
    compare(rounds, || burst(&mut ours, our_calls), || burst(&mut theirs, their_calls))
}

/// Speed of the same work in the first setting relative to the second; `set` is called before each
/// burst.
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

/// Number of calls in a burst, by doubling; the calls also warm up caches.
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

/// A ratio to three decimals.
pub(super) fn rounded(ratio: f64) -> f64 {
    (ratio * 1000.0).round() / 1000.0
}
