//! Text to token ids and back.
//!
//! A tokenizer is stored as a Hugging Face `tokenizer.json`, and trained and run by their library,
//! which reads those of many programs. What is trained here is byte-level BPE, whose rules are
//! chosen so that a microcontroller can follow them on bytes:
//!
//! 1. *Pieces.* White space is the four bytes space, `\t`, `\n`, `\r`; everything else,
//!    including all of non-ASCII, is not. A piece begins at the start of the text and before byte i
//!    if
//!    - byte i is a space and byte i + 1 exists and is not white space (a single space belongs to
//!      the word that it precedes), or
//!    - byte i is white space and byte i − 1 is not (white space after a word), or
//!    - byte i is not white space and byte i − 1 is white space, but not a space (a word at the
//!      start of a line).
//!
//!    So `"of  the\nend"` has the pieces `of`, one space, ` the`, `\n`, `end`.
//! 2. *Merges.* A piece starts as one token per byte. As long as any two neighbours can merge, the
//!    pair with the lowest merge rank merges, the leftmost first. Pieces are independent.
//!
//! The first 256 tokens are the 256 bytes; every other token is made by one merge, in order of
//! rank. So every text can be encoded, there are no special tokens, and a blob can hold any
//! such tokenizer without loss. Of others it holds what [`Tokenizer::section`] says.
//!
//! ```text
//! tokenizer.json ─ file ─▶ by these rules ─┐
//!       └──────── foreign ▶ any other ─────┴▶ Tokenizer ─▶ Encoded
//!                                               └ Stored ─▶ section of a blob
//!                                     (byte_level: GPT-2's rules; table: bytes of tokens)
//! ```

mod any;
mod byte_level;
mod encoded;
mod file;
mod foreign;
mod library;
mod merge;
mod pieces;
mod stored;
mod table;
#[cfg(test)]
mod tests;
mod train;
mod vocabulary;

pub use any::Tokenizer;
pub use encoded::Encoded;
