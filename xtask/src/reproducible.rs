//! `cargo xtask reproducible`: checks that the firmware's image does not depend on the build
//! directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use object::{Object, ObjectSegment};

use crate::firmware::{self, Firmware, Job, Sampling};
use crate::terminal::Stdout;
use crate::{root, target_dir};

/// Two directories, with names of different lengths.
const DIRECTORIES: [&str; 2] = ["here", "in/another-directory"];
/// Entries not copied with the repository.
const LEFT_OUT: [&str; 3] = [".git", "target", "models"];
/// The embedded blob.
const BLOB: &str = "models/wikitext2/model.rbk";

/// Builds the image from two copies of the repository and compares the bytes that go to flash.
pub fn run() -> Result<()> {
    let work = target_dir().join("reproducible");
    let images = DIRECTORIES.map(|directory| image(&work, directory));
    let [one, other] = images;
    let (one, other) = (one?, other?);
    compare(&one, &other)?;
    let bytes: usize = one.values().map(Vec::len).sum();
    writeln!(Stdout, "reproducible: two directories, the same {bytes} bytes of flash")
}

/// Bytes by load address.
type Image = BTreeMap<u64, Vec<u8>>;

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
        let found = |bytes: &Vec<u8>| bytes.windows(place.len()).any(|w| w == place.as_bytes());
        ensure!(!image.values().any(found), "the image contains the path {place}");
    }
    fs::remove_dir_all(&copy).with_context(|| format!("cannot remove {}", copy.display()))?;
    Ok(image)
}

/// The loaded segments of an ELF.
fn loaded(elf: &Path) -> Result<Image> {
    let bytes = fs::read(elf).with_context(|| format!("cannot read {}", elf.display()))?;
    let file =
        object::File::parse(&*bytes).with_context(|| format!("cannot parse {}", elf.display()))?;
    let segments = file.segments().map(|s| Ok((s.address(), s.data()?.to_vec())));
    let image: Image = segments.collect::<Result<_>>()?;
    ensure!(image.values().any(|bytes| !bytes.is_empty()), "{} has no code", elf.display());
    Ok(image)
}

fn compare(one: &Image, other: &Image) -> Result<()> {
    for (address, bytes) in one {
        let others = other.get(address);
        let Some(others) = others.filter(|others| others.len() == bytes.len()) else {
            bail!(
                "at {address:#x} one image has {} bytes, the other {:?}",
                bytes.len(),
                others.map(Vec::len)
            );
        };
        if let Some(at) = (0..bytes.len()).find(|&at| bytes[at] != others[at]) {
            bail!("the images of two directories differ at {:#x}", address + at as u64);
        }
    }
    ensure!(
        one.len() == other.len(),
        "one image has {} segments, the other {}",
        one.len(),
        other.len()
    );
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
