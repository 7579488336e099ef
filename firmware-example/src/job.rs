//! What the firmware does with the blob: continue a prompt, or score windows.

use resnet_bk_core::{Error, LogitsDigest, Model, Sampler};
use resnet_bk_firmware::meter::Meter;
use resnet_bk_firmware::report::Outcome;
use resnet_bk_firmware::settings::{
    PROMPT, SEED, TEMPERATURE, TOKENS, TOP_K, TOP_P, WINDOW_TOKENS, WINDOWS,
};
use resnet_bk_firmware::{prompt, storage};

/// Continues the prompt. Its last token is the first whose logits are computed, and the last one of
/// the continuation is not fed back, so there are as many steps as tokens to generate.
pub(crate) fn generate(model: Model<'static>, meter: &Meter) -> Result<Outcome, Error> {
    let tokenizer = model.tokenizer().ok();
    let mut buffer = [0; PROMPT.len()];
    let prompt = prompt::encode(&model, &mut buffer)?;
    let mut session = storage::session(model)?;
    let mut sampler = Sampler::new(TEMPERATURE, TOP_K, SEED)?.with_top_p(TOP_P)?;
    // No prompt is empty.
    let (&last, first) = prompt.split_last().unwrap_or((&0, &[]));
    let started = meter.instructions();
    for &token in first {
        session.feed(u32::from(token))?;
    }
    let fed_instructions = meter.instructions() - started;
    let mut digest = LogitsDigest::new();
    let mut instructions = 0;
    let mut token = u32::from(last);
    for step in 0..TOKENS {
        let started = meter.instructions();
        let logits = session.step(token)?;
        instructions += meter.instructions() - started;
        digest.update(logits);
        defmt::debug!("step {=usize} token {=u32} digest {=u32:08x}", step, token, digest.value());
        token = sampler.sample(logits);
        prompt::print(tokenizer, token);
    }
    let (tokens, fed) = (TOKENS as u32, first.len() as u32);
    Ok(Outcome { tokens, digest, instructions, fed, fed_instructions })
}

/// Scores windows of pseudo-random tokens.
pub(crate) fn score(model: Model<'static>, meter: &Meter) -> Result<Outcome, Error> {
    let vocab = model.dims().vocab;
    let mut window = storage::window(model)?;
    let mut digest = LogitsDigest::new();
    let mut instructions = 0;
    let mut generator = SEED;
    for index in 0..WINDOWS {
        let tokens: [u32; WINDOW_TOKENS] =
            core::array::from_fn(|_| random_token(&mut generator, vocab));
        let mut aside = 0;
        let started = meter.instructions();
        window.score(&tokens, |_, logits| {
            let started = meter.instructions();
            digest.update(logits);
            aside += meter.instructions() - started;
        })?;
        instructions += meter.instructions() - started - aside;
        defmt::info!("window {=usize} digest {=u32:08x}", index, digest.value());
    }
    let tokens = (WINDOWS * WINDOW_TOKENS) as u32;
    Ok(Outcome { tokens, digest, instructions, fed: 0, fed_instructions: 0 })
}

/// The next token of a window: the high half of SplitMix64 (Steele, Lea and Flood, 2014), modulo the
/// vocabulary.
fn random_token(state: &mut u64, vocab: u32) -> u32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 32) as u32 % vocab
}
