//! Inference for quantized ResNet-BK language models: `no_std`, no allocation, bit-exact across
//! machines.
//!
//! The crate runs a model blob in place (flash, a file, a slice). From the outside in:
//!
//! 1. [`blob`]: the file format. Preamble, postcard header, aligned weight sections, all validated
//!    once by [`Model::from_bytes`]; afterwards inference cannot read out of bounds.
//! 2. [`Session`]: streaming inference with O(1) state in caller-provided memory. A token can be
//!    computed in bounded pieces ([`Session::advance`]) for watchdogs and executors, and the state
//!    saved across power loss ([`Session::snapshot`]). [`Window`]: whole windows at once, required
//!    for full-chain models.
//! 3. `layers`: activation quantization fused with layer normalization, the fixed-point BK-core,
//!    the memory of a gated chain and its convolution, gating, experts.
//! 4. [`kernels`]: matrix-vector products with INT2 to INT6, INT8 and FP16 weights. The portable
//!    kernel is the specification; optimized ones must match it bit for bit. [`Model::kernels`]
//!    reports the kernel of each matrix, and the reason for a fallback to the portable one.
//! 5. [`numeric`]: rounding, saturation, block scales, the reciprocal.
//! 6. [`sampler`], [`tokenizer`] and [`Generator`]: from logits to text. [`Scorer`]: negative
//!    log-likelihood of a text. [`coder`]: compression of texts. [`suggest`]: the words that may
//!    follow.
//!
//! ```text
//!  bytes ──Model::from_bytes──▶ Model ──▶ Session::step(token) ──▶ logits ──▶ Sampler ──▶ token
//!                                 └─────▶ Window::score(tokens) ─▶ logits of every position
//! ```
//!
//! `docs/numerics.md`, the number contract, specifies the rounding of every operation.
//!
//! # Example
//!
//! The session memory is sized at compile time from the blob's dimensions. With the feature
//! `alloc`, `Session::allocate` takes it from the heap.
//!
//! ```
//! use resnet_bk_core::blob::Dimensions;
//! use resnet_bk_core::{Error, Model, Sampler, Session, include_blob};
//!
//! static BLOB: &[u8] = include_blob!("../tests/golden/v3/half-int4.rbk");
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
//! heap-allocated sessions and windows; `std` adds runtime detection of CPU features and products
//! on several threads (`Parallel`).
//!
//! Cargo unifies features: a crate is built once per command, with the union of the features that
//! all packages request. If firmware shares a workspace with a host tool that enables `std`, build
//! them separately; otherwise `std` is also enabled for the device, where it does not compile:
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
pub mod coder;
#[forbid(unsafe_code)]
mod context;
#[forbid(unsafe_code)]
mod digest;
#[forbid(unsafe_code)]
mod error;
#[forbid(unsafe_code)]
mod forward;
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
pub mod suggest;
#[forbid(unsafe_code)]
pub mod tokenizer;
#[forbid(unsafe_code)]
mod window;

/// Internals for the tests, benchmarks and tools of this repository. Not covered by semver.
#[doc(hidden)]
#[forbid(unsafe_code)]
pub mod internals {
    pub use crate::kernels::depthwise::{Positions, convolve};
    #[cfg(feature = "std")]
    pub use crate::kernels::dispatch::Prepared;
    pub use crate::kernels::dispatch::{matmul, row, to_halves};
    pub use crate::kernels::kernel::Kernel;
    pub use crate::kernels::matrix::Matrix;
    pub use crate::kernels::table::compiled as kernels;
    pub use crate::kernels::vectors::Vectors;
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    pub use crate::kernels::x86_64::HostKernels;
    pub use crate::layers::{activation, bk, convolution, gate, memory, moe};

    /// The reference implementation that every kernel must match.
    pub mod portable {
        pub use crate::kernels::portable::{add_row, matmul, row, to_halves};
    }
}

pub use coder::Codec;
pub use context::Context;
pub use digest::LogitsDigest;
pub use error::{Error, MessageProblem, SnapshotProblem, TensorProblem};
pub use generate::{Generator, Predictor};
#[cfg(feature = "std")]
pub use kernels::Parallel;
pub use model::Model;
pub use piece::Piece;
pub use sampler::Sampler;
pub use score::{Score, Scorer, log_probability};
pub use session::Session;
pub use tokenizer::Tokenizer;
pub use window::Window;
