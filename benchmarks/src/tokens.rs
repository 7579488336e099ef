//! Tokens of a corpus as plain files, so that models trained elsewhere see the same ones.

use std::error::Error;
use std::path::{Path, PathBuf};

use resnet_bk_tools::corpus::{Corpus, Split};
use resnet_bk_tools::files;
use resnet_bk_tools::tokenizer::Tokenizer;
use serde_json::json;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The tokenizer.json.
    #[arg(long, value_name = "FILE")]
    tokenizer: PathBuf,
    /// Directory with train.txt, valid.txt and test.txt.
    #[arg(long, value_name = "DIR", env = "WIKITEXT2_DIR")]
    corpus: PathBuf,
    /// Output directory; created if missing. It receives train.u16, valid.u16 and test.u16, the
    /// bytes of every token in lengths.u16, and tokens.json with the tokenizer's hash.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let tokenizer = Tokenizer::load(&args.tokenizer)?;
    let corpus = Corpus::find(Some(&args.corpus))?;
    files::create_directory(&args.out)?;
    for split in [Split::Train, Split::Valid, Split::Test] {
        let tokens = tokenizer.encode(&corpus.text(split)?)?;
        println!("{}: {} tokens", split.name(), tokens.len());
        let numbers = tokens.iter().map(|&token| token as usize);
        write(&args.out.join(split.name()).with_extension("u16"), numbers)?;
    }
    let table = tokenizer.table().ok_or("the tokens of this tokenizer have no bytes")?;
    write(&args.out.join("lengths.u16"), table.iter().map(Vec::len))?;
    // Last: its presence says that the others are complete.
    let about = json!({ "vocab": tokenizer.vocab(), "tokenizer_sha256": tokenizer.sha256() });
    files::write_atomically(&args.out.join("tokens.json"), about.to_string().as_bytes())?;
    Ok(())
}

/// Writes little-endian 16-bit numbers.
fn write(path: &Path, numbers: impl Iterator<Item = usize>) -> Result<(), Box<dyn Error>> {
    let mut bytes = Vec::new();
    for number in numbers {
        let number = u16::try_from(number)
            .map_err(|_| format!("{}: {number} does not fit 16 bits", path.display()))?;
        bytes.extend(number.to_le_bytes());
    }
    files::write_atomically(path, &bytes)?;
    Ok(())
}
