//! The blob that QEMU has put in memory.

use resnet_bk_core::blob::MAGIC;

use crate::machine;

/// Bytes of the blob, which begins at the agreed address or up to 15 bytes further; exits where
/// there is none.
pub fn bytes() -> &'static [u8] {
    /// What the machines have for it.
    const ROOM: u32 = 3 << 20;
    for offset in 0..16 {
        let start = (machine::BLOB + offset) as *const u8;
        // SAFETY: every machine has at least the room for a blob there, nothing of the program lies
        // in it, and nothing writes to it.
        let fixed = unsafe { core::slice::from_raw_parts(start, 32) };
        let len = u32::from_le_bytes([fixed[16], fixed[17], fixed[18], fixed[19]]);
        if fixed[..8] == MAGIC && len <= ROOM {
            // SAFETY: as above.
            return unsafe { core::slice::from_raw_parts(start, len as usize) };
        }
    }
    machine::exit(2)
}
