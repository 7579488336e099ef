//! The blob that QEMU loads into memory.

use resnet_bk_core::blob::MAGIC;

use crate::machine;

/// The blob, which begins at [`machine::BLOB`] or up to 15 bytes after it; exits if there is none.
pub fn bytes() -> &'static [u8] {
    /// Memory of the machines for the blob.
    const ROOM: u32 = 3 << 20;
    for offset in 0..16 {
        let start = (machine::BLOB + offset) as *const u8;
        // SAFETY: every machine has that much memory there; the program is not in it, and nothing
        // writes to it.
        let fixed = unsafe { core::slice::from_raw_parts(start, 32) };
        let len = u32::from_le_bytes([fixed[16], fixed[17], fixed[18], fixed[19]]);
        if fixed[..8] == MAGIC && len <= ROOM {
            // SAFETY: as above.
            return unsafe { core::slice::from_raw_parts(start, len as usize) };
        }
    }
    machine::exit(2)
}
