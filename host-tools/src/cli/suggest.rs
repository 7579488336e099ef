//! `resnet-bk suggest`.

use std::path::PathBuf;

use resnet_bk_core::Session;
use resnet_bk_core::suggest::{BEGINNINGS, Suggester, Suggestion, Unit};
use serde_json::json;

use super::common::{parse_blob, print_json};
use crate::cli::{Global, numbers};
use crate::error::{Error, Result};
use crate::files::Content;
use crate::table::table;
use crate::terminal::Stdout;

const EXAMPLES: &str = "\
Examples:
  Words that may follow, or end the one that has been begun:
      resnet-bk suggest model.rbk 'The castle was bu'

  Those after a whole word, more of them, as JSON:
      resnet-bk suggest model.rbk 'The castle was ' --count 10 --json

  What single tokens would add, for which the model is hardly ever asked more than once:
      resnet-bk suggest model.rbk 'The castle was bu' --tokens

A device gets the same words with the same probabilities (resnet_bk_core::suggest).";

/// Suggest how a text goes on, as a keyboard does.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`suggest --help` shows examples.")]
pub(crate) struct Args {
    /// Blob with a causal model and its tokenizer.
    #[arg(value_name = "BLOB")]
    model: PathBuf,
    /// Text that has been typed so far. A space at its end says that its last word is whole.
    text: String,
    /// Number of suggestions, at most 16.
    #[arg(long, value_parser = numbers::within(1..=BEGINNINGS as u64), default_value_t = 5,
        value_name = "N")]
    count: usize,
    /// Suggest what one token adds instead of whole words.
    #[arg(long)]
    tokens: bool,
    /// How often the model may be asked for logits, at most; with few, suggestions may be
    /// missing.
    #[arg(long, value_parser = numbers::within(1..=100_000), default_value_t = 100,
        value_name = "N")]
    steps: usize,
}

pub(crate) fn run(args: Args, global: Global) -> Result<()> {
    let blob = Content::of(&args.model)?;
    let model = parse_blob(&blob, &args.model)?;
    let session = Session::allocate(model.clone()).map_err(Error::Blob)?;
    let mut snapshot = vec![0; model.dims().context_len()];
    let mut scratch = vec![0; 2 * args.text.len().max(1)];
    let suggester = Suggester::new(session, &mut scratch, &mut snapshot);
    let mut suggester = suggester.map_err(Error::Blob)?;
    let unit = if args.tokens { Unit::Token } else { Unit::Word };
    let mut found = vec![Suggestion::NONE; args.count];
    let text = args.text.as_bytes();
    let count = suggester.suggest(text, unit, args.steps, &mut found).map_err(Error::Blob)?;
    let found = found[..count]
        .iter()
        .map(|suggestion| (String::from_utf8_lossy(suggestion.text()), suggestion.probability()));
    if global.json {
        let found = found.map(|(text, p)| json!({ "text": text, "probability": p }));
        return print_json(&json!({ "suggestions": found.collect::<Vec<_>>() }));
    }
    let mut table = table(&["suggestion", "probability"]);
    for (text, probability) in found {
        table.add_row([format!("{text:?}"), format!("{:.2} %", 100.0 * probability)]);
    }
    writeln!(Stdout, "{table}")
}
