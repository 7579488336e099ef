//! `cargo xtask reproducible`: checks that the firmware's image does not depend on the build
//! directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use object::{Object, ObjectSegment, ObjectSymbol};

use crate::firmware::{self, Firmware, Job, Sampling};
use crate::terminal::Stdout;
use crate::{root, target_dir};

/// Two directories, with names of different lengths.
const DIRECTORIES: [&str; 2] = ["here", "in/another-directory"];
/// Entries not copied with the repository.
const LEFT_OUT: [&str; 3] = [".git", "target", "models"];
/// The embedded blob.
const BLOB: &str = "models/wikitext2/model.rbk";

/// Builds the image from two copies of the repository and compares the bytes that go to flash, and
/// the symbols.
pub fn run() -> Result<()> {
    let work = target_dir().join("reproducible");
    let images = DIRECTORIES.map(|directory| image(&work, directory));
    let [one, other] = images;
    let (one, other) = (one?, other?);
    compare(&one, &other)?;
    let (bytes, symbols) = (one.bytes(), one.symbols.len());
    writeln!(
        Stdout,
        "reproducible: two directories, the same {bytes} bytes of flash and {symbols} symbols"
    )
}

/// What two builds must agree on.
struct Image {
    /// The bytes that go to flash, by load address.
    segments: BTreeMap<u64, Vec<u8>>,
    /// Addresses and names of symbols. LLVM and the linker go by names: where these differ, equal
    /// bytes are luck.
    symbols: BTreeSet<(u64, String)>,
}

/// Builds in a temporary copy of the repository.
fn image(work: &Path, directory: &str) -> Result<Image> {
    let copy = work.join(directory);
    if copy.exists() {
        fs::remove_dir_all(&copy).with_context(|| format!("cannot remove {}", copy.display()))?;
    }
    copy_tree(root(), &copy)?;
    let blob = copy.join(BLOB);
    copy_file(&root().join(BLOB), &blob)?;
    let job = Job::Generate { prompt: "The ".into(), tokens: 1, sampling: Sampling::GREEDY };
    let elf = work.join(directory.replace('/', "-")).with_extension("elf");
    // Both copies share a build directory, so dependencies are compiled once.
    Firmware::new(blob, job).build_in(&copy, Some(&work.join("builds")), &elf)?;
    let image = loaded(&elf)?;
    for place in [copy.as_path(), &firmware::cargo_home()?] {
        let place = place.display().to_string();
        ensure!(!image.contains(&place), "the image contains the path {place}");
    }
    fs::remove_dir_all(&copy).with_context(|| format!("cannot remove {}", copy.display()))?;
    Ok(image)
}

fn loaded(elf: &Path) -> Result<Image> {
    let bytes = fs::read(elf).with_context(|| format!("cannot read {}", elf.display()))?;
    let parse = || format!("cannot parse {}", elf.display());
    let file = object::File::parse(&*bytes).with_context(parse)?;
    let segments = file.segments().map(|s| Ok((s.address(), s.data()?.to_vec())));
    let symbols = file.symbols().map(|s| Ok((s.address(), s.name()?.to_owned())));
    let image = Image {
        segments: segments.collect::<Result<_>>().with_context(parse)?,
        symbols: symbols.collect::<Result<_>>().with_context(parse)?,
    };
    ensure!(image.bytes() > 0 && !image.symbols.is_empty(), "{} has no code", elf.display());
    Ok(image)
}

impl Image {
    fn bytes(&self) -> usize {
        self.segments.values().map(Vec::len).sum()
    }

    fn contains(&self, text: &str) -> bool {
        let found = |bytes: &Vec<u8>| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        self.segments.values().any(found)
    }
}

fn compare(one: &Image, other: &Image) -> Result<()> {
    let sizes = |image: &Image| -> Vec<_> {
        image.segments.iter().map(|(&address, bytes)| (address, bytes.len())).collect()
    };
    let (ours, others) = (sizes(one), sizes(other));
    ensure!(
        ours == others,
        "segments (address, bytes): {ours:x?} in one, {others:x?} in the other"
    );
    for ((address, bytes), others) in one.segments.iter().zip(other.segments.values()) {
        if let Some(at) = (0..bytes.len()).find(|&at| bytes[at] != others[at]) {
            bail!("the images of two directories differ at {:#x}", address + at as u64);
        }
    }
    if let Some((address, name)) = one.symbols.symmetric_difference(&other.symbols).next() {
        bail!("only the image of one directory has a symbol {name} at {address:#x}");
    }
    Ok(())
}

/// Copies a directory, except for [`LEFT_OUT`].
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let entries = fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        let name = entry.file_name();
        if LEFT_OUT.iter().any(|left| name == *left) {
            continue;
        }
        let (from, to): (PathBuf, PathBuf) = (entry.path(), to.join(&name));
        if from.is_dir() {
            copy_tree(&from, &to)?;
        } else {
            copy_file(&from, &to)?;
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
