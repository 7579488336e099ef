//! Build-time settings from `build.rs`, and constants derived from the blob's dimensions.

use resnet_bk_core::blob::{Chain, Dimensions};

include!(concat!(env!("OUT_DIR"), "/settings.rs"));

/// Dimensions of the blob.
pub const DIMS: Dimensions = match Dimensions::of_blob(BLOB) {
    Ok(dims) => dims,
    Err(_) => panic!("RESNET_BK_BLOB is not a blob of this version: quantize again"),
};

/// Whether the blob can only score whole windows.
pub const SCORES_WINDOWS: bool = matches!(DIMS.chain, Chain::Full);

/// Tokens of a window: 64, or the length of a shorter position table.
pub const WINDOW_TOKENS: usize = match DIMS.positions {
    1..64 => DIMS.positions as usize,
    _ => 64,
};

/// Tile of a window, in positions.
pub const WINDOW_TILE: usize = 4;

/// Distinct tokens that the repetition penalty remembers.
pub const RECENT: usize = 64;

/// Words of memory for the session, or for the windows.
pub const MEMORY_WORDS: usize = match DIMS.chain {
    Chain::Half => DIMS.session_words(),
    Chain::Full => DIMS.window_words(WINDOW_TOKENS, WINDOW_TILE),
};
