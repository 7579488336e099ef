//! The firmware's job on the host, whose results a device must reproduce.

use anyhow::{Context, Result};
use resnet_bk_core::{Generator, LogitsDigest, Model, Sampler, Session, Window};

use crate::firmware::Job;

/// The longest window that the firmware scores, in tokens.
const WINDOW_TOKENS: usize = 64;

/// Number of distinct recent tokens of the firmware's repetition penalty.
const RECENT: usize = 64;

/// Result of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Generated tokens; none for windows.
    pub tokens: Vec<u32>,
    /// Their text, if the blob has a tokenizer.
    pub text: String,
    /// Number of positions with computed logits.
    pub steps: u32,
    /// Prompt tokens before the last, without logits.
    pub fed: u32,
    /// CRC-32C over the little-endian bits of every logit, as eight hexadecimal digits.
    pub digest: String,
    /// The digest after each step.
    pub digests: Vec<u32>,
}

/// Runs a job with a blob.
pub fn run(blob: &[u8], job: &Job) -> Result<Outcome> {
    let model = Model::from_bytes(blob)?;
    let (mut digest, mut digests) = (LogitsDigest::new(), Vec::new());
    let mut add = |logits: &[_]| {
        digest.update(logits);
        digests.push(digest.value());
    };
    let (mut tokens, mut text) = (Vec::new(), String::new());
    let mut fed = 0;
    match job {
        Job::Generate { prompt, tokens: count, sampling } => {
            let prompt = encode(&model, prompt)?;
            let session = Session::allocate(model.clone())?;
            let sampler = Sampler::builder().temperature(sampling.temperature);
            let sampler = sampler.top_k(sampling.top_k).top_p(sampling.top_p).seed(sampling.seed);
            let sampler = sampler.repetition_penalty::<RECENT>(sampling.repetition_penalty);
            let mut generator = Generator::new(session, sampler.build()?).limit(*count);
            generator.feed(&prompt)?;
            fed = prompt.len().saturating_sub(1) as u32;
            while let Some(token) = generator.next_token(&mut add)? {
                tokens.push(token);
            }
            if let Ok(tokenizer) = model.tokenizer() {
                let mut decoder = tokenizer.decoder();
                for &token in &tokens {
                    // Tokens outside the tokenizer have no text.
                    let _ = decoder.decode(token, |part| text.push_str(part));
                }
                decoder.finish(|part| text.push_str(part));
            }
        }
        Job::Score { windows, seed } => {
            let dims = model.dims();
            let len = match dims.positions {
                0 => WINDOW_TOKENS,
                positions => WINDOW_TOKENS.min(positions as usize),
            };
            let mut generator = *seed;
            let mut window = Window::allocate(model.clone(), len, len)?;
            for _ in 0..*windows {
                let tokens: Vec<u32> =
                    (0..len).map(|_| random_token(&mut generator, dims.vocab)).collect();
                window.score(&tokens, |_, row| add(row))?;
            }
        }
    }
    let (steps, digest) = (digest.steps(), format!("{:08x}", digest.value()));
    Ok(Outcome { tokens, text, steps, fed, digest, digests })
}

/// The prompt's tokens: encoded by the blob's tokenizer, or token numbers where none encodes.
fn encode(model: &Model<'_>, prompt: &str) -> Result<Vec<u32>> {
    let tokens: Vec<u32> = match model.tokenizer() {
        Ok(tokenizer) if tokenizer.rule().is_some() => tokenizer.encode_vec(prompt.as_bytes())?,
        _ => prompt
            .split([',', ' '])
            .filter(|number| !number.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()
            .context("a blob without a tokenizer needs token numbers such as `1 2 3`")?,
    };
    Ok(tokens)
}

/// Tokens of windows, by the firmware's rule: the high half of SplitMix64 (Steele, Lea and Flood,
/// 2014), modulo the vocabulary.
fn random_token(state: &mut u64, vocab: u32) -> u32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 32) as u32 % vocab
}
