//! What suggestions are worth to somebody who types: the words of a text that are offered, and the
//! keystrokes that they save.

use std::error::Error;
use std::path::PathBuf;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use resnet_bk_core::suggest::{Suggester, Suggestion, Unit};
use resnet_bk_core::{self as core, Model, Session};
use resnet_bk_tools::corpus::{Corpus, Split};
use resnet_bk_tools::files;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Blob with a causal model and its tokenizer.
    blob: PathBuf,
    /// Directory with test.txt.
    #[arg(long, value_name = "DIR", env = "WIKITEXT2_DIR")]
    corpus: PathBuf,
    /// Words to type, drawn from the text.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    words: usize,
    /// How often the model is asked for one list of suggestions, at most.
    #[arg(long, value_name = "N", default_value_t = 16)]
    steps: usize,
    /// Seed of where the words are.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Suggestions that are shown at a time.
const SHOWN: usize = 3;
/// Bytes of text before a word that the model reads, about.
const BEFORE: usize = 200;

/// Keystrokes of a word, and which of the suggestions it was before it was begun.
#[derive(Clone, Copy, Default)]
struct Typed {
    /// Its letters and the space after it.
    letters: usize,
    /// Letters until it is shown, and one to choose it, which adds the space.
    strokes: usize,
    first: usize,
    shown: usize,
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let blob = files::read(&args.blob)?;
    let model = Model::from_bytes(&blob)?;
    let text = Corpus::find(Some(&args.corpus))?.text(Split::Test)?.into_bytes();
    let mut random = ChaCha8Rng::seed_from_u64(args.seed);
    let places: Vec<usize> =
        (0..args.words).map(|_| random.random_range(BEFORE..text.len() - BEFORE)).collect();
    let typed: Vec<Typed> = places
        .par_iter()
        .map(|&at| word(&model, &text, at, args.steps))
        .collect::<Result<_, core::Error>>()?;
    let sum = |of: fn(&Typed) -> usize| typed.iter().map(of).sum::<usize>() as f64;
    let (words, letters) = (args.words as f64, sum(|t| t.letters));
    println!("{} words, {:.2} letters and a space each", args.words, letters / words - 1.0);
    println!("the first suggestion before it is begun: {:.1} %", 100.0 * sum(|t| t.first) / words);
    println!("one of {SHOWN}: {:.1} %", 100.0 * sum(|t| t.shown) / words);
    println!("keystrokes saved: {:.1} %", 100.0 * (1.0 - sum(|t| t.strokes) / letters));
    Ok(())
}

/// Types the first word after a place that has a space on both sides.
fn word(model: &Model<'_>, text: &[u8], at: usize, steps: usize) -> Result<Typed, core::Error> {
    let is_inner = |byte: &u8| !byte.is_ascii_whitespace();
    let spaced = |from: usize| {
        let len = text[from + 1..].iter().take_while(|byte| is_inner(byte)).count();
        let after = text.get(from + 1 + len);
        (text[from] == b' ' && len > 0 && after == Some(&b' ')).then_some(len)
    };
    let found = (at..text.len() - 1).find_map(|from| spaced(from).map(|len| (from, len)));
    let Some((from, len)) = found else { return Ok(Typed::default()) };
    // From the beginning of a word.
    let back = text[..from - BEFORE / 2].iter().rposition(|byte| !is_inner(byte)).unwrap_or(0);
    let begin = back.max(from - BEFORE);
    let mut tokens = vec![0; 4 * BEFORE];
    let mut state = vec![0; model.dims().context_len()];
    let session = Session::allocate(model.clone())?;
    let mut suggester = Suggester::new(session, &mut tokens, &mut state)?;
    let mut typed = Typed { letters: len + 1, strokes: len + 1, ..Typed::default() };
    for letters in 0..len {
        let mut shown = [Suggestion::NONE; SHOWN];
        let so_far = &text[begin..=from + letters];
        let count = suggester.suggest(so_far, Unit::Word, steps, &mut shown)?;
        let word = &text[from..=from + len];
        if let Some(place) = shown[..count].iter().position(|s| s.text() == word) {
            typed.strokes = letters + 1;
            typed.first = usize::from(letters == 0 && place == 0);
            typed.shown = usize::from(letters == 0);
            break;
        }
    }
    Ok(typed)
}
