//! The storage of every matrix of a model.

use resnet_bk_core::blob::{Dimensions, Precision};
use resnet_bk_schema::Storage;

/// A storage for every matrix, as decided by a policy or a budget.
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
    /// The same storage for every matrix; potentials keep their full precision.
    pub fn uniform(name: &str, dims: &Dimensions, storage: Storage) -> Self {
        let storage = vec![storage; dims.tensor_count()];
        Self { name: name.into(), storage, potentials_int8: false }
    }

    /// Number of matrices of each precision in use, ascending in bits.
    pub fn counts(&self) -> Vec<(Precision, usize)> {
        Precision::ALL
            .into_iter()
            .map(|p| (p, self.storage.iter().filter(|s| s.precision == p).count()))
            .filter(|&(_, count)| count > 0)
            .collect()
    }
}
