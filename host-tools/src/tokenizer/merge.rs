//! A merge of BPE.

/// Two neighbouring tokens and the token that they merge into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    /// First token.
    pub left: u32,
    /// Second token.
    pub right: u32,
    /// Result.
    pub result: u32,
}
