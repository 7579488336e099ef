//! Source layout: lines of at most 100 columns, including comments, which `rustfmt` does not wrap,
//! and files of at most 400 lines unless their head says why.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use resnet_bk_tests::repository;

/// Maximum columns of a line, as in `rustfmt.toml`.
const COLUMNS: usize = 100;
/// Maximum lines of a file.
const LINES: usize = 400;
/// Start of the sentence that says why a file has more.
const REASON: &str = "//! Longer than usual: ";

/// Source files below a directory, except build output.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in directory.read_dir().with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden && !path.ends_with("target") {
            sources(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// Whether a line is exempt: it has a string, which reads better unbroken, or is a row of a table
/// in a comment.
fn is_literal(line: &str) -> bool {
    line.contains('"') || line.ends_with('\\') || line.trim_start().starts_with("//! |")
}

/// The layout errors of a file, one line each.
fn faults(text: &str) -> Vec<String> {
    let mut faults: Vec<String> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.chars().count() > COLUMNS && !is_literal(line))
        .map(|(number, line)| format!("line {}: {} columns", number + 1, line.chars().count()))
        .collect();
    let lines = text.lines().count();
    let head = text.lines().take_while(|line| line.starts_with("//!"));
    if lines > LINES && !head.into_iter().any(|line| line.starts_with(REASON)) {
        faults.push(format!("{lines} lines, and no `{REASON}` in its head"));
    }
    faults
}

#[test]
fn lines_and_files_are_short() -> Result<()> {
    let mut files = Vec::new();
    sources(&repository("."), &mut files)?;
    assert!(files.len() > 100, "only {} source files found", files.len());
    let mut all = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path)?;
        all.extend(faults(&text).into_iter().map(|fault| format!("{}: {fault}", path.display())));
    }
    assert!(all.is_empty(), "{} faults:\n{}", all.len(), all.join("\n"));
    Ok(())
}

#[test]
fn a_long_line_and_a_long_file_are_found() {
    assert!(faults(&"x".repeat(COLUMNS)).is_empty());
    assert_eq!(faults(&"é".repeat(COLUMNS + 1)), ["line 1: 101 columns"]);
    let long = "//! Words.\n".to_owned() + &"\n".repeat(LINES);
    assert_eq!(faults(&long).len(), 1);
    assert!(faults(&format!("{REASON}a table.\n{long}")).is_empty());
}
