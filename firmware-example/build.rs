//! Reads the blob on the workstation, with the code that the device will run, and writes down what
//! the firmware has to know at compile time: how much memory a session takes, and what to do.
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

use resnet_bk_core::blob::Chain;
use resnet_bk_core::{Error, Model, Sampler, Session, Tokenizer, Window};

/// The blob that a plain `cargo run --release` takes.
const DEFAULT_BLOB: &str = "../models/wikitext2/model.rbk";
const DEFAULT_PROMPT: &str = "The castle was built in";
/// Longest window that is scored, in tokens.
const WINDOW_TOKENS: usize = 64;
/// Positions that a window computes at a time.
const WINDOW_TILE: usize = 4;
/// Distinct tokens that the repetition penalty remembers.
const RECENT: usize = 64;

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
    let bytes = fs::read(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let model = Model::from_bytes(&bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    let dims = model.dims();

    let tokens: usize = variable("RESNET_BK_TOKENS", "64")?;
    let temperature: f32 = variable("RESNET_BK_TEMPERATURE", "0")?;
    let top_k: usize = variable("RESNET_BK_TOP_K", "0")?;
    let top_p: f32 = variable("RESNET_BK_TOP_P", "1")?;
    let penalty: f32 = variable("RESNET_BK_REPETITION_PENALTY", "1")?;
    let seed: u64 = variable("RESNET_BK_SEED", "1")?;
    let windows: usize = variable("RESNET_BK_WINDOWS", "4")?;
    let sampler = Sampler::builder().temperature(temperature).top_k(top_k).top_p(top_p);
    sampler.repetition_penalty::<RECENT>(penalty).build().map_err(|e| {
        format!(
            "RESNET_BK_TEMPERATURE, RESNET_BK_TOP_K, RESNET_BK_TOP_P or \
             RESNET_BK_REPETITION_PENALTY: {e}"
        )
    })?;
    let prompt: String = variable("RESNET_BK_PROMPT", DEFAULT_PROMPT)?;
    let prompt_tokens = match model.tokenizer() {
        Err(Error::NoTokenizer) if dims.chain == Chain::Half => prompt_tokens(&prompt)?,
        _ => Vec::new(),
    };
    let stop: String = variable("RESNET_BK_STOP", "")?;
    let stop_tokens = match model.tokenizer() {
        Ok(tokenizer) => stop_tokens(&tokenizer, &stop)?,
        Err(_) => token_numbers("RESNET_BK_STOP", &stop)?,
    };
    if tokens == 0 || windows == 0 || prompt.is_empty() {
        return Err("RESNET_BK_TOKENS and RESNET_BK_WINDOWS must be at least 1, and \
                    RESNET_BK_PROMPT must not be empty"
            .into());
    }

    let window = match dims.positions {
        0 => WINDOW_TOKENS,
        positions => WINDOW_TOKENS.min(positions as usize),
    };
    let (scores_windows, words) = match dims.chain {
        Chain::Half => (false, Session::<&mut [u32]>::words(dims)),
        Chain::Full => (true, Window::<&mut [u32]>::words(dims, window, WINDOW_TILE)),
    };
    let text = format!(
        "/// The blob, in flash.\n\
         pub(crate) static BLOB: &[u8] = resnet_bk_core::include_blob!({path:?});\n\
         /// Whether the blob can only score whole windows.\n\
         pub(crate) const SCORES_WINDOWS: bool = {scores_windows};\n\
         /// Words of memory that it takes.\n\
         pub(crate) const MEMORY_WORDS: usize = {words};\n\
         /// Text to continue.\n\
         pub(crate) const PROMPT: &str = {prompt:?};\n\
         /// The same as tokens, where the blob has no tokenizer.\n\
         pub(crate) const PROMPT_TOKENS: &[u32] = &{prompt_tokens:?};\n\
         /// Tokens to generate.\n\
         pub(crate) const TOKENS: usize = {tokens};\n\
         /// Temperature of the sampler.\n\
         pub(crate) const TEMPERATURE: f32 = f32::from_bits({temperature});\n\
         /// Candidates of the sampler.\n\
         pub(crate) const TOP_K: usize = {top_k};\n\
         /// Probability that the candidates have together.\n\
         pub(crate) const TOP_P: f32 = f32::from_bits({top_p});\n\
         /// Makes recent tokens less likely.\n\
         pub(crate) const REPETITION_PENALTY: f32 = f32::from_bits({penalty});\n\
         /// Distinct tokens that count as recent.\n\
         pub(crate) const RECENT: usize = {RECENT};\n\
         /// Tokens that end the continuation.\n\
         pub(crate) const STOP_TOKENS: &[u32] = &{stop_tokens:?};\n\
         /// Seed of the sampler or of the windows' tokens.\n\
         pub(crate) const SEED: u64 = {seed};\n\
         /// Windows to score.\n\
         pub(crate) const WINDOWS: usize = {windows};\n\
         /// Tokens of a window.\n\
         pub(crate) const WINDOW_TOKENS: usize = {window};\n\
         /// Positions that are computed at a time.\n\
         pub(crate) const WINDOW_TILE: usize = {WINDOW_TILE};\n",
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

/// A prompt for a blob without a tokenizer: token numbers, by default the first token.
fn prompt_tokens(prompt: &str) -> Result<Vec<u32>, String> {
    if prompt == DEFAULT_PROMPT {
        return Ok(vec![0]);
    }
    match token_numbers("RESNET_BK_PROMPT", prompt)? {
        tokens if tokens.is_empty() => Err("RESNET_BK_PROMPT must name at least one token".into()),
        tokens => Ok(tokens),
    }
}

/// The numbers of a variable whose blob has no tokenizer.
fn token_numbers(variable: &str, text: &str) -> Result<Vec<u32>, String> {
    let numbers = text.split([',', ' ']).filter(|number| !number.is_empty());
    numbers.map(str::parse).collect::<Result<_, _>>().map_err(|_| {
        format!(
            "the blob carries no tokenizer, so {variable} must be token numbers such as `1 2 3`, \
             not `{text}`; or quantize with a tokenizer"
        )
    })
}

/// The token of a text that ends the continuation; none for an empty one.
fn stop_tokens(tokenizer: &Tokenizer<'_>, text: &str) -> Result<Vec<u32>, String> {
    let mut tokens = vec![0; text.len()];
    let count = tokenizer.encode(text.as_bytes(), &mut tokens).map_err(|e| e.to_string())?;
    tokens.truncate(count);
    match count {
        0 | 1 => Ok(tokens),
        _ => Err(format!("RESNET_BK_STOP={text:?} is {count} tokens, but must be one")),
    }
}

fn out_dir() -> PathBuf {
    // Cargo sets it for every build script.
    env::var_os("OUT_DIR").expect("cargo sets OUT_DIR").into()
}
