//! Diagonals and ηs of every block in the core's fixed-point format.

use resnet_bk_core::layers::bk::ChainFormat;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};

/// The chain section and its number format.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedChain {
    /// The format.
    pub format: ChainFormat,
    /// Per block and potential: diagonal, η.
    pub bytes: Vec<u8>,
}

/// Encodes the chains with as many fraction bits as the largest potential allows.
pub fn encode(checkpoint: &Checkpoint, potentials_int8: bool) -> Result<EncodedChain> {
    let config = &checkpoint.config;
    let off_diagonal = (f64::from(config.off_diagonal) * 65536.0).round();
    if off_diagonal > f64::from(u32::MAX) {
        return Err(Error::Quantize(format!(
            "the off-diagonal product {} is beyond 65535",
            config.off_diagonal
        )));
    }
    let values: Vec<(f64, f64)> = (0..config.layers)
        .flat_map(|l| {
            let get = |part: &str| &checkpoint.tensors[&format!("blocks.{l}.bk_layer.{part}")].data;
            let floor = f64::from(config.eta_floor);
            let eta = move |log: &f32| f64::from(*log).exp().max(floor);
            get("diagonal").iter().map(|&d| f64::from(d)).zip(get("log_eta").iter().map(eta))
        })
        .collect();
    for frac in ChainFormat::FRACTIONS.rev() {
        let format = ChainFormat {
            frac: u32::from(frac),
            off_diagonal: off_diagonal as u32,
            int8: potentials_int8,
        };
        let fixed = |value: f64| (value * f64::from(frac).exp2()).round() as i32;
        let numbers: Vec<(i32, i32)> =
            values.iter().map(|&(d, eta)| (fixed(d), fixed(eta))).collect();
        if numbers.iter().all(|&(d, eta)| format.admits(d, eta)) {
            let bytes = numbers.iter().flat_map(|(d, eta)| [d.to_le_bytes(), eta.to_le_bytes()]);
            return Ok(EncodedChain { format, bytes: bytes.flatten().collect() });
        }
    }
    let (smallest, largest) = values
        .iter()
        .fold((f64::INFINITY, 0.0), |(s, l): (f64, f64), v| (s.min(v.1), l.max(v.0.abs())));
    Err(Error::Quantize(format!(
        "no fixed-point format holds the chains: the smallest eta is {smallest:e}, the largest \
         diagonal {largest}"
    )))
}
