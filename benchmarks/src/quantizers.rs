//! Quality of a model after general quantizers.

use std::error::Error;
use std::path::PathBuf;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use resnet_bk_schema::outputs::{Evaluation, Quality, Scored};
use resnet_bk_schema::statistics::with_error;
use resnet_bk_tools::checkpoint::{Checkpoint, TOKENIZER_KEY};
use resnet_bk_tools::corpus::Split;
use resnet_bk_tools::eval::text::TextSource;
use resnet_bk_tools::eval::{Subject, evaluate};
use resnet_bk_tools::reference::Model;
use resnet_bk_tools::tokenizer::Tokenizer;

/// The types, by their names in GGUF files.
const TYPES: [(&str, GgmlDType); 4] = [
    ("Q4_0", GgmlDType::Q4_0),
    ("Q4_1", GgmlDType::Q4_1),
    ("Q5_0", GgmlDType::Q5_0),
    ("Q8_0", GgmlDType::Q8_0),
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Checkpoint (safetensors) with its tokenizer.json beside it.
    model: PathBuf,
    /// Directory with test.txt [default: text sampled from the FP32 model with a seed].
    #[arg(long, value_name = "DIR", env = "WIKITEXT2_DIR")]
    corpus: Option<PathBuf>,
    /// Score only N tokens, from the middle of the text [default: all; 16384 of sampled text].
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// Tokens per window.
    #[arg(long, default_value_t = 128, value_name = "N")]
    window: usize,
    /// Seed of sampled text.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Print the result as JSON on standard output.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let checkpoint = Checkpoint::read(&args.model)?;
    let fp32_bytes = std::fs::metadata(&args.model)?.len();
    let path = args.model.with_file_name("tokenizer.json");
    let tokenizer = Tokenizer::load(&path)?;
    let recorded = checkpoint.provenance.get(TOKENIZER_KEY).map(String::as_str);
    let (name, model) = (path.display().to_string(), args.model.display().to_string());
    tokenizer.belongs_to(&name, &model, checkpoint.config.vocab, recorded)?;
    let reference = Model::from_checkpoint(&checkpoint);
    let source = TextSource::find(None, args.corpus.as_deref(), None, Split::Test)?;
    let text = source.tokens(
        Some(&reference),
        Some(&tokenizer),
        args.tokens,
        args.window,
        args.seed,
        |_| {},
    )?;
    let mut quantized = Vec::new();
    for (name, block) in TYPES {
        let (checkpoint, bytes) = quantize(&checkpoint, block)?;
        quantized.push((name, bytes, checkpoint));
    }
    let subjects: Vec<_> =
        quantized.iter().map(|(.., c)| Subject::Weights(Model::from_checkpoint(c))).collect();
    let blocks = text.blocks(args.window);
    let qualities = evaluate(
        Some(&reference),
        &subjects,
        &text.tokens,
        &blocks,
        text.bytes.as_deref(),
        |_| {},
    )?;
    if args.json {
        let row = |((name, bytes, _), quality): (&(&str, usize, _), &Quality)| Scored {
            path: None,
            policy: None,
            name: Some((*name).to_owned()),
            blob_bytes: *bytes as u64,
            quality: quality.clone(),
        };
        let result = Evaluation {
            corpus: text.name,
            window: args.window,
            weights_only: true,
            fp32_bytes: Some(fp32_bytes),
            errors_by: blocks.describe(),
            blocks,
            fp32: qualities.first().cloned(),
            blobs: quantized.iter().zip(&qualities[1..]).map(row).collect(),
        };
        println!("{:#}", serde_json::to_value(result)?);
        return Ok(());
    }
    println!(
        "{:<6} {:>9} {:>6} {:>10} {:>16} {:>19}",
        "type", "bytes", "ratio", "ppl", "rise %", "KL"
    );
    for ((name, bytes, _), quality) in quantized.iter().zip(&qualities[1..]) {
        let Some(fidelity) = &quality.fidelity else { continue };
        let ratio = fp32_bytes as f64 / *bytes as f64;
        println!(
            "{name:<6} {bytes:>9} {ratio:>6.2} {:>10.3} {:>16} {:>19}",
            quality.perplexity,
            with_error(
                format!("{:+.2}", fidelity.ppl_rise_percent),
                fidelity.ppl_rise_percent_se,
                2
            ),
            with_error(format!("{:.5}", fidelity.kl), fidelity.kl_se, 5)
        );
    }
    println!(
        "{} predictions on {}, FP32 activations; ± are standard errors by {}",
        qualities[0].tokens,
        text.name,
        blocks.describe()
    );
    Ok(())
}

/// The checkpoint with quantized and dequantized matrices, and the bytes of all tensors.
fn quantize(
    checkpoint: &Checkpoint,
    block: GgmlDType,
) -> Result<(Checkpoint, usize), Box<dyn Error>> {
    let mut decoded = checkpoint.clone();
    let mut bytes = 0;
    for tensor in decoded.tensors.values_mut() {
        let whole = tensor.shape.last().is_some_and(|cols| cols % block.block_size() == 0);
        if tensor.shape.len() != 2 || !whole {
            bytes += 4 * tensor.data.len();
            continue;
        }
        let exact = Tensor::from_slice(&tensor.data, tensor.shape.as_slice(), &Device::Cpu)?;
        let stored = QTensor::quantize(&exact, block)?;
        bytes += stored.storage_size_in_bytes();
        tensor.data = stored.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1()?;
    }
    Ok((decoded, bytes))
}
