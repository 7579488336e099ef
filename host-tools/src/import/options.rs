//! What the file does not say.

use crate::checkpoint::Chain;

/// What a published checkpoint does not say about itself.
#[derive(Clone, Debug)]
pub struct Options {
    /// Experts that each token is routed to; as many as there are means dense gating.
    pub top_k: usize,
    /// Chain kind; published models have the full chain.
    pub chain: Chain,
    /// Which model, in a file that holds several: the keys and the prefix that lead to it, joined
    /// by dots.
    pub state: Option<String>,
}
