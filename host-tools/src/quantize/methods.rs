//! The steps of post-training quantization, each of which can be left out to see what it gives.

use serde::{Deserialize, Serialize};

/// Which steps are taken. All of them, by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Methods {
    /// Put the hidden units of experts in other units (see [`super::symmetry`]).
    pub equalize: bool,
    /// Put the hidden units of experts in another order.
    pub permute: bool,
    /// Search for the scales that lose least; otherwise they just reach the largest weights.
    pub scale_search: bool,
    /// Fit scales to codes and codes to scales in turn, with correlated inputs in view.
    pub refit: bool,
    /// Store classes of tokens apart, in budgets.
    pub classes: bool,
    /// Give up hidden units that add nothing, in budgets.
    pub prune: bool,
    /// Let later columns make up for the errors of earlier ones (GPTQ).
    pub gptq: bool,
    /// Revisit every code until none can be improved on its own.
    pub descent: bool,
    /// Let rows make up for each other's errors, as the model's predictions feel them.
    pub outputs: bool,
    /// Quantize again for the inputs that the quantized layers before give.
    pub prefix: bool,
    /// Correct biases by the mean error.
    pub bias_correction: bool,
}

impl Methods {
    /// Nothing but rounding to nearest.
    pub const NONE: Self = Self {
        equalize: false,
        permute: false,
        scale_search: false,
        refit: false,
        classes: false,
        prune: false,
        gptq: false,
        descent: false,
        outputs: false,
        prefix: false,
        bias_correction: false,
    };
}

impl Default for Methods {
    fn default() -> Self {
        Self {
            equalize: true,
            permute: true,
            scale_search: true,
            refit: true,
            classes: true,
            prune: true,
            gptq: true,
            descent: true,
            outputs: true,
            prefix: true,
            bias_correction: true,
        }
    }
}
