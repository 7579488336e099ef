//! The codec under everything: random texts come back, random codes end in a message or an error.

use std::error::Error;
use std::path::PathBuf;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use resnet_bk_core::coder::{Check, Framing, Start};
use resnet_bk_core::{self as core, Codec, MessageProblem, Model, Session};
use resnet_bk_tools::files;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Blob with a causal model and its tokenizer.
    blob: PathBuf,
    /// Random byte strings to compress and decompress.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    strings: u64,
    /// Random inputs to decompress.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    inputs: u64,
    /// Messages, written by the model, of whose codes every single bit is flipped.
    #[arg(long, value_name = "N", default_value_t = 10)]
    flips: u64,
    /// Seed of them all.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Bytes of the longest string.
const LONGEST: usize = 64;
/// Bytes of the longest random input.
const LONGEST_INPUT: usize = 24;
/// Most bytes of text that a random input may become.
const LIMIT: usize = 256;
/// Bytes of a message whose bits are flipped.
const MESSAGE: usize = 64;

/// How decompression of something ended.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    /// In a message.
    read: u64,
    /// It is no message's code.
    malformed: u64,
    /// Its identity or its check is not that of a message.
    refused: u64,
    /// It is longer than the limit.
    too_long: u64,
}

impl Ends {
    fn of(result: Result<usize, core::Error>) -> Result<Self, core::Error> {
        let mut ends = Self::default();
        match result {
            Ok(_) => ends.read = 1,
            Err(core::Error::Message(MessageProblem::Malformed | MessageProblem::Truncated)) => {
                ends.malformed = 1;
            }
            Err(core::Error::Message(_)) => ends.refused = 1,
            Err(core::Error::Buffer { .. }) => ends.too_long = 1,
            Err(other) => return Err(other),
        }
        Ok(ends)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            read: self.read + other.read,
            malformed: self.malformed + other.malformed,
            refused: self.refused + other.refused,
            too_long: self.too_long + other.too_long,
        }
    }

    fn print(&self, what: &str) {
        let Self { read, malformed, refused, too_long } = self;
        println!(
            "{what}: {read} read, {malformed} malformed, {refused} refused by identity or check, \
             {too_long} longer than the limit"
        );
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let blob = files::read(&args.blob)?;
    let model = Model::from_bytes(&blob)?;
    model.tokenizer()?;
    let random = |kind: u64, index: u64| {
        let mut random = ChaCha8Rng::seed_from_u64(args.seed);
        random.set_stream(kind << 48 | index);
        random
    };
    (0..args.strings).into_par_iter().try_for_each(|index| {
        come_back(&model, &mut random(0, index)).map_err(|error| format!("string {index}: {error}"))
    })?;
    println!("{} random strings: all came back, none more than a byte longer", args.strings);
    let sum = |kind, count, each: fn(&Model<'_>, &mut ChaCha8Rng) -> Result<Ends, core::Error>| {
        let all = (0..count).into_par_iter().map(|index| each(&model, &mut random(kind, index)));
        all.try_reduce(Ends::default, |a, b| Ok(a.plus(b)))
    };
    sum(1, args.inputs, any_code)?.print(&format!("{} random inputs", args.inputs));
    let flips = sum(2, args.flips, flipped)?;
    flips.print(&format!("single-bit flips of {} messages with 16 bits of check", args.flips));
    Ok(())
}

fn framing(random: &mut ChaCha8Rng) -> Framing {
    let checks = [Check::None, Check::Bits8, Check::Bits16, Check::Bits32];
    Framing { identity: random.random(), check: checks[random.random_range(0..4)] }
}

fn bytes(random: &mut ChaCha8Rng, longest: usize) -> Vec<u8> {
    let mut bytes = vec![0; random.random_range(0..=longest)];
    random.fill_bytes(&mut bytes);
    bytes
}

fn session<'a>(model: &Model<'a>) -> Result<Session<'a, Vec<u32>>, core::Error> {
    Session::allocate(model.clone())
}

/// A random string comes back, whatever is around it.
fn come_back(model: &Model<'_>, random: &mut ChaCha8Rng) -> Result<(), String> {
    let (framing, text) = (framing(random), bytes(random, LONGEST));
    let described = |error: core::Error| format!("{error}: {framing:?} {text:?}");
    let mut tokens = [0; LONGEST];
    let mut codec =
        Codec::new(session(model).map_err(described)?, &mut tokens, framing).map_err(described)?;
    let mut code = vec![0; text.len() + 1 + framing.bytes()];
    let len = codec.compress(&text, Start::Fresh, &mut code).map_err(described)?;
    let mut read = [0; LONGEST];
    let read_len = codec.decompress(&code[..len], Start::Fresh, &mut read).map_err(described)?;
    match read[..read_len] == text {
        true => Ok(()),
        false => Err(format!("it became {:?}: {framing:?} {text:?}", &read[..read_len])),
    }
}

/// Random bytes end in a message or an error.
fn any_code(model: &Model<'_>, random: &mut ChaCha8Rng) -> Result<Ends, core::Error> {
    let (mut framing, code) = (framing(random), bytes(random, LONGEST_INPUT));
    if random.random() {
        // Past the checks.
        framing = Framing::default();
    }
    let mut tokens = [0; LIMIT];
    let mut codec = Codec::new(session(model)?, &mut tokens, framing)?;
    Ends::of(codec.decompress(&code, Start::Fresh, &mut [0; LIMIT]))
}

/// All flips of a bit of a message's code; "read" are those that went unnoticed.
fn flipped(model: &Model<'_>, random: &mut ChaCha8Rng) -> Result<Ends, core::Error> {
    let framing = Framing { identity: false, check: Check::Bits16 };
    let mut tokens = [0; LIMIT];
    let mut codec = Codec::new(session(model)?, &mut tokens, framing)?;
    let text = written(model, random)?;
    let mut code = [0; MESSAGE + 3];
    let len = codec.compress(&text, Start::Fresh, &mut code)?;
    let mut all = Ends::default();
    for bit in 0..8 * len {
        code[bit / 8] ^= 1 << (bit % 8);
        all = all.plus(Ends::of(codec.decompress(&code[..len], Start::Fresh, &mut [0; LIMIT]))?);
        code[bit / 8] ^= 1 << (bit % 8);
    }
    Ok(all)
}

/// A message as the model writes it.
fn written(model: &Model<'_>, random: &mut ChaCha8Rng) -> Result<Vec<u8>, core::Error> {
    let sampler = core::Sampler::builder().temperature(1.0).seed(random.random()).build()?;
    let mut context = core::Context::new(session(model)?);
    let (tokenizer, mut sampler, mut text) = (model.tokenizer()?, sampler, Vec::new());
    while text.len() < MESSAGE {
        let token = sampler.sample(context.logits()?);
        context.push(token)?;
        tokenizer.decode(token, |byte| text.push(byte))?;
    }
    text.truncate(MESSAGE);
    Ok(text)
}
