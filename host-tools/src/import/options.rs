//! Import options: what the file does not contain.

use crate::checkpoint::Chain;

/// Properties that a published checkpoint does not record.
#[derive(Clone, Debug)]
pub struct Options {
    /// Experts that each token is routed to; all of them means dense gating.
    pub top_k: usize,
    /// Chain kind; published models have the full chain.
    pub chain: Chain,
    /// Which model to import from a file that holds several: its dictionary keys and prefix, joined
    /// by dots.
    pub state: Option<String>,
}
