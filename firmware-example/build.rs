//! Reads the settings of a run from the environment, and tells the linker where the memory map is.
//! What the blob needs, the firmware reads from the blob itself, in constants.
//!
//! | variable | default | is |
//! |---|---|---|
//! | `RESNET_BK_BLOB` | [`DEFAULT_BLOB`] | the blob; relative to this folder |
//! | `RESNET_BK_PROMPT` | [`DEFAULT_PROMPT`] | text to continue; token numbers if the blob has no tokenizer |
//! | `RESNET_BK_TOKENS` | 64 | tokens to generate |
//! | `RESNET_BK_TEMPERATURE` | 0 | 0 always takes the likeliest token |
//! | `RESNET_BK_TOP_K` | 0 | sample among so many candidates; 0 is all |
//! | `RESNET_BK_TOP_P` | 1 | sample among the likeliest that together have this probability; 1 is all |
//! | `RESNET_BK_REPETITION_PENALTY` | 1 | makes the last 64 distinct tokens less likely; 1 is no penalty |
//! | `RESNET_BK_STOP` | | text of one token that ends the continuation; token numbers without a tokenizer |
//! | `RESNET_BK_SEED` | 1 | of the sampler, or of the windows' tokens |
//! | `RESNET_BK_WINDOWS` | 4 | windows to score, for a full-chain blob |

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{env, fs};

/// The blob that a plain `cargo run --release` takes.
const DEFAULT_BLOB: &str = "../models/wikitext2/model.rbk";
const DEFAULT_PROMPT: &str = "The castle was built in";

fn main() {
    let result = link().and_then(|()| settings());
    if let Err(message) = result {
        println!("cargo::error={}", message.replace('\n', " "));
    }
}

/// Where the linker finds the memory map, and how it links.
fn link() -> Result<(), String> {
    let out = out_dir();
    println!("cargo::rerun-if-changed=src/board/memory.x");
    fs::copy("src/board/memory.x", out.join("memory.x"))
        .map_err(|e| format!("cannot copy src/board/memory.x to {}: {e}", out.display()))?;
    println!("cargo::rustc-link-search={}", out.display());
    for argument in ["--nmagic", "-Tlink.x", "-Tdefmt.x"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    Ok(())
}

/// Writes `settings.rs`.
fn settings() -> Result<(), String> {
    let path = blob_path()?;
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
         /// Text to continue; token numbers where the blob has no tokenizer.\n\
         pub const PROMPT: &str = {prompt:?};\n\
         /// Tokens to generate.\n\
         pub const TOKENS: usize = {tokens};\n\
         /// Temperature of the sampler.\n\
         pub const TEMPERATURE: f32 = f32::from_bits({temperature});\n\
         /// Candidates of the sampler.\n\
         pub const TOP_K: usize = {top_k};\n\
         /// Probability that the candidates have together.\n\
         pub const TOP_P: f32 = f32::from_bits({top_p});\n\
         /// Makes recent tokens less likely.\n\
         pub const REPETITION_PENALTY: f32 = f32::from_bits({penalty});\n\
         /// Text of one token that ends the continuation, if any.\n\
         pub const STOP: &str = {stop:?};\n\
         /// Seed of the sampler or of the windows' tokens.\n\
         pub const SEED: u64 = {seed};\n\
         /// Windows to score.\n\
         pub const WINDOWS: usize = {windows};\n",
        temperature = temperature.to_bits(),
        top_p = top_p.to_bits(),
        penalty = penalty.to_bits(),
    );
    let file = out_dir().join("settings.rs");
    fs::write(&file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))
}

/// The absolute path of the blob, or what to do when there is none.
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
