//! Running other programs, with errors that name the command and its failure.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The cargo that runs this program, or else the one on `PATH`.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A command as typed in a shell.
pub fn shown(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let quoted = |word: &OsStr| {
        let word = word.to_string_lossy();
        if word.is_empty() || word.contains([' ', '"', '*']) {
            format!("'{word}'")
        } else {
            word.into_owned()
        }
    };
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

/// Runs a command with its output on the terminal; fails unless it succeeds.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    ensure!(status.success(), "`{}` failed ({status})", shown(command));
    Ok(())
}

/// Runs a command and returns its standard output; standard error goes to the terminal.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    ensure!(output.status.success(), "`{}` failed ({})", shown(command), output.status);
    Ok(output.stdout)
}

/// Writes a file atomically: under a temporary name, then renamed.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = partial(path);
    std::fs::write(&partial, bytes)
        .and_then(|()| std::fs::rename(&partial, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Temporary path of a file or directory that is renamed to `path` when complete.
pub fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// Whether a program starts; runs it with `--version` and discards the output.
pub fn exists(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok()
}

/// A path for display: relative to the repository's root if inside it.
pub fn shown_path(path: &Path) -> String {
    path.strip_prefix(crate::root()).unwrap_or(path).display().to_string()
}
