//! Writes the run settings from the environment to constants, and passes the memory map to the
//! linker. The blob's memory needs are constants that the firmware derives from the blob itself.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `RESNET_BK_BLOB` | [`DEFAULT_BLOB`] | path of the blob, relative to this folder |
//! | `RESNET_BK_PROMPT` | [`DEFAULT_PROMPT`] | text to continue; token ids without a tokenizer |
//! | `RESNET_BK_TOKENS` | 64 | tokens to generate |
//! | `RESNET_BK_TEMPERATURE` | 0 | sampling temperature; 0 is greedy |
//! | `RESNET_BK_TOP_K` | 0 | top-k: number of candidates; 0 is all |
//! | `RESNET_BK_TOP_P` | 1 | top-p: probability mass of the nucleus; 1 is all |
//! | `RESNET_BK_REPETITION_PENALTY` | 1 | penalty on the last 64 distinct tokens; 1 is none |
//! | `RESNET_BK_STOP` | | stop token, as text; a token id without a tokenizer |
//! | `RESNET_BK_SEED` | 1 | seed of the sampler, or of the windows' tokens |
//! | `RESNET_BK_WINDOWS` | 4 | windows to score, for a full-chain blob |
//! | `RESNET_BK_MESSAGES` | [`DEFAULT_MESSAGES`] | messages to compress, one a line |
//! | `RESNET_BK_CODES` | [`DEFAULT_CODES`] | messages to decompress, one a line, as hexadecimal digits |

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{env, fs};

/// Default of `RESNET_BK_BLOB`.
const DEFAULT_BLOB: &str = "../models/wikitext2/model.rbk";
const DEFAULT_PROMPT: &str = "The castle was built in";

/// Defaults of `RESNET_BK_MESSAGES` and `RESNET_BK_CODES`.
const DEFAULT_MESSAGES: &str = "messages.txt";
const DEFAULT_CODES: &str = "messages.hex";
/// Bytes of the longest message.
const LONGEST_MESSAGE: usize = 256;

fn main() {
    let result = link().and_then(|()| settings());
    if let Err(message) = result {
        println!("cargo::error={}", message.replace('\n', " "));
    }
}

/// Passes the memory map and arguments to the linker.
fn link() -> Result<(), String> {
    let out = out_dir();
    println!("cargo::rustc-check-cfg=cfg(microbit, mps2_an386)");
    let target: String = variable("TARGET", "")?;
    let board = if target.starts_with("thumbv6m") { "microbit" } else { "mps2_an386" };
    println!("cargo::rustc-cfg={board}");
    let map = format!("src/board/{board}.x");
    println!("cargo::rerun-if-changed={map}");
    fs::copy(&map, out.join("memory.x"))
        .map_err(|e| format!("cannot copy {map} to {}: {e}", out.display()))?;
    println!("cargo::rustc-link-search={}", out.display());
    for argument in ["--nmagic", "-Tlink.x", "-Tdefmt.x"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    Ok(())
}

/// Writes `settings.rs`.
fn settings() -> Result<(), String> {
    let path = blob_path()?;
    let (messages, codes) = (messages()?, codes()?);
    let tokens: usize = variable("RESNET_BK_TOKENS", "64")?;
    let temperature: f32 = variable("RESNET_BK_TEMPERATURE", "0")?;
    let top_k: usize = variable("RESNET_BK_TOP_K", "0")?;
    let top_p: f32 = variable("RESNET_BK_TOP_P", "1")?;
    let penalty: f32 = variable("RESNET_BK_REPETITION_PENALTY", "1")?;
    let seed: u64 = variable("RESNET_BK_SEED", "1")?;
    let windows: usize = variable("RESNET_BK_WINDOWS", "4")?;
    let prompt: String = variable("RESNET_BK_PROMPT", DEFAULT_PROMPT)?;
    let stop: String = variable("RESNET_BK_STOP", "")?;
    if tokens == 0 || windows == 0 || prompt.is_empty() {
        return Err("RESNET_BK_TOKENS and RESNET_BK_WINDOWS must be at least 1, and \
                    RESNET_BK_PROMPT must not be empty"
            .into());
    }
    let text = format!(
        "/// The blob, in flash.\n\
         pub static BLOB: &[u8] = resnet_bk_core::include_blob!({path:?});\n\
         /// Text to continue; token ids if the blob has no tokenizer.\n\
         pub const PROMPT: &str = {prompt:?};\n\
         /// Tokens to generate.\n\
         pub const TOKENS: usize = {tokens};\n\
         /// Temperature of the sampler.\n\
         pub const TEMPERATURE: f32 = f32::from_bits({temperature});\n\
         /// Candidates of the sampler.\n\
         pub const TOP_K: usize = {top_k};\n\
         /// Total probability of the candidates.\n\
         pub const TOP_P: f32 = f32::from_bits({top_p});\n\
         /// Penalty on recent tokens.\n\
         pub const REPETITION_PENALTY: f32 = f32::from_bits({penalty});\n\
         /// Stop token as text, if any.\n\
         pub const STOP: &str = {stop:?};\n\
         /// Seed of the sampler or of the windows' tokens.\n\
         pub const SEED: u64 = {seed};\n\
         /// Windows to score.\n\
         pub const WINDOWS: usize = {windows};\n\
         /// Bytes of the longest message.\n\
         pub const LONGEST_MESSAGE: usize = {LONGEST_MESSAGE};\n\
         /// Messages to compress.\n\
         pub static MESSAGES: &[&[u8]] = &{messages:?};\n\
         /// Messages to decompress.\n\
         pub static CODES: &[&[u8]] = &{codes:?};\n",
        temperature = temperature.to_bits(),
        top_p = top_p.to_bits(),
        penalty = penalty.to_bits(),
    );
    let file = out_dir().join("settings.rs");
    fs::write(&file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))
}

