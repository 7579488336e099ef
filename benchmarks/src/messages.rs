//! Compression of short messages, cut from a text: the codec's bytes beside the model's own
//! cross-entropy.

use std::error::Error;
use std::f64::consts::LN_2;
use std::path::PathBuf;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use resnet_bk_core::coder::{Framing, Start};
use resnet_bk_core::{Codec, Context, Model, Session, Tokenizer, log_probability};
use resnet_bk_tools::corpus::{Corpus, Split};
use resnet_bk_tools::files;
use serde::Serialize;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Blob with a causal model and its tokenizer.
    blob: PathBuf,
    /// Directory with test.txt.
    #[arg(long, value_name = "DIR", env = "WIKITEXT2_DIR")]
    corpus: PathBuf,
    /// Bytes of a message.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [64, 128, 256])]
    lengths: Vec<usize>,
    /// Messages of each length.
    #[arg(long, value_name = "N", default_value_t = 1500)]
    count: usize,
    /// Seed of where they are cut.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print the result as JSON, with the places of all messages.
    #[arg(long)]
    json: bool,
}

/// What messages of one length become.
#[derive(Debug, Serialize)]
struct Line {
    length: usize,
    /// Where each begins in the text.
    offsets: Vec<usize>,
    /// Of the whole stream, state reset before every message.
    bits_per_byte: f64,
    /// Cross-entropy of the model, the first token under its prior.
    cross_entropy: f64,
    /// The same with the first token given.
    cross_entropy_first_given: f64,
    /// Bits that a message takes beyond its cross-entropy.
    overhead_bits: f64,
}

/// Sums over messages, in bits.
#[derive(Clone, Copy, Default)]
struct Bits {
    stream: f64,
    first: f64,
    rest: f64,
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let blob = files::read(&args.blob)?;
    let model = Model::from_bytes(&blob)?;
    let text = Corpus::find(Some(&args.corpus))?.text(Split::Test)?.into_bytes();
    let mut random = ChaCha8Rng::seed_from_u64(args.seed);
    let mut lines = Vec::new();
    for &length in &args.lengths {
        if length == 0 || length > text.len() {
            return Err(format!("the text has {} bytes, none of {length}", text.len()).into());
        }
        let places = 0..=text.len() - length;
        let offsets: Vec<usize> =
            (0..args.count).map(|_| random.random_range(places.clone())).collect();
        let measured: Vec<Bits> = offsets
            .par_iter()
            .map(|&at| measure(&model, &text[at..at + length]))
            .collect::<Result<_, resnet_bk_core::Error>>()?;
        let sum = |of: fn(&Bits) -> f64| measured.iter().map(of).sum::<f64>();
        let (count, bytes) = (args.count as f64, (args.count * length) as f64);
        let (stream, first, rest) = (sum(|b| b.stream), sum(|b| b.first), sum(|b| b.rest));
        lines.push(Line {
            length,
            offsets,
            bits_per_byte: stream / bytes,
            cross_entropy: (first + rest) / bytes,
            cross_entropy_first_given: rest / bytes,
            overhead_bits: (stream - first - rest) / count,
        });
    }
    if args.json {
        println!("{}", serde_json::to_string(&lines)?);
        return Ok(());
    }
    println!("| bytes | stream | cross-entropy | first token given | bits beyond, a message |");
    println!("|---:|---:|---:|---:|---:|");
    for line in lines {
        println!(
            "| {} | {:.3} | {:.3} | {:.3} | {:.2} |",
            line.length,
            line.bits_per_byte,
            line.cross_entropy,
            line.cross_entropy_first_given,
            line.overhead_bits,
        );
    }
    Ok(())
}

/// Compresses a message, checks that it comes back, and scores its tokens.
fn measure(model: &Model<'_>, message: &[u8]) -> Result<Bits, resnet_bk_core::Error> {
    let mut tokens = vec![0; message.len()];
    let mut codec = Codec::new(Session::allocate(model.clone())?, &mut tokens, Framing::default())?;
    let mut code = vec![0; codec.longest(message.len())];
    let len = codec.compress(message, Start::Fresh, &mut code)?;
    let mut read = vec![0; message.len()];
    let read_len = codec.decompress(&code[..len], Start::Fresh, &mut read)?;
    let same = read_len == message.len() && read == message;
    assert!(same, "a message that does not come back");
    let [first, rest] = cross_entropy(model, &model.tokenizer()?, message)?;
    Ok(Bits { stream: 8.0 * len as f64, first, rest })
}

/// Bits of the first token under the model's prior, and of the others.
fn cross_entropy(
    model: &Model<'_>,
    tokenizer: &Tokenizer<'_>,
    message: &[u8],
) -> Result<[f64; 2], resnet_bk_core::Error> {
    let mut context = Context::new(Session::allocate(model.clone())?);
    let mut bits = [0.0; 2];
    for token in tokenizer.encode_vec(message)? {
        let place = usize::from(bits[0] > 0.0);
        bits[place] -= f64::from(log_probability(context.logits()?, token)?) / LN_2;
        context.push(token)?;
    }
    Ok(bits)
}
