//! `cargo xtask test`: every check, with a summary of all failures at the end.

mod steps;

use std::collections::VecDeque;
use std::io::{IsTerminal, Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::terminal::{Stderr, Stdout};
use crate::{process, root, setup};
use steps::{ALL, Step};

/// Which checks to run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these checks [default: all].
    checks: Vec<String>,
    /// List the checks and their commands, and exit.
    #[arg(long)]
    list: bool,
}

/// Lines of a failed command's output that are repeated at the end.
const TAIL_LINES: usize = 60;

/// A command that failed, with the end of its output.
struct Failure {
    check: &'static str,
    reason: String,
    tail: String,
}

/// Runs the checks.
pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(unknown) = args.checks.iter().find(|name| ALL.iter().all(|s| s.name != **name)) {
        let names = ALL.map(|step| step.name);
        bail!("there is no check `{unknown}`; the checks are: {}", names.join(", "));
    }
    let chosen: Vec<Step> = ALL
        .into_iter()
        .filter(|step| args.checks.is_empty() || args.checks.iter().any(|n| n == step.name))
        .collect();
    if args.list {
        for step in &chosen {
            writeln!(Stdout, "{}", step.name)?;
            for command in (step.commands)()? {
                writeln!(Stdout, "    {}", shown(&command))?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }

    setup::run_setup()?;
    let (count, mut failures) = (chosen.len(), Vec::new());
    let mut failed = 0;
    for (index, step) in chosen.into_iter().enumerate() {
        let started = Instant::now();
        writeln!(Stderr, "\n==> {}/{count} {}", index + 1, step.name);
        let before = failures.len();
        let commands = (step.commands)().unwrap_or_else(|error| {
            let reason = format!("{error:#}");
            failures.push(Failure { check: step.name, reason, tail: String::new() });
            Vec::new()
        });
        if commands.is_empty() && failures.len() == before {
            writeln!(Stderr, "    this machine lacks what it needs: nothing was checked");
        }
        for mut command in commands {
            writeln!(Stderr, "    {}", shown(&command));
            if let Err(failure) = watch(step.name, &mut command) {
                failures.push(failure);
            }
        }
        let passed = failures.len() == before;
        failed += usize::from(!passed);
        let verdict = if passed { "passed" } else { "FAILED" };
        writeln!(Stderr, "    {verdict} in {:.0} s", started.elapsed().as_secs_f32());
    }
    for failure in &failures {
        writeln!(Stderr, "\n==> FAILED: {}: {}\n{}", failure.check, failure.reason, failure.tail);
    }
    writeln!(Stdout, "\nchecks: {} passed, {failed} failed", count - failed)?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A command, with its directory unless that is the root.
fn shown(command: &Command) -> String {
    let directory = command.get_current_dir().and_then(|path| path.strip_prefix(root()).ok());
    match directory.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => format!("(in {}) {}", path.display(), process::shown(command)),
        None => process::shown(command),
    }
}

/// Runs a command, forwards its output and keeps the last lines.
fn watch(check: &'static str, command: &mut Command) -> Result<(), Failure> {
    let mut tail = VecDeque::new();
    watch_into(command, &mut tail).map_err(|error| Failure {
        check,
        reason: format!("{error:#}"),
        tail: tail.make_contiguous().join("\n"),
    })
}

fn watch_into(command: &mut Command, tail: &mut VecDeque<String>) -> Result<()> {
    if std::io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", process::shown(command)))?;
    let (stdout, stderr) =
        child.stdout.take().zip(child.stderr.take()).context("the command's output is lost")?;
    let stderr = thread::spawn(move || pass_on(stderr, std::io::stderr()));
    let stdout = pass_on(stdout, std::io::stdout());
    let stderr = stderr.join().unwrap_or_default();
    let status = child.wait().context("cannot wait for the command")?;
    // Compilers write to standard error, tests to standard output, usually not both.
    tail.extend(last_lines(&stderr));
    tail.extend(last_lines(&stdout));
    ensure!(status.success(), "`{}` failed ({status})", process::shown(command));
    Ok(())
}

/// Copies everything to `to` as it arrives, and returns it.
fn pass_on(mut from: impl Read, mut to: impl Write) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        all.extend(&buffer[..len]);
        // Keep collecting even if the terminal is closed.
        let _ = to.write_all(&buffer[..len]).and_then(|()| to.flush());
    }
    all
}

fn last_lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|&line| line.to_owned()).collect()
}
