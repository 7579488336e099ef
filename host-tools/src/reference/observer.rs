//! Observes linear layers during a forward pass, for calibration and importance.

/// One linear layer's computation on a batch.
#[derive(Clone, Copy, Debug)]
pub struct LinearCall<'a> {
    /// The layer's name, its weight's name without `.weight`: `blocks.0.bk_layer.v_proj`,
    /// `blocks.0.bk_layer.moe_ffn.experts.1.0`, `lm_head` and so on.
    pub name: &'a str,
    /// Row-major `[rows, in]`.
    pub inputs: &'a [f32],
    /// Row-major `[rows, out]`, bias included, before any activation function.
    pub outputs: &'a [f32],
    /// Number of inputs per row.
    pub input_width: usize,
    /// Number of outputs per row.
    pub output_width: usize,
    /// For an expert, the positions routed to it and their gate probabilities; `None` for a layer
    /// that sees every position.
    pub routed: Option<Routed<'a>>,
}

/// The positions routed to an expert.
#[derive(Clone, Copy, Debug)]
pub struct Routed<'a> {
    /// Position in the batch of each row.
    pub positions: &'a [usize],
    /// Gate probability of each row.
    pub probabilities: &'a [f32],
}

/// The signals of one block's chain on a batch.
#[derive(Clone, Copy, Debug)]
pub struct ChainCall<'a> {
    /// Block index.
    pub block: usize,
    /// Clipped potentials v `[rows, K]`.
    pub potentials: &'a [f32],
    /// Resolvent elements `[rows, 2K]`: K real parts, then K imaginary parts; before clipping.
    pub resolvent: &'a [f32],
}

/// Receives every linear layer's inputs and outputs, in order of computation.
pub trait Observer {
    /// Called after each linear layer, except for experts without positions.
    fn linear(&mut self, call: LinearCall<'_>);

    /// Called after each block's chain.
    fn chain(&mut self, _call: ChainCall<'_>) {}
}

/// One layer's inputs and output gradients in a backward pass.
#[derive(Clone, Copy, Debug)]
pub struct LinearGradient<'a, T> {
    /// Layer name as in [`LinearCall`], or that of an embedding.
    pub name: &'a str,
    /// Number of positions.
    pub rows: usize,
    /// Row-major `[rows, in]`; empty for an embedding.
    pub inputs: &'a [T],
    /// Gradient of the loss with respect to the outputs, row-major `[rows, out]`.
    pub outputs: &'a [T],
}

/// One convolution's inputs and output gradients in a backward pass.
#[derive(Clone, Copy, Debug)]
pub struct ConvolutionGradient<'a, T> {
    /// Layer name: its weight's name without `.weight`.
    pub name: &'a str,
    /// Positions per window; before its first, inputs are zero.
    pub window: usize,
    /// Channels C.
    pub channels: usize,
    /// Row-major, and the length of a row, whose first C numbers are the inputs.
    pub inputs: (&'a [T], usize),
    /// Gradient of the loss with respect to the outputs, row-major `[rows, C]`.
    pub outputs: &'a [T],
}

/// A layer in a backward pass.
#[derive(Clone, Copy, Debug)]
pub enum LayerGradient<'a, T> {
    /// A linear layer or an embedding.
    Linear(LinearGradient<'a, T>),
    /// The convolution of a gated chain.
    Convolution(ConvolutionGradient<'a, T>),
}

/// Callback for every layer of a backward pass; says whether the gradients of the weights of a
/// linear layer or an embedding are wanted, too.
pub(crate) type Each<'a, T> = dyn FnMut(LayerGradient<'_, T>) -> bool + 'a;
