//! Why a file has no tokens.

use std::path::Path;

/// A reason and a remedy.
pub(super) type Refusal = (String, String);

/// How to write such a file.
pub(super) fn rewrite(path: &Path) -> String {
    let stem = path.with_extension("npy");
    format!(
        "write one with `python -c \"import numpy as np; \
         np.save('{}', np.asarray(ids, np.uint32))\"`, ids being the list of token ids",
        stem.display()
    )
}
