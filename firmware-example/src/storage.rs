//! Memory of sessions and windows.

use resnet_bk_core::{Error, Model, Session, Window};

use crate::settings::{MEMORY_WORDS, WINDOW_TILE, WINDOW_TOKENS};

pub use memory::{Words, session, window};

/// A static array, sized at compile time from the blob.
#[cfg(not(feature = "alloc"))]
mod memory {
    use super::*;
    use static_cell::ConstStaticCell;

    /// The memory of a session or window.
    pub type Words = &'static mut [u32; MEMORY_WORDS];

    static WORDS: ConstStaticCell<[u32; MEMORY_WORDS]> = ConstStaticCell::new([0; MEMORY_WORDS]);

    /// A stream from its beginning. There is memory for one session or window.
    pub fn session(model: Model<'static>) -> Result<Session<'static, Words>, Error> {
        Session::new(model, WORDS.take())
    }

    /// Room for windows. There is memory for one session or window.
    pub fn window(model: Model<'static>) -> Result<Window<'static, Words>, Error> {
        Window::new(model, WORDS.take(), WINDOW_TOKENS, WINDOW_TILE)
    }
}

/// A heap, from which sessions and windows allocate.
#[cfg(feature = "alloc")]
mod memory {
    extern crate alloc;

    use super::*;
    use embedded_alloc::LlffHeap;

    /// The memory of a session or window.
    pub type Words = alloc::vec::Vec<u32>;

    #[global_allocator]
    static HEAP: LlffHeap = LlffHeap::empty();

    /// Initializes the heap with room for one session or window and the allocator's overhead.
    fn start_heap() {
        // SAFETY: only the heap uses the memory that the macro declares, and nothing has been
        // allocated yet. A second call panics.
        unsafe {
            embedded_alloc::init!(HEAP, 4 * MEMORY_WORDS + 64);
        }
    }

    /// A stream from its beginning. There is a heap for one session or window.
    pub fn session(model: Model<'static>) -> Result<Session<'static, Words>, Error> {
        start_heap();
        Session::allocate(model)
    }

    /// Room for windows. There is a heap for one session or window.
    pub fn window(model: Model<'static>) -> Result<Window<'static, Words>, Error> {
        start_heap();
        Window::allocate(model, WINDOW_TOKENS, WINDOW_TILE)
    }
}
