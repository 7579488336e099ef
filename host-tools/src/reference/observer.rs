//! Watching the linear layers during a forward pass, to calibrate and to measure importance.

/// One linear layer's work on a batch.
#[derive(Clone, Copy, Debug)]
pub struct LinearCall<'a> {
    /// The layer's name, that of its weight without `.weight`: `blocks.0.bk_layer.v_proj`,
    /// `blocks.0.bk_layer.moe_ffn.experts.1.0`, `lm_head` and so on.
    pub name: &'a str,
    /// Row-major `[rows, in]`.
    pub inputs: &'a [f32],
    /// Row-major `[rows, out]`, bias included, before any activation function.
    pub outputs: &'a [f32],
    /// In.
    pub input_width: usize,
    /// Out.
    pub output_width: usize,
    /// For an expert: which positions of the batch were routed to it, and the gate probability of
    /// each; `None` for a layer that sees every position.
    pub routed: Option<Routed<'a>>,
}

/// The positions that an expert works on.
#[derive(Clone, Copy, Debug)]
pub struct Routed<'a> {
    /// Index into the batch's positions, for each row of the call.
    pub positions: &'a [usize],
    /// Gate probability with which each row's result is used.
    pub probabilities: &'a [f32],
}

/// The signals of one block's chain on a batch.
#[derive(Clone, Copy, Debug)]
pub struct ChainCall<'a> {
    /// Block index.
    pub block: usize,
    /// Clamped potentials v `[rows, K]`.
    pub potentials: &'a [f32],
    /// Resolvent elements `[rows, 2K]`: K real parts, then K imaginary parts; before the clamp.
    pub resolvent: &'a [f32],
}

/// Sees every linear layer's inputs and outputs, in the order in which they are computed.
pub trait Observer {
    /// Called after each linear layer; an expert that no position was routed to is not reported.
    fn linear(&mut self, call: LinearCall<'_>);

    /// Called after each block's chain.
    fn chain(&mut self, _call: ChainCall<'_>) {}
}

/// One layer's part in a backward pass.
#[derive(Clone, Copy, Debug)]
pub struct LinearGradient<'a, T> {
    /// The layer's name, as in [`LinearCall`], or that of an embedding.
    pub name: &'a str,
    /// Positions that the layer worked on.
    pub rows: usize,
    /// Row-major `[rows, in]`; empty for an embedding.
    pub inputs: &'a [T],
    /// Gradient of the loss with respect to the outputs, row-major `[rows, out]`.
    pub outputs: &'a [T],
}

/// Sees every layer of a backward pass.
pub(crate) type Each<'a, T> = dyn FnMut(LinearGradient<'_, T>) + 'a;
