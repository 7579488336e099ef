//! Converts diagonals and ηs of every block to the core's fixed-point format.

use resnet_bk_core::blob::ChainFormat;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};

/// The chain section and its number format.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedChain {
    /// The format.
    pub format: ChainFormat,
    /// Per block and potential: diagonal, η, as little-endian `i32`.
    pub bytes: Vec<u8>,
}

/// Encodes the chains with as many fraction bits as the largest value allows.
pub fn encode(checkpoint: &Checkpoint, potentials_int8: bool) -> Result<EncodedChain> {
    let config = &checkpoint.config;
    // The conversion saturates: values beyond `u32` are also beyond the format.
    let off_diagonal = (f64::from(config.off_diagonal) * 65536.0).round() as u32;
    let values: Vec<(f64, f64)> = (0..config.layers)
        .flat_map(|l| {
            let get = |part: &str| &checkpoint.tensors[&format!("blocks.{l}.bk_layer.{part}")].data;
            let floor = f64::from(config.eta_floor);
            let eta = move |log: &f32| f64::from(*log).exp().max(floor);
            get("diagonal").iter().map(|&d| f64::from(d)).zip(get("log_eta").iter().map(eta))
        })
        .collect();
    for frac in ChainFormat::FRACTIONS.rev() {
        let format = ChainFormat { frac: u32::from(frac), off_diagonal, int8: potentials_int8 };
        format.validate().map_err(Error::Blob)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::tests::{random_checkpoint, random_checkpoint_of};

    /// β as stored in the blob, or the error.
    fn encoded(off_diagonal: f32) -> Result<u32> {
        let (mut config, log_eta) = (random_checkpoint(2, 1).config, 12.0);
        config.off_diagonal = off_diagonal;
        let mut checkpoint = random_checkpoint_of(config, 1);
        for (name, tensor) in &mut checkpoint.tensors {
            // η of 2^17: β/η of the largest β fits.
            if name.ends_with("log_eta") {
                tensor.data.fill(log_eta);
            }
        }
        encode(&checkpoint, false).map(|chain| chain.format.off_diagonal)
    }

    #[test]
    fn an_off_diagonal_beyond_the_format_is_refused_as_readers_refuse_it() {
        assert_eq!(encoded(1.0).unwrap(), 1 << 16);
        assert_eq!(encoded(32767.998).unwrap(), i32::MAX as u32 - 127);
        for (off_diagonal, found) in [(32768.0, 1 << 31), (65535.0, 65535 << 16), (1e30, u32::MAX)]
        {
            let refused = encoded(off_diagonal).unwrap_err();
            let limit = i32::MAX as u32;
            let expected = resnet_bk_core::Error::OffDiagonal { found, limit };
            assert!(matches!(refused, Error::Blob(e) if e == expected), "{refused}");
        }
    }
}
