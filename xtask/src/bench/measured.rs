//! All measurements of a run, as `--json` prints them.

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::machine::Machine;

/// All measurements.
#[derive(Debug, Default, Serialize)]
pub(super) struct Measured {
    /// Complete matrix-vector products on emulated targets.
    pub(super) kernels: Vec<Kernel>,
    /// The same with the portable kernel, for matrices without a fast kernel.
    pub(super) portable: Vec<Kernel>,
    /// Whole tokens on emulated targets.
    pub(super) tokens: Vec<Token>,
    /// Messages through the shipped blob on emulated targets.
    pub(super) messages: Vec<Exchange>,
    /// Throughput of this machine's kernels relative to others, timed in alternation.
    pub(super) host: Vec<Ratio>,
    /// Code size of inference by target.
    pub(super) code: Vec<Code>,
    /// Code size of `core`, kernels included, in a bare inference program on the Cortex-M4F.
    pub(super) code_bytes: Option<u64>,
    /// Session memory of the shipped model.
    pub(super) session_ram_bytes: Option<u64>,
}

/// Instructions of a complete product, including scales, bias, requantization and preparation of
/// the vector.
#[derive(Debug, Serialize)]
pub(super) struct Kernel {
    pub(super) target: &'static str,
    pub(super) core: &'static str,
    pub(super) precision: String,
    pub(super) inputs: u64,
    pub(super) outputs: u64,
    pub(super) instructions: u64,
    /// Instructions per multiply-accumulate.
    pub(super) per_mac: f64,
}

/// Instructions of a whole token, from one token number to the next.
#[derive(Debug, Serialize)]
pub(super) struct Token {
    pub(super) target: &'static str,
    pub(super) core: &'static str,
    /// Name of the blob.
    pub(super) blob: String,
    pub(super) instructions: u64,
    /// Instructions by kind of piece, in execution order.
    #[serde(serialize_with = "as_map")]
    pub(super) kinds: Vec<(String, u64)>,
    /// The longest piece of every kind.
    #[serde(serialize_with = "as_map")]
    pub(super) pieces: Vec<(String, u64)>,
    /// Instructions of a prompt token, without logits.
    pub(super) fed_instructions: u64,
    /// Instructions of each sampling method, not counted in a token.
    #[serde(serialize_with = "as_map")]
    pub(super) samplers: Vec<(String, u64)>,
    /// Instructions of encoding and decoding a token, not counted in it.
    #[serde(serialize_with = "as_map")]
    pub(super) coder: Vec<(String, u64)>,
    /// Instructions of a whole token with an unaligned blob, if measured.
    pub(super) off_alignment: Option<u64>,
    pub(super) session_ram_bytes: u64,
    pub(super) stack_bytes: u64,
}

/// Messages of `firmware-example`, compressed and decompressed.
#[derive(Debug, Serialize)]
pub(super) struct Exchange {
    pub(super) target: &'static str,
    pub(super) core: &'static str,
    /// Instructions per byte of text.
    pub(super) compress_per_byte: u64,
    /// Instructions per byte of text.
    pub(super) decompress_per_byte: u64,
    pub(super) stack_bytes: u64,
    /// Session, tokens of the longest message and stack, buffers of both forms among it.
    pub(super) ram_bytes: u64,
    /// Flash beside the blob: code and constants of the whole program.
    pub(super) code_bytes: u64,
}

/// A kernel of this machine against another library's, or a whole model against the FP32 reference
/// (whose inputs are the tokens of a window and whose outputs are the vocabulary).
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Ratio {
    pub(super) kernel: String,
    pub(super) inputs: u64,
    pub(super) outputs: u64,
    pub(super) against: String,
    /// Median over rounds; above 1 if ours is faster.
    pub(super) ratio: f64,
    /// First and third quartile over rounds.
    pub(super) quartiles: [f64; 2],
}

/// Code size of inference, without logging or other parts of a firmware.
#[derive(Debug, Serialize)]
pub(super) struct Code {
    pub(super) target: &'static str,
    pub(super) core: &'static str,
    /// Bytes of `core`, kernels included.
    pub(super) own: u64,
    /// Bytes of `.text`: `core`, what it links, and the runtime.
    pub(super) text: u64,
    pub(super) rodata: u64,
    /// Functions of [`resnet_bk_core::kernels`], largest first.
    #[serde(serialize_with = "as_map")]
    pub(super) kernels: Vec<(String, u64)>,
}

impl Kernel {
    pub(super) fn new(
        machine: &Machine,
        precision: &str,
        inputs: u64,
        outputs: u64,
        instructions: u64,
    ) -> Self {
        let per_mac = instructions as f64 / (inputs * outputs) as f64;
        Self {
            target: machine.target,
            core: machine.core,
            precision: precision.to_owned(),
            inputs,
            outputs,
            instructions,
            per_mac: (per_mac * 1e4).round() / 1e4,
        }
    }
}

impl Token {
    /// Instructions of the longest piece.
    pub(super) fn longest_piece(&self) -> u64 {
        self.pieces.iter().map(|(_, instructions)| *instructions).max().unwrap_or(0)
    }
}

impl Measured {
    /// Fills in derived fields.
    pub(super) fn conclude(&mut self) {
        self.code_bytes = self.code.first().map(|code| code.own);
        self.session_ram_bytes = self.tokens.first().map(|token| token.session_ram_bytes);
    }
}

fn as_map<S: Serializer>(pairs: &[(String, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (name, number) in pairs {
        map.serialize_entry(name, number)?;
    }
    map.end()
}
