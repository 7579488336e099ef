//! Reasons for refusing a checkpoint, and what helps.

use crate::error::Error;
use std::path::Path;

/// Stands for the path of the file in remedies.
const FILE: &str = "{file}";

/// Maximum number of problems that are named.
const MOST_PROBLEMS: usize = 40;

/// Loads whatever `torch.save` wrote, in any format, and saves the weights as they are read here.
/// Loading runs code from the file.
pub(super) const SAVE_AGAIN: &str = "if you trust the file, convert it: `python -c 'import torch; \
     m = torch.load(\"{file}\", map_location=\"cpu\", weights_only=False); \
     torch.save(m.state_dict() if hasattr(m, \"state_dict\") else m, \"weights.pt\")'`";

/// Turns tensors of any kind and type into plain ones.
pub(super) const MAKE_PLAIN: &str = "make plain FP32 tensors of them: `python -c 'import torch; \
     s = torch.load(\"{file}\", map_location=\"cpu\"); torch.save({k: \
     (t.dequantize() if t.is_quantized else t.to_dense() if t.is_sparse else t).float() for k, t \
     in s.items()}, \"weights.pt\")'`, where the state_dict is `s`, or an item of it";

/// Turns a dictionary of arrays of another library, or of parameters that are made in another way,
/// into tensors.
pub(super) const MAKE_TENSORS: &str = "if you trust the file, make tensors of what it holds: \
     `python -c 'import torch; m = torch.load(\"{file}\", map_location=\"cpu\", \
     weights_only=False); torch.save({k: torch.as_tensor(v) for k, v in m.items()}, \
     \"weights.pt\")'`, where the weights are in `m`, or in an item of it";

/// Gives each tensor a storage of its own.
pub(super) const MAKE_CONTIGUOUS: &str = "give each tensor a storage of its own: `python -c \
     'import torch; s = torch.load(\"{file}\", map_location=\"cpu\"); \
     torch.save({k: t.contiguous().clone() for k, t in s.items()}, \"weights.pt\")'`";

/// The same for safetensors.
pub(super) const MAKE_REAL: &str = "convert its tensors: `python -c 'from safetensors.torch import \
     load_file, save_file; save_file({k: t.float() for k, t in load_file(\"{file}\").items()}, \
     \"weights.safetensors\")'`";

pub(super) const COPY_AGAIN: &str = "the file is damaged or incomplete; copy or download it again, \
     and compare with the original: `sha256sum {file}`";

pub(super) const PASS_A_MODEL: &str = "pass the state_dict of a ResNet-BK model, as \
     `torch.save(model.state_dict(), \"weights.pt\")` writes it";

/// Why a checkpoint is rejected, and the remedy.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) problems: Vec<String>,
    /// `{file}` stands for the path of the file.
    pub(super) remedy: String,
}

impl Refusal {
    pub(super) fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problems: vec![problem.into()], remedy: remedy.into() }
    }

    /// The error that names the file.
    pub(super) fn of_file(self, path: &Path) -> Error {
        let remedy = self.remedy.replace(FILE, &path.display().to_string());
        let mut problems = self.problems;
        if problems.len() > MOST_PROBLEMS {
            let more = problems.len() - MOST_PROBLEMS;
            problems.truncate(MOST_PROBLEMS);
            problems.push(format!("and {more} more"));
        }
        Error::Import { path: path.to_path_buf(), problems, remedy }
    }
}
