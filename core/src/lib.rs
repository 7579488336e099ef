//! Inference for quantized ResNet-BK language models: `no_std`, no allocation, the same bits on
//! every machine.
//!
//! The crate reads a blob where it lies (flash, a file, a slice) and runs it. From the outside in:
//!
//! 1. [`blob`]: the file. Preamble, postcard header, aligned weight sections, all validated once by
//!    [`Model::from_bytes`]; afterwards inference cannot reach outside of them.
//! 2. [`Session`]: one token in, the next one's logits out if wanted, O(1) state, in memory that
//!    the caller lends; in bounded pieces ([`Session::advance`]) for watchdogs and executors, and
//!    with a state that survives a loss of power ([`Session::snapshot`]). [`Window`]: whole windows
//!    at once, the only way to run a full-chain model.
//! 3. `layers`: activation quantization fused with layer normalization, the fixed-point BK-core,
//!    gating, experts.
//! 4. [`kernels`]: matrix-vector products with INT2 to INT6, INT8 and FP16 weights. The portable
//!    kernel is the specification; faster ones must return the same bits. [`Model::kernels`]
//!    reports which one multiplies each matrix, and the reason where it is the portable one.
//! 5. [`numeric`]: rounding, saturation, block scales, the reciprocal.
//! 6. [`sampler`], [`tokenizer`] and [`Generator`]: from logits to text; [`Scorer`]: how unlikely a
//!    text is.
//!
//! ```text
//!  bytes ──Model::from_bytes──▶ Model ──▶ Session::step(token) ──▶ logits ──▶ Sampler ──▶ token
//!                                 └─────▶ Window::score(tokens) ─▶ logits of every position
//! ```
//!
//! What every operation rounds to is the number contract, `docs/numerics.md`.
//!
//! # Example
//!
//! Memory is sized at compile time by the blob's first bytes; with a heap, by
//! `Session::allocate`.
//!
//! ```
//! use resnet_bk_core::blob::Dimensions;
//! use resnet_bk_core::{Error, Model, Sampler, Session, include_blob};
//!
//! static BLOB: &[u8] = include_blob!("../tests/golden/v2/half-int4.rbk");
//! const DIMS: Dimensions = match Dimensions::of_blob(BLOB) {
//!     Ok(dims) => dims,
//!     Err(_) => panic!("not a blob of this version"),
//! };
//!
//! fn generate(prompt: &[u32], memory: &mut [u32; DIMS.session_words()]) -> Result<u32, Error> {
//!     let mut session = Session::new(Model::from_bytes(BLOB)?, memory)?;
//!     let mut sampler = Sampler::builder().temperature(0.8).top_k(40).top_p(0.95).build()?;
//!     let (&last, first) = prompt.split_last().expect("a prompt has a token");
//!     for &token in first {
//!         session.feed(token)?; // no logits, which nobody would read
//!     }
//!     let mut token = last;
//!     for _ in 0..100 {
//!         token = sampler.sample(session.step(token)?);
//!     }
//!     Ok(token)
//! }
//!
//! // On a device the array is a static, lent once: `&'static mut`.
//! let token = generate(&[3, 1, 4], &mut [0; DIMS.session_words()])?;
//! assert!(token < DIMS.vocab);
//! # Ok::<(), Error>(())
//! ```
//!
//! # Features
//!
//! None changes a result. `defmt` derives `defmt::Format` for errors and dimensions; `alloc` adds
//! sessions and windows that own their memory; `std` lets the kernels ask the processor what it
//! can do.
//!
//! Cargo gives a crate one set of features in a build, the union of what all its packages ask for.
//! Where firmware and a host tool that asks for `std` are in one workspace, build them one after
//! the other, or `std` is asked for on the device, too, where it does not compile:
//!
//! ```text
//! cargo build -p firmware --target thumbv7em-none-eabihf
//! cargo build -p tool
//! ```

#![no_std]
#![deny(unsafe_code)]

#[cfg(all(feature = "std", target_os = "none"))]
compile_error!(
    "the feature `std` of resnet-bk-core is enabled for a target without an operating system, most \
     likely by a host tool in the same cargo command: build the two apart, `cargo build -p \
     FIRMWARE --target TARGET`, then `cargo build -p TOOL`"
);

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

#[forbid(unsafe_code)]
pub mod blob;
#[forbid(unsafe_code)]
mod block;
#[forbid(unsafe_code)]
mod digest;
#[forbid(unsafe_code)]
mod error;
#[forbid(unsafe_code)]
mod generate;
pub mod kernels;
#[forbid(unsafe_code)]
mod layers;
#[forbid(unsafe_code)]
mod memory;
#[forbid(unsafe_code)]
mod model;
#[forbid(unsafe_code)]
pub mod numeric;
#[forbid(unsafe_code)]
mod piece;
#[forbid(unsafe_code)]
pub mod sampler;
#[forbid(unsafe_code)]
mod score;
#[forbid(unsafe_code)]
mod session;
#[forbid(unsafe_code)]
mod snapshot;
#[forbid(unsafe_code)]
pub mod tokenizer;
#[forbid(unsafe_code)]
mod window;

/// For tests, benchmarks and tools of this repository: parts of inference without any promise of
/// stability.
#[doc(hidden)]
#[forbid(unsafe_code)]
pub mod internals {
    #[cfg(feature = "std")]
    pub use crate::kernels::dispatch::Prepared;
    pub use crate::kernels::dispatch::{matmul, row, to_halves};
    pub use crate::kernels::kernel::Kernel;
    pub use crate::kernels::matrix::Matrix;
    pub use crate::kernels::table::compiled as kernels;
    pub use crate::kernels::vectors::Vectors;
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    pub use crate::kernels::x86_64::HostKernels;
    pub use crate::layers::{activation, bk, gate, moe};

    /// The specification of every kernel.
    pub mod portable {
        pub use crate::kernels::portable::{add_row, matmul, row, to_halves};
    }
}

pub use digest::LogitsDigest;
pub use error::{Error, SnapshotProblem, TensorProblem};
pub use generate::{Generator, Predictor};
pub use model::Model;
pub use piece::Piece;
pub use sampler::Sampler;
pub use score::{Score, Scorer, log_probability};
pub use session::Session;
pub use tokenizer::Tokenizer;
pub use window::Window;
