//! Damaged files, made at random from good ones: each is read or refused with a remedy, without a
//! panic. The seeds are always the same; `IMPORT_MUTATION_SECONDS=600` goes on with others for that
//! long.

use super::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::io::{Cursor, Read, Write};
use std::time::{Duration, Instant};
use zip::write::{SimpleFileOptions, ZipWriter};

const VARIABLE: &str = "IMPORT_MUTATION_SECONDS";

/// Seeds of a usual run.
const SEEDS: u64 = 1500;

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    crate::files::read(&folder.join(name)).unwrap()
}

/// Entries of an archive, by name.
fn unpacked(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut zip = zip::ZipArchive::new(Cursor::new(archive)).unwrap();
    let count = zip.len();
    let entry = |at| {
        let mut file = zip.by_index(at).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        (file.name().unwrap().into_owned(), bytes)
    };
    (0..count).map(entry).collect()
}

/// An archive whose checksums are those of its entries.
fn packed(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in entries {
        zip.start_file(name.as_str(), stored).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A good file, and how its inner parts are reached.
enum Good {
    /// As it is.
    Plain(Vec<u8>),
    /// Entries of an archive, of which one is changed.
    Archive(Vec<(String, Vec<u8>)>),
    /// Header and data of a safetensors file.
    Safetensors(Vec<u8>, Vec<u8>),
}

impl Good {
    fn safetensors(bytes: &[u8]) -> Self {
        let (length, rest) = bytes.split_at(8);
        let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
        Self::Safetensors(rest[..length].to_vec(), rest[length..].to_vec())
    }

    /// The file after some changes.
    fn changed(&self, random: &mut ChaCha8Rng) -> Vec<u8> {
        match self {
            Self::Plain(bytes) => mutated(bytes, random),
            Self::Archive(entries) => {
                let mut entries = entries.clone();
                // Mostly the pickle: storages are numbers of any value.
                let pickle = entries.iter().position(|(name, _)| name.ends_with("data.pkl"));
                let any = random.random_range(0..entries.len());
                let at = if random.random_bool(0.9) { pickle.unwrap() } else { any };
                entries[at].1 = mutated(&entries[at].1, random);
                if random.random_bool(0.05) {
                    entries.remove(any);
                }
                packed(&entries)
            }
            Self::Safetensors(header, data) => {
                let header = mutated(header, random);
                let length = header.len() as u64;
                [&length.to_le_bytes()[..], &header, data].concat()
            }
        }
    }
}

/// One to four changes at random places.
fn mutated(bytes: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..=4) {
        if bytes.is_empty() {
            return bytes;
        }
        let at = random.random_range(0..bytes.len());
        let end = (at + random.random_range(1..=16)).min(bytes.len());
        match random.random_range(0..8) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            // The largest and smallest numbers.
            2 => bytes[at..end].fill(0xff),
            3 => bytes[at..end].fill(0),
            4 => drop(bytes.drain(at..end)),
            5 => bytes.truncate(at),
            6 => {
                let again: Vec<u8> = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ => {
                // A part from elsewhere, so that instructions and keys change places.
                let from = random.random_range(0..bytes.len());
                let to = (from + 64).min(bytes.len());
                let part: Vec<u8> = bytes[from..to].to_vec();
                bytes.splice(at..end, part);
            }
        }
    }
    bytes
}

/// Imports a file, which must succeed or be refused with a remedy.
fn check(bytes: &[u8], what: &str) {
    let dimensions = Dimensions { top_k: Some(1), ..Dimensions::default() };
    let options = Options { tied: true, ..Options::with(dimensions) };
    for options in [Options::default(), options] {
        match from_bytes(bytes, Path::new("damaged"), &options) {
            Ok(_) => {}
            Err(Error::Import { problems, remedy, .. }) => {
                assert!(!problems.is_empty(), "{what}");
                let helps = remedy.contains('`') || remedy.contains("--");
                assert!(helps && !remedy.contains("{file}"), "{what}: {problems:?}: {remedy}");
            }
            Err(error) => panic!("{what}: {error:?}"),
        }
    }
}

#[test]
fn damaged_files_are_read_or_refused() {
    let names = ["import/plain.pt", "import/wrapped.pt", "import/module.pt", "import/strided.pt"];
    let archives = [&names[..], &["pytorch/k1_top1.pt", "import/tied.pt"]].concat();
    let mut good: Vec<(&str, Good)> = Vec::new();
    for name in archives {
        good.push((name, Good::Archive(unpacked(&fixture(name)))));
    }
    for name in ["import/mixed.safetensors", "import/tied.safetensors"] {
        good.push((name, Good::safetensors(&fixture(name))));
    }
    for name in ["import/plain.pt", "import/legacy.pt", "import/bf16.safetensors"] {
        good.push((name, Good::Plain(fixture(name))));
    }
    let seconds = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok());
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut seed = 0;
    while seed < SEEDS || until.is_some_and(|until| Instant::now() < until) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (name, good) = &good[seed as usize % good.len()];
        let what = format!("{name}, seed {seed}");
        let bytes = good.changed(&mut random);
        let result = std::panic::catch_unwind(|| check(&bytes, &what));
        assert!(result.is_ok(), "{what}");
        seed += 1;
    }
}

#[test]
fn damaged_indexes_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    for name in names {
        std::fs::write(folder.path().join(name), fixture(&format!("import/shards/{name}")))
            .unwrap();
    }
    let index = folder.path().join("model.safetensors.index.json");
    let good = fixture("import/shards/model.safetensors.index.json");
    for seed in 0..200 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        std::fs::write(&index, mutated(&good, &mut random)).unwrap();
        let result = import(&index, &Options::default());
        assert!(matches!(result, Ok(_) | Err(Error::Import { .. })), "seed {seed}");
    }
}
