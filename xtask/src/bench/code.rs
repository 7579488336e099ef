//! Code size, from an ELF's sections and symbols.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

use super::machine::Machine;
use super::measured::Code;

/// Where kernels live.
const KERNELS: &str = "resnet_bk_core::kernels::";

/// Sizes of a program's code.
pub(super) fn of(machine: &Machine, elf: &Path) -> Result<Code> {
    let bytes = fs::read(elf).with_context(|| format!("cannot read {}", elf.display()))?;
    let file = object::File::parse(&*bytes).with_context(|| format!("{}", elf.display()))?;
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
        text: size(".text"),
        rodata: size(".rodata"),
        kernels,
    })
}