/// The absolute path of the blob, or an error with a remedy.
fn blob_path() -> Result<PathBuf, String> {
    let given: String = variable("RESNET_BK_BLOB", DEFAULT_BLOB)?;
    println!("cargo::rerun-if-changed={given}");
    Path::new(&given).canonicalize().map_err(|e| {
        format!(
            "no blob at {given} ({e}). Make one with `cargo xtask demo` or `resnet-bk quantize`, \
             and name it by RESNET_BK_BLOB; a relative path starts at firmware-example/."
        )
    })
}

/// The messages to compress.
fn messages() -> Result<Vec<ByteString>, String> {
    let (path, text) = file("RESNET_BK_MESSAGES", DEFAULT_MESSAGES)?;
    match text.lines().find(|line| line.len() > LONGEST_MESSAGE) {
        None => Ok(text.lines().map(|line| ByteString(line.into())).collect()),
        Some(line) => Err(format!(
            "{path} has a message of {} bytes, the most is {LONGEST_MESSAGE} (build.rs)",
            line.len()
        )),
    }
}

/// The messages to decompress.
fn codes() -> Result<Vec<ByteString>, String> {
    // Those of another blob are unknown.
    let given: String = variable("RESNET_BK_BLOB", DEFAULT_BLOB)?;
    let default = if given == DEFAULT_BLOB { DEFAULT_CODES } else { "" };
    let (path, text) = file("RESNET_BK_CODES", default)?;
    let bytes = |line: &str| {
        let digits = |at| line.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
        (0..line.len()).step_by(2).map(digits).collect::<Option<Vec<u8>>>().map(ByteString)
    };
    let codes: Option<_> = text.lines().map(bytes).collect();
    codes.ok_or_else(|| format!("{path} has a line that is not hexadecimal digits"))
}

/// The path that a variable names, and the text of that file.
fn file(name: &str, default: &str) -> Result<(String, String), String> {
    let path: String = variable(name, default)?;
    if path.is_empty() {
        return Ok((path, String::new()));
    }
    println!("cargo::rerun-if-changed={path}");
    let text = fs::read_to_string(&path).map_err(|e| format!("{name}: cannot read {path}: {e}"))?;
    Ok((path, text))
}

/// Bytes whose debug form is a literal of a slice.
struct ByteString(Vec<u8>);

impl std::fmt::Debug for ByteString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "&{:?}", self.0)
    }
}

/// An environment variable at build time.
fn variable<T: FromStr<Err: std::fmt::Display>>(name: &str, default: &str) -> Result<T, String> {
    println!("cargo::rerun-if-env-changed={name}");
    let text = match env::var(name) {
        Ok(text) => text,
        Err(env::VarError::NotPresent) => default.to_owned(),
        Err(error) => return Err(format!("{name}: {error}")),
    };
    text.parse().map_err(|e| format!("{name}={text}: {e}"))
}

fn out_dir() -> PathBuf {
    // Cargo sets it for every build script.
    env::var_os("OUT_DIR").expect("cargo sets OUT_DIR").into()
}
