//! A merge of BPE.

/// Two neighbouring tokens and the token that they merge into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Merge {
    /// First token.
    pub(super) left: u32,
    /// Second token.
    pub(super) right: u32,
    /// Result.
    pub(super) result: u32,
}
