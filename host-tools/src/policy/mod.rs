//! Policies: which precision each matrix is stored in.

mod dynamic;
mod file;
mod published;

pub use file::PolicyFile;
pub use published::{PublishedEstimate, REFERENCE_SIZE, published_estimate};

use std::path::Path;

use resnet_bk_core::blob::{Dimensions, Precision, TensorId};

use crate::error::{Error, Result};
use crate::importance::Importance;
use crate::quantize::encode::Storage;

/// A storage precision for every matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// Name of the policy.
    pub name: String,
    /// Storage of each matrix in canonical order.
    pub storage: Vec<Storage>,
    /// Whether potentials are rounded to INT8.
    pub potentials_int8: bool,
}

impl Assignment {
    /// Every matrix alike; potentials keep their full precision.
    pub fn uniform(name: &str, dims: &Dimensions, storage: Storage) -> Self {
        let storage = vec![storage; dims.tensor_count()];
        Self { name: name.into(), storage, potentials_int8: false }
    }

    /// How many matrices have each precision that occurs, in ascending order of bits.
    pub fn counts(&self) -> Vec<(Precision, usize)> {
        Precision::ALL
            .into_iter()
            .map(|p| (p, self.storage.iter().filter(|s| s.precision == p).count()))
            .filter(|&(_, count)| count > 0)
            .collect()
    }
}

/// A policy as the command line names it.
#[derive(Clone, Debug)]
pub enum Policy {
    /// By kind of layer: experts INT4, BK-core INT8 (potentials too), output layers and embeddings
    /// FP16, the rest INT8.
    Static,
    /// By published importance: the top 20 % FP16, the next 40 % INT8, the bottom 40 % INT4.
    Dynamic,
    /// Everything INT8.
    UniformInt8,
    /// Everything INT4 in groups of 32.
    UniformInt4,
    /// A policy file.
    File(PolicyFile),
}

impl Policy {
    /// A named policy, or else the policy file of that path.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "static" => Ok(Self::Static),
            "dynamic" => Ok(Self::Dynamic),
            "uniform-int8" => Ok(Self::UniformInt8),
            "uniform-int4" => Ok(Self::UniformInt4),
            path if Path::new(path).exists() || path.ends_with(".toml") => {
                Ok(Self::File(PolicyFile::read(Path::new(path))?))
            }
            other => Err(Error::Policy(format!(
                "`{other}` is neither a policy (static, dynamic, uniform-int8, uniform-int4) nor a \
                 policy file"
            ))),
        }
    }

    /// Name that the blob and tables show.
    pub fn name(&self) -> &str {
        match self {
            Self::Static => "static",
            Self::Dynamic => "dynamic",
            Self::UniformInt8 => "uniform-int8",
            Self::UniformInt4 => "uniform-int4",
            Self::File(file) => file.name(),
        }
    }

    /// Whether [`Policy::assign`] needs importance.
    pub fn needs_importance(&self) -> bool {
        match self {
            Self::Dynamic => true,
            Self::File(file) => file.base_needs_importance(),
            _ => false,
        }
    }

    /// The precision of every matrix of a model.
    pub fn assign(&self, dims: &Dimensions, importance: Option<&Importance>) -> Result<Assignment> {
        match self {
            Self::Static => Ok(static_policy(dims)),
            Self::Dynamic => {
                let importance = importance.ok_or_else(|| {
                    Error::Policy("the dynamic policy needs an importance file".into())
                })?;
                dynamic::assign(dims, importance)
            }
            Self::UniformInt8 => Ok(Assignment::uniform(self.name(), dims, Storage::INT8)),
            Self::UniformInt4 => Ok(Assignment::uniform(self.name(), dims, Storage::INT4)),
            Self::File(file) => file.assign(dims, importance),
        }
    }
}

fn static_policy(dims: &Dimensions) -> Assignment {
    let storage = |id| match id {
        TensorId::ExpertUp(..) | TensorId::ExpertDown(..) => Storage::INT4,
        TensorId::TokenEmbedding
        | TensorId::PositionEmbedding
        | TensorId::OutputProj(_)
        | TensorId::LmHead => Storage::FP16,
        TensorId::VProj(_) | TensorId::Gate(_) => Storage::INT8,
    };
    Assignment {
        name: "static".into(),
        storage: dims.tensors().map(storage).collect(),
        potentials_int8: true,
    }
}
