//! A model's tensors by name.

use std::collections::BTreeMap;
use std::error::Error;

use resnet_bk_tools::checkpoint::Tensor;

/// An error of any kind that can cross threads.
pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// Weights by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Tensors(pub(super) BTreeMap<String, Tensor>);

impl Tensors {
    /// A tensor, if it exists.
    pub(super) fn find(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// A tensor that must exist.
    pub(super) fn get(&self, name: &str) -> Result<&Tensor, Failure> {
        self.find(name).ok_or_else(|| format!("there is no tensor {name}").into())
    }

    /// The values of a tensor that must have so many.
    pub(super) fn vector(&self, name: &str, count: usize) -> Result<Vec<f32>, Failure> {
        let data = &self.get(name)?.data;
        match data.len() == count {
            true => Ok(data.clone()),
            false => Err(format!("{name} has {} values, not {count}", data.len()).into()),
        }
    }
}
