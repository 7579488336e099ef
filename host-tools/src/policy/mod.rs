//! Policies: which storage each matrix gets.

mod dynamic;
mod file;
mod published;

pub use file::PolicyFile;
pub use published::{PublishedEstimate, REFERENCE_SIZE, published_estimate};

use std::path::Path;

use resnet_bk_core::blob::{Dimensions, TensorId};
use resnet_bk_schema::{Ladder, Storage};

use crate::error::{Error, Result};
use crate::importance::Importance;
use crate::tensors::Assignment;

/// Fewest bits of a convolution's taps under a named policy. A row has four: scale and bias take as
/// many bytes as INT8 codes, and INT4 loses more than the bytes that it saves are worth elsewhere
/// (`docs/quantization.md`).
const TAP_BITS: u8 = 8;

/// A policy as named on the command line.
#[derive(Clone, Debug)]
pub enum Policy {
    /// By kind of layer: experts low, BK-core middle (and potentials INT8), output layers and
    /// embeddings high, the rest middle.
    Static(Ladder),
    /// By published importance: the top 20 % high, the next 40 % middle, the bottom 40 % low.
    Dynamic(Ladder),
    /// The same storage for everything, except that the convolutions of gated chains have no less
    /// than INT8.
    Uniform(Storage),
    /// A policy file.
    File(PolicyFile),
}

impl Policy {
    /// A named policy, otherwise the policy file at that path.
    pub fn parse(name: &str) -> Result<Self> {
        match Self::named(name) {
            Err(_) if Path::new(name).exists() || name.ends_with(".toml") => {
                Ok(Self::File(PolicyFile::read(Path::new(name))?))
            }
            named => named,
        }
    }

    /// A named policy.
    fn named(name: &str) -> Result<Self> {
        if let Some(storage) = name.strip_prefix("uniform-") {
            return Storage::parse_short(storage).map(Self::Uniform).ok_or_else(|| {
                Error::Policy(format!(
                    "`{name}` is not a uniform policy: use uniform-int8, uniform-fp16, or \
                     uniform-int2 to uniform-int6, with a group size other than 32 as in \
                     uniform-int4/16"
                ))
            });
        }
        if let Some((base, ladder)) = name.split_once(':') {
            let ladder = Ladder::parse(ladder);
            return match (base, ladder) {
                ("static", Some(ladder)) => Ok(Self::Static(ladder)),
                ("dynamic", Some(ladder)) => Ok(Self::Dynamic(ladder)),
                _ => Err(Error::Policy(format!(
                    "`{name}` is not a published policy with other precisions: list them from \
                     high to low, as in static:int8,int6,int4"
                ))),
            };
        }
        match name {
            "static" => Ok(Self::Static(Ladder::PUBLISHED)),
            "dynamic" => Ok(Self::Dynamic(Ladder::PUBLISHED)),
            other => Err(Error::Policy(format!(
                "`{other}` is neither a policy (static, dynamic, uniform-int8, uniform-int4, ...) nor a \
                 policy file"
            ))),
        }
    }

    /// Name for blobs and tables.
    pub fn name(&self) -> String {
        match self {
            Self::Static(ladder) => format!("static{ladder}"),
            Self::Dynamic(ladder) => format!("dynamic{ladder}"),
            Self::Uniform(storage) => format!("uniform-{}", storage.short_name()),
            Self::File(file) => file.name().into(),
        }
    }

    /// Whether [`Policy::assign`] needs importance.
    pub fn needs_importance(&self) -> bool {
        match self {
            Self::Dynamic(_) => true,
            Self::File(file) => file.base_needs_importance(),
            _ => false,
        }
    }

    /// The storage of every matrix of a model.
    pub fn assign(&self, dims: &Dimensions, importance: Option<&Importance>) -> Result<Assignment> {
        let mut assignment = self.choose(dims, importance)?;
        for (id, storage) in dims.tensors().zip(&mut assignment.storage) {
            *storage = storage.for_row(dims.shape(id).1 as usize);
        }
        Ok(assignment)
    }

    /// The storage of every matrix, before group sizes are limited to the row length.
    fn choose(&self, dims: &Dimensions, importance: Option<&Importance>) -> Result<Assignment> {
        let mut assignment = match self {
            Self::Static(ladder) => static_policy(self.name(), dims, *ladder),
            Self::Dynamic(ladder) => {
                let importance = importance.ok_or_else(|| {
                    Error::Policy("the dynamic policy needs an importance file".into())
                })?;
                dynamic::assign(self.name(), dims, importance, *ladder)?
            }
            Self::Uniform(storage) => Assignment::uniform(&self.name(), dims, *storage),
            Self::File(file) => return file.assign(dims, importance),
        };
        for (id, storage) in dims.tensors().zip(&mut assignment.storage) {
            if matches!(id, TensorId::Convolution(_)) && storage.precision.bits() < TAP_BITS {
                *storage = Storage::INT8;
            }
        }
        Ok(assignment)
    }
}

fn static_policy(name: String, dims: &Dimensions, ladder: Ladder) -> Assignment {
    let storage = |id| match id {
        TensorId::ExpertUp(..) | TensorId::ExpertDown(..) => ladder.low,
        TensorId::TokenEmbedding(_)
        | TensorId::PositionEmbedding
        | TensorId::OutputProj(_)
        | TensorId::LmHead(_) => ladder.high,
        TensorId::InProj(_) | TensorId::Convolution(_) | TensorId::VProj(_) | TensorId::Gate(_) => {
            ladder.middle
        }
    };
    Assignment { name, storage: dims.tensors().map(storage).collect(), potentials_int8: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::tests::random_gated;
    use crate::tensors::dimensions;

    #[test]
    fn taps_have_eight_bits_unless_a_file_says_otherwise() {
        let dims = dimensions(&random_gated(0, (24, 3, 2)).config);
        let of_taps = |policy: &Policy| {
            let assignment = policy.assign(&dims, None).unwrap();
            assignment.storage[dims.index(TensorId::Convolution(1))]
        };
        for (name, storage) in [
            ("uniform-int4", Storage::INT8),
            ("uniform-fp16", Storage::FP16),
            ("static", Storage::INT8),
            ("static:int6,int5,int3", Storage::INT8),
        ] {
            let policy = Policy::parse(name).unwrap();
            assert_eq!(of_taps(&policy), storage, "{name}");
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("taps.toml");
        let taps = "[[override]]\ntensors = \"*.conv.weight\"\nprecision = \"int4\"\n";
        std::fs::write(&file, format!("base = \"uniform-int4\"\n{taps}")).unwrap();
        assert_eq!(of_taps(&Policy::parse(file.to_str().unwrap()).unwrap()), Storage::INT4);
    }

    #[test]
    fn names_are_what_is_parsed() {
        for name in [
            "static",
            "dynamic",
            "static:int8,int6,int4",
            "dynamic:int6/16,int5,int3",
            "uniform-int8",
            "uniform-int4",
            "uniform-int4/16",
            "uniform-fp16",
        ] {
            assert_eq!(Policy::parse(name).unwrap().name(), name);
        }
        assert_eq!(Policy::parse("static:fp16,int8,int4").unwrap().name(), "static");
        for name in ["uniform-int7", "uniform-int8/32", "uniform-int4/1", "static:int8,int4", "x:y"]
        {
            assert!(Policy::parse(name).is_err(), "{name}");
        }
    }
}
