//! The blob that QEMU has put in memory.

use resnet_bk_core::blob::MAGIC;

use crate::machine;

/// Bytes of the blob; exits where there is none.
pub fn bytes() -> &'static [u8] {
    /// What the machines have for it.
    const ROOM: u32 = 3 << 20;
    let start = machine::BLOB as *const u8;
    // SAFETY: every machine has at least the room for a blob there, nothing of the program lies in it, and
    // nothing writes to it.
    let fixed = unsafe { core::slice::from_raw_parts(start, 32) };
    let len = u32::from_le_bytes([fixed[16], fixed[17], fixed[18], fixed[19]]);
    if fixed[..8] != MAGIC || len > ROOM {
        machine::exit(2);
    }
    // SAFETY: as above.
    unsafe { core::slice::from_raw_parts(start, len as usize) }
}
