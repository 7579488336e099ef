//! The jobs of the firmware: continue a prompt, or score windows.

use micromath::F32Ext;
use resnet_bk_core::{Error, Generator, LogitsDigest, Model, Sampler, Score, Scorer};
use resnet_bk_firmware::meter::Meter;
use resnet_bk_firmware::report::Outcome;
use resnet_bk_firmware::settings::{
    PROMPT, RECENT, REPETITION_PENALTY, SEED, STOP, TEMPERATURE, TOKENS, TOP_K, TOP_P,
    WINDOW_TOKENS, WINDOWS,
};
use resnet_bk_firmware::{prompt, storage};

/// Logs the surprisal of the prompt, then continues it. Logits are computed from the prompt's last
/// token on, and the last generated token is not fed back, so there are at most as many steps as
/// tokens to generate.
pub(crate) fn generate(model: Model<'static>, meter: &Meter) -> Result<Outcome, Error> {
    let tokenizer = model.tokenizer().ok();
    let (mut stop_buffer, mut stops) = ([0; STOP.len()], &[][..]);
    if !STOP.is_empty() {
        stops = prompt::stop(&model, STOP, &mut stop_buffer)?;
    }
    let mut buffer = [0; PROMPT.len()];
    let prompt = prompt::encode(&model, &mut buffer)?;
    let mut session = storage::session(model)?;
    let mut scorer = Scorer::new(&mut session);
    for &token in prompt {
        scorer.next(token)?;
    }
    report("prompt", scorer.score());
    session.reset();

    let sampler = Sampler::builder().temperature(TEMPERATURE).top_k(TOP_K).top_p(TOP_P);
    let sampler = sampler.repetition_penalty::<RECENT>(REPETITION_PENALTY).seed(SEED).build()?;
    let mut generator = Generator::new(session, sampler).limit(TOKENS).stop_at(stops);
    let started = meter.instructions();
    generator.feed(prompt)?;
    let fed_instructions = meter.instructions() - started;
    let mut decoder = tokenizer.map(|tokenizer| tokenizer.decoder());
    let mut digest = LogitsDigest::new();
    let (mut tokens, mut instructions) = (0, 0);
    loop {
        let started = meter.instructions();
        let next = generator.next_token(|logits| {
            instructions += meter.instructions() - started;
            digest.update(logits);
        })?;
        let Some(token) = next else { break };
        let digest = digest.value();
        defmt::debug!("step {=u32} token {=u32} digest {=u32:08x}", tokens, token, digest);
        tokens += 1;
        defmt::println!("token {=u32}", token);
        // Tokens unknown to the tokenizer have no text.
        let _ = decoder.as_mut().map(|decoder| decoder.decode(token, prompt::print));
    }
    if let Some(decoder) = &mut decoder {
        decoder.finish(prompt::print);
    }
    let fed = prompt.len().saturating_sub(1) as u32;
    Ok(Outcome { tokens, digest, instructions, fed, fed_instructions })
}

/// Scores windows of pseudo-random tokens.
pub(crate) fn score(model: Model<'static>, meter: &Meter) -> Result<Outcome, Error> {
    let vocab = model.dims().vocab;
    let mut window = storage::window(model)?;
    let mut digest = LogitsDigest::new();
    let mut instructions = 0;
    let mut score = Score::default();
    let mut generator = SEED;
    for index in 0..WINDOWS {
        let tokens: [u32; WINDOW_TOKENS] =
            core::array::from_fn(|_| random_token(&mut generator, vocab));
        let mut aside = 0;
        let started = meter.instructions();
        window.score(&tokens, |position, logits| {
            let started = meter.instructions();
            digest.update(logits);
            if let Some(&next) = tokens.get(position + 1) {
                // Cannot fail: the model has scored the token.
                let _ = score.add(logits, next);
            }
            aside += meter.instructions() - started;
        })?;
        instructions += meter.instructions() - started - aside;
        defmt::info!("window {=usize} digest {=u32:08x}", index, digest.value());
    }
    report("windows", score);
    let tokens = (WINDOWS * WINDOW_TOKENS) as u32;
    Ok(Outcome { tokens, digest, instructions, fed: 0, fed_instructions: 0 })
}

/// Logs the surprisal of a text, unless no token was scored.
fn report(text: &str, score: Score) {
    if score.tokens() > 0 {
        defmt::info!(
            "{=str}: {=f32} bits per token, perplexity {=f32}",
            text,
            score.bits_per_token(),
            F32Ext::exp(score.nats_per_token())
        );
    }
}

/// The next token of a window: the high half of SplitMix64 (Steele, Lea and Flood, 2014), modulo
/// the vocabulary.
fn random_token(state: &mut u64, vocab: u32) -> u32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 32) as u32 % vocab
}
