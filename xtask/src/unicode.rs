//! The classes of characters that GPT-2's rule for pieces asks for, as a table for `core`.
//!
//! The ranges are those of `regex-syntax`, with which the Hugging Face library evaluates the rule
//! on the workstation: host and device agree by construction.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use regex_syntax::Parser;
use regex_syntax::hir::{Class, HirKind};

use crate::root;

/// The first character of the table; those before it are told apart by comparisons.
const FIRST: u32 = 0x80;
/// Bytes of runs after which the index has an entry.
const STRIDE: usize = 128;
/// Letters, numbers and white space, in the order of their numbers in the table, from 1.
const CLASSES: [&str; 3] = [r"\p{L}", r"\p{N}", r"\s"];

/// Writes the table, or with `check` fails unless it is as it would be written.
pub fn run(check: bool) -> Result<()> {
    let (path, table) = (path(), source()?);
    if !check {
        return std::fs::write(&path, table).with_context(|| path.display().to_string());
    }
    match std::fs::read_to_string(&path)? == table {
        true => Ok(()),
        false => bail!("{} is out of date: run `cargo xtask unicode`", path.display()),
    }
}

fn path() -> PathBuf {
    root().join("core/src/tokenizer/unicode/table.rs")
}

/// Class of every character from [`FIRST`] on as runs of (class, length), without the last one.
fn runs() -> Result<Vec<(u32, u32)>> {
    let mut ranges: Vec<(u32, u32, u32)> = Vec::new();
    for (number, pattern) in (1..).zip(CLASSES) {
        let parsed = Parser::new().parse(pattern)?;
        let HirKind::Class(Class::Unicode(class)) = parsed.kind() else {
            bail!("{pattern} is no class")
        };
        ranges.extend(class.ranges().iter().map(|r| (r.start() as u32, r.end() as u32, number)));
    }
    ranges.sort_unstable();
    let (mut at, mut runs) = (FIRST, Vec::<(u32, u32)>::new());
    for (start, end, class) in ranges {
        let start = start.max(FIRST);
        if end < start {
            continue;
        }
        for (class, length) in [(0, start - at), (class, end + 1 - start)] {
            match runs.last_mut() {
                Some(last) if last.0 == class => last.1 += length,
                _ if length > 0 => runs.push((class, length)),
                _ => {}
            }
        }
        at = end + 1;
    }
    Ok(runs)
}

/// The Rust file of the table.
fn source() -> Result<String> {
    let (mut bytes, mut index, mut at) = (Vec::new(), Vec::new(), FIRST);
    for (class, length) in runs()? {
        if bytes.len() >= index.len() * STRIDE {
            index.push((at, bytes.len()));
        }
        let mut rest = (length - 1) << 2 | class;
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
        at += length;
    }
    let mut text = String::from(
        "//! Written by `cargo xtask unicode`, which says what it is made of.\n\n\
         /// Characters at which runs begin, with the places of these runs.\n",
    );
    writeln!(text, "#[rustfmt::skip]\npub(super) static INDEX: [(u32, u16); {}] = [", index.len())?;
    write_rows(&mut text, index.iter().map(|(at, place)| format!("({at:#x}, {place}),")))?;
    text.push_str(
        "];\n\n\
         /// Runs of characters of one class, from U+0080: length less 1 times 4 plus class, seven \
         bits a\n/// byte, the lowest first, the top bit set on all but the last.\n",
    );
    writeln!(text, "#[rustfmt::skip]\npub(super) static RUNS: [u8; {}] = [", bytes.len())?;
    write_rows(&mut text, bytes.iter().map(|byte| format!("{byte},")))?;
    text.push_str("];\n");
    Ok(text)
}

/// Writes items as rustfmt lays out long arrays.
fn write_rows(text: &mut String, items: impl Iterator<Item = String>) -> Result<()> {
    let mut row = String::new();
    for item in items {
        if !row.is_empty() && 4 + row.len() + 1 + item.len() > 100 {
            writeln!(text, "    {row}")?;
            row.clear();
        }
        if !row.is_empty() {
            row.push(' ');
        }
        row.push_str(&item);
    }
    writeln!(text, "    {row}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_up_to_date() {
        run(true).unwrap();
    }
}
