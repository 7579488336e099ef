//! Code size from an ELF's sections, symbols and line tables.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use addr2line::Loader;
use anyhow::{Context, Result, anyhow, ensure};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

use super::machine::Machine;
use super::measured::Code;
use crate::firmware::ROOT;

/// Path of the kernels.
const KERNELS: &str = "resnet_bk_core::kernels::";

/// Sizes of a program's code.
pub(super) fn of(machine: &Machine, elf: &Path) -> Result<Code> {
    let bytes = fs::read(elf).with_context(|| format!("cannot read {}", elf.display()))?;
    let file =
        object::File::parse(&*bytes).with_context(|| format!("cannot parse {}", elf.display()))?;
    let size = |name| file.section_by_name(name).map_or(0, |section| section.size());
    let mut kernels = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let name = format!("{:#}", rustc_demangle::demangle(symbol.name()?));
        if let Some(name) = name.strip_prefix(KERNELS) {
            *kernels.entry(name.to_owned()).or_insert(0) += symbol.size();
        }
    }
    let mut kernels: Vec<_> = kernels.into_iter().filter(|(_, size)| *size > 0).collect();
    kernels.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    Ok(Code {
        target: machine.target,
        core: machine.core,
        own: own(elf, file.section_by_name(".text").context("the program has no .text section")?)?,
        text: size(".text"),
        rodata: size(".rodata"),
        kernels,
    })
}

/// Bytes of code whose line-table entries, inlined frames included, lead to a source file of
/// `core`. Calls into other crates (postcard, memory copies, soft floats) do not count.
fn own(elf: &Path, text: object::Section<'_, '_>) -> Result<u64> {
    /// Instructions begin at even addresses on every target.
    const STEP: u64 = 2;
    let unreadable = |error| anyhow!("cannot read the line tables of {}: {error}", elf.display());
    let lines = Loader::new(elf).map_err(unreadable)?;
    let sources = Path::new(ROOT).join("core").join("src");
    let mut own = 0;
    for address in (text.address()..text.address() + text.size()).step_by(STEP as usize) {
        let mut frames = lines.find_frames(address).map_err(unreadable)?;
        while let Some(frame) = frames.next().map_err(|error| anyhow!("{error}"))? {
            let file = frame.location.and_then(|location| location.file);
            if file.is_some_and(|file| Path::new(file).starts_with(&sources)) {
                own += STEP;
                break;
            }
        }
    }
    ensure!(own > 0, "no code of {} is from {}", elf.display(), sources.display());
    Ok(own)
}
