//! Progress on standard error: a bar on a terminal, otherwise a line at intervals.

use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use crate::cli::Global;
use crate::terminal::Stderr;

/// Interval between log lines.
const INTERVAL: Duration = Duration::from_secs(10);
/// Bar positions of the whole work.
const WHOLE: u64 = 1000;

/// Progress of some work; can be updated from any thread.
pub(crate) struct Progress {
    /// Hidden if standard error is not a terminal.
    bar: ProgressBar,
    /// Used if standard error is not a terminal.
    log: Option<Mutex<Log>>,
    quiet: bool,
}

/// Progress as a fraction from 0 to 1 of the work named by `message`.
pub(crate) fn bar(message: &'static str, global: Global) -> Progress {
    let template = "{msg} {bar:24} {percent:>3}% · {eta} left";
    Progress::new(WHOLE, template, global).with_message(message)
}

/// Sets the completed fraction.
pub(crate) fn set(progress: &Progress, share: f64) {
    progress.set_position((share * WHOLE as f64) as u64);
}

impl Progress {
    /// Progress of work with this length; `template` is an `indicatif` template with `{rate}` in
    /// positions per second.
    pub(crate) fn new(length: u64, template: &str, global: Global) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        let bar = match on_terminal && !global.quiet {
            true => ProgressBar::new(length),
            false => ProgressBar::hidden(),
        };
        let rate = |state: &ProgressState, out: &mut dyn Write| {
            // Write errors of the progress line are ignored.
            let _ = write!(out, "{:.0}", state.per_sec());
        };
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("rate", rate);
        let log = (!on_terminal && !global.quiet).then(|| Mutex::new(Log::new(length)));
        Self { bar: bar.with_style(style), log, quiet: global.quiet }
    }

    fn with_message(self, message: &'static str) -> Self {
        self.set_message(message.to_owned());
        self
    }

    /// Sets the description or an intermediate result.
    pub(crate) fn set_message(&self, message: String) {
        if let Some(mut log) = self.log() {
            log.message.clone_from(&message);
        }
        self.bar.set_message(message);
    }

    /// Sets the completed position.
    pub(crate) fn set_position(&self, position: u64) {
        self.bar.set_position(position);
        let line = self.log().and_then(|mut log| {
            let now = log.started.elapsed();
            log.line(position, now)
        });
        if let Some(line) = line {
            writeln!(Stderr, "{line}");
        }
    }

    /// Excludes earlier work from the estimate of the remaining time.
    pub(crate) fn reset_eta(&self) {
        self.bar.reset_eta();
    }

    /// Prints a permanent line, on a terminal or not.
    pub(crate) fn println(&self, line: &str) {
        if self.log.is_some() {
            writeln!(Stderr, "{line}");
        } else if !self.quiet {
            self.bar.println(line);
        }
    }

    /// Ends the progress and removes the bar.
    pub(crate) fn finish_and_clear(&self) {
        self.bar.finish_and_clear();
    }

    fn log(&self) -> Option<std::sync::MutexGuard<'_, Log>> {
        // A poisoned lock still holds a usable message.
        self.log.as_ref().map(|log| log.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

/// State of the progress log.
struct Log {
    length: u64,
    message: String,
    started: Instant,
    /// Time of the last line since the start; zero before any.
    last: Duration,
    /// The first position of this pass and when it was reached: what is before it may have been
    /// done by an earlier run.
    first: Option<(u64, Duration)>,
}

impl Log {
    fn new(length: u64) -> Self {
        let (message, started) = (String::new(), Instant::now());
        Self { length, message, started, last: Duration::ZERO, first: None }
    }

    /// The line due at `now`, the time since the start, if any.
    fn line(&mut self, position: u64, now: Duration) -> Option<String> {
        let (first, since) = match self.first {
            Some(first) if first.0 <= position => first,
            // A step back begins another pass.
            _ => *self.first.insert((position, now)),
        };
        if now < self.last + INTERVAL {
            return None;
        }
        self.last = now;
        let percent = 100.0 * position as f64 / self.length.max(1) as f64;
        let (done, left) = (position - first, self.length.saturating_sub(position));
        let left = match done {
            0 => String::new(),
            _ => {
                let left = (now - since).mul_f64(left as f64 / done as f64);
                format!(", {} left", HumanDuration(left))
            }
        };
        Some(format!("{}: {percent:.0} % after {} s{left}", self.message, now.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_a_line_every_ten_seconds_at_most() {
        let mut log = Log::new(200);
        log.message = "calibrating".into();
        let at = Duration::from_secs;
        assert_eq!(log.line(1, at(0)), None, "short work leaves no trace");
        assert_eq!(log.line(20, Duration::from_millis(9_999)), None);
        assert_eq!(log.line(50, at(12)).unwrap(), "calibrating: 25 % after 12 s, 37 seconds left");
        assert_eq!(log.line(51, at(12)), None);
        assert_eq!(log.line(52, at(21)), None);
        let line = log.line(100, at(3600)).unwrap();
        assert_eq!(line, "calibrating: 50 % after 3600 s, 61 minutes left");
    }

    #[test]
    fn the_time_left_leaves_out_what_was_done_before() {
        let at = Duration::from_secs;
        let mut resumed = Log::new(100);
        assert_eq!(resumed.line(60, at(20)).unwrap(), ": 60 % after 20 s");
        assert_eq!(resumed.line(80, at(40)).unwrap(), ": 80 % after 40 s, 20 seconds left");
        let again = "another pass";
        assert_eq!(resumed.line(0, at(100)).unwrap(), ": 0 % after 100 s", "{again}");
        assert_eq!(resumed.line(50, at(130)).unwrap(), ": 50 % after 130 s, 30 seconds left");
    }

    #[test]
    fn nothing_is_shown_when_quiet() {
        let global = Global { json: false, quiet: true, threads: None, memory: None };
        let progress = bar("work", global);
        assert!(progress.log.is_none() && progress.bar.is_hidden());
    }
}
