//! Runs an ELF in QEMU and decodes its output.
//!
//! QEMU's standard output carries `defmt` frames through semihosting. Frames with a level are logs;
//! frames without are the program's output, which [`Report`] collects.

mod output;

pub use output::{Event, Report, Summary};

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use defmt_decoder::{DecodeError, StreamDecoder, Table};

use crate::{Board, emulator};

/// No display; with `-icount shift=0` every instruction takes a nanosecond of virtual time, so
/// timers count instructions and every run gives the same numbers.
pub const QUIET: [&str; 9] = [
    "-nographic",
    "-monitor",
    "none",
    "-serial",
    "none",
    "-icount",
    "shift=0",
    "-semihosting-config",
    "enable=on,target=native",
];

/// Options of a run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The board that the ELF was built for.
    pub board: Board,
    /// A longer run is killed and is an error.
    pub time_limit: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { board: Board::default(), time_limit: Duration::from_secs(600) }
    }
}

/// Runs an ELF to completion and returns all its output, whatever the exit status.
pub fn run(elf: &Path, options: Options) -> Result<Report> {
    run_with(elf, options, |_| Ok(()))
}

/// [`run`] that also passes every event to `each` as it arrives. An error of `each` ends the run.
pub fn run_with(
    elf: &Path,
    options: Options,
    mut each: impl FnMut(&Event) -> Result<()>,
) -> Result<Report> {
    let bytes = fs::read(elf).with_context(|| format!("cannot read {}", elf.display()))?;
    let table = Table::parse(&bytes)
        .with_context(|| format!("{} is not an ELF with defmt logs", elf.display()))?
        .with_context(|| format!("{} has no defmt section", elf.display()))?;
    let mut decoder = table.new_stream_decoder();
    let mut report = Report::default();

    let mut qemu = Qemu::start(elf, options.board)?;
    let deadline = Instant::now() + options.time_limit;
    loop {
        match qemu.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(bytes) => {
                decoder.received(&bytes);
                drain(decoder.as_mut(), |message| {
                    each(&message)?;
                    report.add(message);
                    Ok(())
                })?;
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => bail!(
                "{} was still running after {} s and was ended; give it fewer tokens or a longer \
                 --time-limit",
                elf.display(),
                options.time_limit.as_secs()
            ),
        }
    }
    let exit_code = exit_code(&mut qemu.child.0)?;
    let messages = qemu.messages.join().unwrap_or_default();
    Ok(report.finish(exit_code, messages))
}

/// Passes every complete frame of the decoder to `each`.
fn drain(decoder: &mut dyn StreamDecoder, mut each: impl FnMut(Event) -> Result<()>) -> Result<()> {
    loop {
        match decoder.decode() {
            Ok(frame) => {
                let level = frame.level().map(|level| level.as_str());
                each(Event::parse(level, frame.display_message().to_string()))?;
            }
            // The frame is incomplete so far.
            Err(DecodeError::UnexpectedEof) => return Ok(()),
            // The decoder resynchronizes at the next frame.
            Err(DecodeError::Malformed) => each(Event::Malformed)?,
        }
    }
}

/// A process that is killed on drop.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Both fail only if it has already exited.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running emulator with its output.
struct Qemu {
    child: Ended,
    output: Receiver<Vec<u8>>,
    messages: thread::JoinHandle<String>,
}

impl Qemu {
    fn start(elf: &Path, board: Board) -> Result<Self> {
        let mut child = emulator::command(emulator::ARM)
            .args(board.arguments())
            .args(QUIET)
            .arg("-kernel")
            .arg(elf)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                anyhow!("cannot start {}: {error}; run `cargo xtask setup`", emulator::ARM)
            })?;
        let (mut stdout, mut stderr) = child
            .stdout
            .take()
            .zip(child.stderr.take())
            .context("the emulator's output is not connected")?;
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = stdout.read(&mut buffer) {
                // The receiver is gone after the time limit.
                if sender.send(buffer[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        let messages = thread::spawn(move || {
            let mut text = Vec::new();
            // After a read error, show what was read so far.
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Ok(Self { child: Ended(child), output, messages })
    }
}

/// The exit code; 128 plus the signal's number for an emulator killed by a signal.
fn exit_code(child: &mut Child) -> Result<i32> {
    let status = child.wait().context("cannot wait for the emulator")?;
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    let signal: Option<i32> = None;
    Ok(status.code().or(signal.map(|signal| 128 + signal)).unwrap_or(1))
}
