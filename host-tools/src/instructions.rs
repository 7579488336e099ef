//! Instructions of matrix-vector products on microcontrollers, as counted by `cargo xtask bench`.

use std::collections::BTreeMap;

use resnet_bk_core::blob::Precision;
use resnet_bk_core::kernels::Core;
use resnet_bk_schema::Storage;

use crate::error::{Error, Result};

/// The committed counts, by name.
const BASELINE: &str = include_str!("../../bench-firmware/baseline.json");

/// A product: its storage, and what was counted.
#[derive(Clone, Debug)]
struct Count {
    /// As in the baseline: `int4`, `int4/16`, `int4-portable`.
    storage: String,
    inputs: u64,
    outputs: u64,
    instructions: u64,
}

impl Count {
    fn per_mac(&self) -> f64 {
        self.instructions as f64 / (self.inputs * self.outputs) as f64
    }
}

/// The counted products of a core.
#[derive(Clone, Debug)]
pub struct Counts(Vec<Count>);

impl Counts {
    /// The counts of a core; a Cortex-M4 has those of a Cortex-M4F but the FPU's.
    pub fn of(core: Core) -> Result<Self> {
        let unreadable = |e: serde_json::Error| {
            Error::Usage(format!("the instruction counts in this program cannot be read: {e}"))
        };
        let counts: BTreeMap<String, u64> = serde_json::from_str(BASELINE).map_err(unreadable)?;
        let name = match core {
            Core::CortexM4 => Core::CortexM4F.name(),
            Core::Riscv32Im => "rv32imc",
            core => core.name(),
        };
        let without_fpu = core == Core::CortexM4;
        let counted = counts.iter().filter_map(|(key, &instructions)| {
            let mut words = key.split(' ');
            let (of, storage, shape) = (words.next()?, words.next()?, words.next()?);
            let (inputs, outputs) = shape.split_once("->")?;
            let counted = of.eq_ignore_ascii_case(name)
                && !(without_fpu && storage == Precision::Fp16.name());
            counted.then_some(Count {
                storage: storage.to_owned(),
                inputs: inputs.parse().ok()?,
                outputs: outputs.parse().ok()?,
                instructions,
            })
        });
        Ok(Self(counted.collect()))
    }

    /// The highest counted instructions per multiply-accumulate of a storage, over all shapes.
    pub(crate) fn most_per_mac(&self, storage: Storage, fast: bool) -> f64 {
        self.counted(storage, fast).map(Count::per_mac).fold(0.0, f64::max)
    }

    /// Instructions of the product of a matrix `[rows, cols]` with a vector: those per
    /// multiply-accumulate of the counted shape that is nearest.
    pub fn product(&self, storage: Storage, fast: bool, [rows, cols]: [usize; 2]) -> f64 {
        let distance = |count: &&Count| {
            let ratio = |a: u64, b: usize| (a as f64 / b.max(1) as f64).ln().abs();
            ratio(count.inputs, cols) + ratio(count.outputs, rows)
        };
        let all = self.counted(storage, fast);
        let nearest = all.min_by(|a, b| distance(a).total_cmp(&distance(b)));
        nearest.map_or(0.0, Count::per_mac) * (rows * cols) as f64
    }

    /// The counts of a storage; if it was not counted or has no fast kernel, those of the portable
    /// kernel with the next smaller group.
    fn counted(&self, storage: Storage, fast: bool) -> impl Iterator<Item = &Count> {
        let Storage { precision, group } = storage;
        let name = precision.name();
        let own = if matches!(group, 0 | 32) { name.to_owned() } else { format!("{name}/{group}") };
        let group = [32, 8].into_iter().find(|&counted| counted <= group).unwrap_or(1);
        let portable = match (precision, group) {
            (Precision::Fp16 | Precision::Int8, _) | (_, 32) => format!("{name}-portable"),
            _ => format!("{name}/{group}-portable"),
        };
        let has = |wanted: &String| self.0.iter().any(|count| count.storage == *wanted);
        let storage = if fast && has(&own) { own } else { portable };
        self.0.iter().filter(move |count| count.storage == storage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_storage_has_counts_on_every_core() {
        for core in Core::ALL {
            let counts = Counts::of(core).unwrap();
            for precision in Precision::ALL {
                let groups: &[usize] =
                    if precision.is_grouped() { &[1, 7, 8, 16, 31, 32, 64] } else { &[0] };
                for &group in groups {
                    let of = |fast| counts.most_per_mac(Storage { precision, group }, fast);
                    let (fast, portable) = (of(true), of(false));
                    let storage = format!("{} {precision:?}/{group}", core.name());
                    assert!(portable > 1.0, "{storage}: {portable}");
                    assert!(fast > 1.0 && fast <= 1.1 * portable, "{storage}: {fast}, {portable}");
                }
            }
        }
    }

    #[test]
    fn smaller_groups_are_charged_no_less() {
        for core in Core::ALL {
            let counts = Counts::of(core).unwrap();
            let of = |group| counts.most_per_mac(Storage::grouped(Precision::Int4, group), false);
            assert!(of(1) > of(8) && of(8) > of(32) && of(32) == of(64));
            assert_eq!((of(7), of(31)), (of(1), of(8)));
        }
    }

    #[test]
    fn a_product_costs_as_the_nearest_counted_shape() {
        let counts = Counts::of(Core::CortexM4F).unwrap();
        let near = |shape| counts.product(Storage::INT4, true, shape);
        let counted = |shape: &str| {
            let baseline: BTreeMap<String, u64> = serde_json::from_str(BASELINE).unwrap();
            baseline[&format!("Cortex-M4F int4 {shape}")] as f64
        };
        for (shape, of) in [([256, 128], "128->256"), ([128, 256], "256->128")] {
            assert!((near(shape) - counted(of)).abs() < 1e-6, "{shape:?}");
        }
        assert!((near([384, 128]) / 1.5 - counted("128->256")).abs() < 1e-6);
    }
}
