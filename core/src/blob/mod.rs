//! The blob: a self-describing, checksummed file format, read in place.
//!
//! ```text
//! byte  0   magic "ResNetBK"
//!       8   format version      u32, little endian like every number here
//!      12   header length H     u32
//!      16   total length        u32
//!      20   CRC-32C             u32, over the whole blob with this field taken as zero
//!      24   zero                u64
//!      32   postcard header     H bytes: dimensions, chain, tensor records, provenance
//!           zero padding to a multiple of 16
//!   base    sections            weights, chain parameters, tokenizer, token classes; each at a
//!                               multiple of 16
//! ```
//!
//! Writer and reader share [`Header`]. Tensor records have a fixed size of sixteen bytes, so that
//! inference finds a tensor by index without decoding the header. `docs/format.md` is the
//! specification with byte tables.

mod chain;
mod classes;
mod dims;
mod header;
mod include;
mod matrices;
mod preamble;
mod precision;
mod prefix;
mod record;
mod tensor;

pub use chain::{ChainFormat, ChainParameters};
pub use classes::TokenClasses;
pub use dims::{Block, Chain, Dimensions, Limits, TAPS};
pub use header::{Header, Measured, Provenance, Section};
#[doc(hidden)]
pub use include::Aligned;
pub use matrices::TensorId;
pub use preamble::{ALIGN, FORMAT_VERSION, MAGIC, PREAMBLE_LEN, Preamble, checksum};
pub use precision::{INT8_OFFSETS, Plane, Precision};
pub use record::{RECORD_LEN, TensorRecord};
pub use tensor::{Tensor, TensorLayout};

pub(crate) use chain::{CODE_PER_POTENTIAL, FEATURE_LIMIT, POTENTIAL_LIMIT};
pub(crate) use preamble::{CRC, stored_checksum};
pub(crate) use tensor::{pair_i16, pair_u16};

/// Rounds `offset` up to the next multiple of [`ALIGN`].
pub const fn align_up(offset: usize) -> usize {
    offset.next_multiple_of(ALIGN)
}
