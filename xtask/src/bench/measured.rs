//! Everything that a run measures, as `--json` prints it.

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::machine::Machine;

/// Everything.
#[derive(Debug, Default, Serialize)]
pub(super) struct Measured {
    /// Complete matrix-vector products on emulated targets.
    pub(super) kernels: Vec<Kernel>,
    /// The same of the portable kernel, for matrices that no other takes.
    pub(super) portable: Vec<Kernel>,
    /// Whole tokens of the shipped model on emulated targets.
    pub(super) tokens: Vec<Token>,
    /// Throughput of this machine's kernels over others', measured in turns.
    pub(super) host: Vec<Ratio>,
    /// Code of inference by target.
    pub(super) code: Vec<Code>,
    /// Code of the core and its kernels in an inference alone on the Cortex-M4F.
    pub(super) code_bytes: Option<u64>,
    /// Memory of a session of the shipped model.
    pub(super) session_ram_bytes: Option<u64>,
}

/// Instructions of a complete product: scales, bias, rescaling and preparation of the vector
/// included.
#[derive(Debug, Serialize)]
pub(super) struct Kernel {
    pub(super) target: &'static str,
    pub(super) core: &'static str,
    pub(super) precision: String,
    pub(super) inputs: u64,
    pub(super) outputs: u64,
    pub(super) instructions: u64,
    /// Per multiply-accumulate.
    pub(super) per_mac: f64,
}

/// Instructions of a whole token, from its number to the next one's.
#[derive(Debug, Serialize)]
pub(super) struct Token {
    pub(super) target: &'static str,
    pub(super) core: &'static str,
    pub(super) policy: String,
    pub(super) instructions: u64,
    /// Where they go, in the order of a token.
    #[serde(serialize_with = "as_map")]
    pub(super) kinds: Vec<(String, u64)>,
    /// The longest piece of every kind.
    #[serde(serialize_with = "as_map")]
    pub(super) pieces: Vec<(String, u64)>,
    /// Of a prompt token, without logits.
    pub(super) fed_instructions: u64,
    /// Of every way to sample, beside a token.
    #[serde(serialize_with = "as_map")]
    pub(super) samplers: Vec<(String, u64)>,
    /// Of a whole token where the blob is not aligned, if that was measured.
    pub(super) off_alignment: Option<u64>,
    pub(super) session_ram_bytes: u64,
    pub(super) stack_bytes: u64,
}

/// A kernel of this machine and another library's, or a whole model and the FP32 reference, which
/// have no shape but the tokens of a window.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Ratio {
    pub(super) kernel: String,
    pub(super) inputs: u64,
    pub(super) outputs: u64,
    pub(super) against: String,
    /// Above one where ours is faster: the median of many turns.
    pub(super) ratio: f64,
    /// Between which half of the turns were.
    pub(super) quartiles: [f64; 2],
}

/// Code of inference, without logging or anything else that a firmware has beside it.
#[derive(Debug, Serialize)]
pub(super) struct Code {
    pub(super) target: &'static str,
    pub(super) core: &'static str,
    /// Of the core and its kernels.
    pub(super) own: u64,
    /// All of `.text`: what the core links, and the runtime.
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
    /// The longest piece.
    pub(super) fn longest_piece(&self) -> u64 {
        self.pieces.iter().map(|(_, instructions)| *instructions).max().unwrap_or(0)
    }
}

impl Measured {
    /// Fills in what follows from the rest.
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
