//! The memory that inference works in.

use resnet_bk_core::{Error, Model, Session, Window};

use crate::settings::{MEMORY_WORDS, WINDOW_TILE, WINDOW_TOKENS};

pub(crate) use memory::{session, window};

/// A static array, whose size is known from the blob when the firmware is built.
#[cfg(not(feature = "alloc"))]
mod memory {
    use super::*;
    use static_cell::ConstStaticCell;

    type Words = &'static mut [u32; MEMORY_WORDS];

    static WORDS: ConstStaticCell<[u32; MEMORY_WORDS]> = ConstStaticCell::new([0; MEMORY_WORDS]);

    /// A stream from its beginning. There is memory for one session or window.
    pub(crate) fn session<'a>(model: &'a Model<'a>) -> Result<Session<'a, Words>, Error> {
        Session::new(model, WORDS.take())
    }

    /// Room for windows. There is memory for one session or window.
    pub(crate) fn window<'a>(model: &'a Model<'a>) -> Result<Window<'a, Words>, Error> {
        Window::new(model, WORDS.take(), WINDOW_TOKENS, WINDOW_TILE)
    }
}

/// A heap, from which sessions and windows allocate what they need.
#[cfg(feature = "alloc")]
mod memory {
    extern crate alloc;

    use super::*;
    use alloc::vec::Vec;
    use embedded_alloc::LlffHeap;

    #[global_allocator]
    static HEAP: LlffHeap = LlffHeap::empty();

    /// Gives the heap its memory: what one session or window takes, and the allocator's own words.
    fn start_heap() {
        // SAFETY: the memory that the macro declares is the heap's alone, and nothing has been
        // allocated yet. A second call panics.
        unsafe {
            embedded_alloc::init!(HEAP, 4 * MEMORY_WORDS + 64);
        }
    }

    /// A stream from its beginning. There is a heap for one session or window.
    pub(crate) fn session<'a>(model: &'a Model<'a>) -> Result<Session<'a, Vec<u32>>, Error> {
        start_heap();
        Session::allocate(model)
    }

    /// Room for windows. There is a heap for one session or window.
    pub(crate) fn window<'a>(model: &'a Model<'a>) -> Result<Window<'a, Vec<u32>>, Error> {
        start_heap();
        Window::allocate(model, WINDOW_TOKENS, WINDOW_TILE)
    }
}
