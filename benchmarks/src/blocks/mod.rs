//! Blocks at equal parameters, training tokens and bytes: the gated chain beside Mamba, GRU and
//! attention, all quantized by the product's quantizer.
//!
//! ```text
//! benchmarks/blocks (PyTorch) ─ model.safetensors, statistics.safetensors ─┐
//! resnet-bk train --block gated ─ model.safetensors ───────────────────────┤
//!                                                  Trained ─ store ─ Network ─ score ─▶ table
//! ```

mod budget;
mod cost;
mod network;
mod scores;
mod scoring;
mod storage;
mod table;
mod tensors;
mod trained;

use std::path::PathBuf;

use clap::ValueEnum;
use resnet_bk_tools::corpus::{Corpus, Split};
use resnet_bk_tools::eval::text::{TextSource, Tokens};
use resnet_bk_tools::tokenizer::Tokenizer;

use scores::Run;
use scoring::Text;
use table::Group;
use tensors::Failure;
use trained::{Kind, Trained};

/// Tokens of the validation split on which budgets are measured.
const HELD_OUT: usize = 16_384;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folders with model.safetensors and, to be quantized, statistics.safetensors. Models of the
    /// same kind and size count as seeds of one model.
    #[arg(required = true, value_name = "DIR")]
    runs: Vec<PathBuf>,
    /// The tokenizer.json that the models were trained with.
    #[arg(long, value_name = "FILE")]
    tokenizer: PathBuf,
    /// Directory with valid.txt or test.txt.
    #[arg(long, value_name = "DIR", env = "WIKITEXT2_DIR")]
    corpus: PathBuf,
    /// The text to score on.
    #[arg(long, value_enum, default_value_t = Scored::Valid)]
    split: Scored,
    /// Score only N tokens, from the middle of the text [default: all].
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// Tokens per window.
    #[arg(long, default_value_t = 128, value_name = "N")]
    window: usize,
    /// Sizes of whole models to search the best mix of precisions for, comma-separated.
    #[arg(long, value_name = "BYTES", value_delimiter = ',')]
    budgets: Vec<usize>,
    /// Print the result as JSON on standard output.
    #[arg(long)]
    json: bool,
}

/// Which text is scored.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scored {
    /// The validation split.
    Valid,
    /// The test split.
    Test,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if args.window == 0 {
        return Err("a window has at least one token".into());
    }
    let tokenizer = Tokenizer::load(&args.tokenizer)?;
    let split = match args.split {
        Scored::Valid => Split::Valid,
        Scored::Test => Split::Test,
    };
    let text = args.text(split, args.tokens, &tokenizer)?;
    let held_out = args.text(Split::Valid, Some(HELD_OUT), &tokenizer)?;
    let table = tokenizer.table().ok_or("the tokens of this tokenizer have no bytes")?;
    let lengths: Vec<usize> = table.iter().map(Vec::len).collect();
    let blocks = [&text, &held_out].map(|text| text.blocks(args.window));
    let of = |tokens, blocks| Text { tokens, blocks, lengths: &lengths };
    let cache = match args.tokens {
        Some(tokens) => format!("{}-{}-{tokens}", split.name(), args.window),
        None => format!("{}-{}", split.name(), args.window),
    };
    let mut groups: Vec<Group> = Vec::new();
    for folder in &args.runs {
        let path = folder.join("model.safetensors");
        let trained = Trained::read(&path)?;
        let (name, model) = (args.tokenizer.display().to_string(), path.display().to_string());
        tokenizer.belongs_to(&name, &model, trained.dims.vocab, trained.tokenizer())?;
        let run = Run {
            folder: folder.clone(),
            trained,
            text: (of(&text.tokens, &blocks[0]), &cache),
            held_out: of(&held_out.tokens, &blocks[1]),
            tokenizer: tokenizer.section()?.len(),
        };
        let scores = run.scores(&args.budgets)?;
        let (dims, label) = (&run.trained.dims, run.trained.dims.label());
        match groups.iter_mut().find(|group| group.label == label) {
            Some(group) => group.seeds.push(scores),
            None => groups.push(Group {
                label,
                ours: matches!(dims.kind, Kind::Gated(_)),
                parameters: run.trained.parameters,
                cost: cost::cost(dims, args.window),
                seeds: vec![scores],
            }),
        }
    }
    let lines = table::lines(&groups, &args.budgets);
    let errors_by = blocks[0].describe();
    if args.json {
        println!("{:#}", table::json(&lines, &text.name, &errors_by));
    } else {
        table::print(&groups, &lines, &text.name, &errors_by);
    }
    Ok(())
}

impl Args {
    fn text(
        &self,
        split: Split,
        limit: Option<usize>,
        tokenizer: &Tokenizer,
    ) -> Result<Tokens, Failure> {
        let source = TextSource::Split(Corpus::find(Some(&self.corpus))?, split);
        Ok(source.tokens(None, Some(tokenizer), limit, self.window, 1, |_| {})?)
    }
}
