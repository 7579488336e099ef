//! A validated blob, ready to run.

use core::fmt;

use crate::blob::{
    ALIGN, Chain, ChainFormat, ChainParameters, Dimensions, Header, PREAMBLE_LEN, Preamble,
    Provenance, RECORD_LEN, Section, Tensor, TensorId, TensorRecord, TokenClasses, stored_checksum,
};
use crate::error::{Error, TensorProblem};
use crate::kernels::{self, Choice, Core, Matrix};
#[cfg(feature = "std")]
use crate::kernels::{Parallel, Prepared};
#[cfg(feature = "std")]
use crate::memory;
use crate::tokenizer::Tokenizer;

/// A model, read in place from its blob.
///
/// [`Model::from_bytes`] validates everything once; afterwards no access to the blob can fail or
/// go out of bounds.
#[derive(Clone)]
pub struct Model<'a> {
    /// Checksum and length of the blob.
    identity: (u32, u32),
    dims: Dimensions,
    format: ChainFormat,
    header: Header<'a>,
    sections: &'a [u8],
    classes: TokenClasses<'a>,
    chain: &'a [u8],
    tokenizer: Option<Tokenizer<'a>>,
    /// Every matrix with its kernels, resolved once at load. Hosts only: it costs heap.
    #[cfg(feature = "std")]
    matrices: alloc::sync::Arc<alloc::vec::Vec<Prepared<'a>>>,
    #[cfg(feature = "std")]
    parallel: Option<alloc::sync::Arc<dyn Parallel>>,
}

/// Limit on the column-major copies of matrices, in multiples of the blob's bytes. A copy takes two
/// bytes per weight, against a quarter byte for INT2, but only the second matrix of an expert and
/// those of few columns have one, so usual shapes stay below the limit. Rows are padded to 32: a
/// single-row matrix could take 250 times its bytes.
#[cfg(feature = "std")]
const COPIES: usize = 4;

impl<'a> Model<'a> {
    /// Reads and validates a blob: magic, version, length, checksum, dimensions, every record,
    /// bound and offset, every FP16 weight, the range of every chain parameter, the tokenizer.
    ///
    /// # Errors
    ///
    /// The first problem found. Validation time is linear in the length of the blob, plus at most
    /// 2^20 bytes of token text. With the feature `std`, [`Error::Memory`] if the heap cannot hold
    /// the prepared matrices: at most 160 bytes per matrix, and copies of at most four times the
    /// blob's bytes.
    ///
    /// # Alignment
    ///
    /// Logits do not depend on the blob's alignment, but speed does. Microcontroller kernels load
    /// words; if the blob is not 4-byte aligned they fall back to byte loads, and a token takes
    /// about ten times the instructions on a Cortex-M4, five times on a Cortex-M0. Use
    /// [`crate::include_blob!`] or a 16-byte-aligned flash address; [`Model::kernels`] shows the
    /// kernels in use.
    // Outlined so that it is compiled in this crate, with its optimization for size on devices.
    #[inline(never)]
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, Error> {
        Self::read::<true>(bytes)
    }

    /// [`Model::from_bytes`] for a large blob that was verified before, such as a file mapped into
    /// memory: checks everything but the checksum and the FP16 weights. Time is linear in the
    /// number of matrices and in the bytes of text, token classes and copies of matrices; other
    /// weights are not read. Whatever they are, no access goes out of bounds and nothing panics,
    /// but logits may be NaN.
    ///
    /// # Errors
    ///
    /// Those of [`Model::from_bytes`].
    #[cfg(feature = "std")]
    pub fn from_verified_bytes(bytes: &'a [u8]) -> Result<Self, Error> {
        Self::read::<false>(bytes)
    }

    #[inline(always)]
    fn read<const VERIFY: bool>(bytes: &'a [u8]) -> Result<Self, Error> {
        let preamble = Preamble::read::<VERIFY>(bytes)?;
        let encoded = &bytes[PREAMBLE_LEN..PREAMBLE_LEN + preamble.header_len as usize];
        let (header, rest): (Header<'a>, &[u8]) =
            postcard::take_from_bytes(encoded).map_err(|_| Error::Header)?;
        let sections = bytes.get(preamble.base()..).ok_or(Error::Header)?;
        let dims = header.dims;
        dims.validate()?;
        let complete = rest.is_empty() && header.records.len() == dims.tensor_count() * RECORD_LEN;
        if !complete {
            return Err(Error::Header);
        }
        let classes = token_classes(sections, &header)?;
        let mut end = 0;
        let (mut hidden, mut most_hidden) = (0, 0);
        for (index, id) in dims.tensors().enumerate() {
            let problem = |problem| Error::Tensor { index: index as u32, problem };
            let record = record(header.records, index).ok_or(problem(TensorProblem::Precision))?;
            let tensor = Tensor::read::<VERIFY>(sections, &dims, id, &record)?;
            // A token table has one row per token of its class. An expert's second matrix has one
            // column per row of the first, which precedes it.
            let matches = match id {
                TensorId::TokenEmbedding(class) | TensorId::LmHead(class) => {
                    dims.token_classes == 1 || classes.tokens(class).count() == tensor.rows
                }
                TensorId::ExpertDown(..) => tensor.cols == hidden,
                TensorId::ExpertUp(..) => {
                    (hidden, most_hidden) = (tensor.rows, most_hidden.max(tensor.rows));
                    true
                }
                _ => true,
            };
            if !matches {
                return Err(problem(TensorProblem::Shape));
            }
            // Matrices do not overlap, so validating their contents is one pass over the blob.
            if (record.offset as usize) < end {
                return Err(problem(TensorProblem::Overlap));
            }
            end = record.offset as usize + tensor.layout().len();
        }
        // Session memory is sized by `dims.hidden`: it must be the size of the largest expert.
        if most_hidden != dims.hidden as usize {
            return Err(Error::Header);
        }
        let chain = section(sections, header.chain).ok_or(Error::ChainSection)?;
        let potentials = dims.potentials as usize;
        let expected = dims.layers as usize * potentials * ChainParameters::BYTES;
        if chain.len() != expected {
            return Err(Error::ChainSection);
        }
        let format = ChainFormat {
            frac: header.chain_frac as u32,
            off_diagonal: header.off_diagonal,
            int8: header.potentials_int8,
        };
        format.validate()?;
        for i in 0..dims.layers as usize * potentials {
            let (diagonal, eta) = ChainParameters { bytes: chain }.get(i);
            if !format.admits(diagonal, eta) {
                let (layer, potential) = ((i / potentials) as u32, (i % potentials) as u32);
                return Err(Error::ChainRange { layer, potential });
            }
        }
        let tokenizer = header.tokenizer.map(|place| {
            let bytes = section(sections, place).ok_or(Error::TokenizerSection)?;
            Tokenizer::from_bytes(bytes, dims.vocab)
        });
        let tokenizer = tokenizer.transpose()?;
        #[cfg(feature = "std")]
        let matrices = prepare_all(&dims, header.records, sections, COPIES * bytes.len())?;
        Ok(Self {
            identity: (stored_checksum(bytes), preamble.total_len),
            dims,
            format,
            header,
            sections,
            classes,
            chain,
            tokenizer,
            #[cfg(feature = "std")]
            matrices,
            #[cfg(feature = "std")]
            parallel: None,
        })
    }

    /// Shares the rows of large matrices among threads when a session computes a token. A large
    /// output layer is then a single piece of [`crate::Session::advance`].
    #[cfg(feature = "std")]
    pub fn with_threads(self, parallel: alloc::sync::Arc<dyn Parallel>) -> Self {
        Self { parallel: Some(parallel), ..self }
    }

    /// The threads that products are shared among.
    #[cfg(feature = "std")]
    pub(crate) fn parallel(&self) -> Option<&dyn Parallel> {
        self.parallel.as_deref()
    }

    /// Checksum and length of the blob, which identify it.
    pub fn identity(&self) -> (u32, u32) {
        self.identity
    }

    /// Dimensions and chain kind.
    pub fn dims(&self) -> &Dimensions {
        &self.dims
    }

    /// Whether the chain is causal, so that the model can stream.
    pub fn is_causal(&self) -> bool {
        self.dims.chain == Chain::Half
    }

    /// The whole header.
    pub fn header(&self) -> &Header<'a> {
        &self.header
    }

    /// Where the blob comes from.
    pub fn provenance(&self) -> &Provenance<'a> {
        &self.header.provenance
    }

    /// Number format of the chain.
    pub fn chain_format(&self) -> ChainFormat {
        self.format
    }

    /// The tokenizer in the blob; [`Error::NoTokenizer`] if there is none.
    pub fn tokenizer(&self) -> Result<Tokenizer<'a>, Error> {
        self.tokenizer.ok_or(Error::NoTokenizer)
    }

    /// Maps tokens to rows of the token tables.
    pub fn token_classes(&self) -> TokenClasses<'a> {
        self.classes
    }

    /// A weight matrix; an empty one for an `id` that the model does not have.
    #[inline(never)]
    pub fn tensor(&self, id: TensorId) -> Tensor<'_> {
        let index = self.dims.contains(id).then(|| self.dims.index(id));
        // Cannot fail: `from_bytes` has decoded every record.
        let record = index.and_then(|index| record(self.header.records, index));
        Tensor::cut(self.sections, id, &record.unwrap_or(TensorRecord::EMPTY))
    }

    /// [`Model::tensor`] with its kernels. They are selected at load on hosts, on every call on
    /// devices.
    #[inline(never)]
    #[doc(hidden)]
    pub fn matrix(&self, id: TensorId) -> Matrix<'_> {
        #[cfg(feature = "std")]
        if self.dims.contains(id)
            && let Some(prepared) = self.matrices.get(self.dims.index(id))
        {
            return prepared.matrix().on_threads(self.parallel());
        }
        Matrix::new(self.tensor(id))
    }

    /// The kernel of every matrix on this processor, in canonical order, with the reason for a
    /// fallback to the portable one, such as a misaligned blob.
    pub fn kernels(&self) -> impl Iterator<Item = (TensorId, Choice)> + '_ {
        self.choices(kernels::choice)
    }

    /// [`Model::kernels`] on a microcontroller core, for a blob aligned as it is here.
    pub fn kernels_on(&self, core: Core) -> impl Iterator<Item = (TensorId, Choice)> + '_ {
        self.choices(move |matrix| kernels::choice_on(core, matrix))
    }

    fn choices(
        &self,
        choose: impl Fn(&Tensor<'_>) -> Choice,
    ) -> impl Iterator<Item = (TensorId, Choice)> {
        self.dims.tensors().map(move |id| {
            let choice = match id {
                TensorId::Convolution(_) => kernels::depthwise::choice(&self.tensor(id)),
                _ if id.is_embedding() => Choice::ROW,
                _ => choose(&self.tensor(id)),
            };
            (id, choice)
        })
    }

    /// Chain parameters of a block; empty for a `layer` that the model does not have.
    pub fn chain_parameters(&self, layer: u32) -> ChainParameters<'a> {
        let len = self.dims.potentials as usize * ChainParameters::BYTES;
        let mut blocks = self.chain.chunks_exact(len.max(1));
        ChainParameters { bytes: blocks.nth(layer as usize).unwrap_or(&[]) }
    }
}

/// Omits the weights.
impl fmt::Debug for Model<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("dims", &self.dims).finish_non_exhaustive()
    }
}

/// Every matrix with its kernels. Matrices that follow a ReLU, whose inputs are mostly zeros, and
/// those with few columns get a column-major copy while the `room` bytes for copies last.
#[cfg(feature = "std")]
fn prepare_all<'a>(
    dims: &Dimensions,
    records: &[u8],
    sections: &'a [u8],
    mut room: usize,
) -> Result<alloc::sync::Arc<alloc::vec::Vec<Prepared<'a>>>, Error> {
    const { assert!(size_of::<Prepared<'_>>() <= 160) };
    let mut all = alloc::vec::Vec::new();
    memory::reserve(&mut all, dims.tensor_count())?;
    for (index, id) in dims.tensors().enumerate() {
        // Cannot fail: `from_bytes` has decoded every record.
        let record = record(records, index).unwrap_or(TensorRecord::EMPTY);
        let tensor = Tensor::cut(sections, id, &record);
        let prepared = Prepared::new(tensor, if Prepared::pays(&tensor) { room } else { 0 })?;
        room -= prepared.bytes();
        all.push(prepared);
    }
    Ok(alloc::sync::Arc::new(all))
}

fn record(records: &[u8], index: usize) -> Option<TensorRecord> {
    let bytes = records.get(index * RECORD_LEN..)?.first_chunk()?;
    TensorRecord::from_bytes(bytes)
}

/// The token classes. A section holds them if there are several.
fn token_classes<'a>(sections: &'a [u8], header: &Header<'_>) -> Result<TokenClasses<'a>, Error> {
    let Dimensions { vocab, token_classes, .. } = header.dims;
    let bytes = match (header.token_classes, token_classes) {
        (None, 1) => &[],
        (Some(place), 2..) => section(sections, place).ok_or(Error::TokenClasses)?,
        _ => return Err(Error::TokenClasses),
    };
    let classes = TokenClasses::new(vocab, bytes).ok_or(Error::TokenClasses)?;
    let known = (0..vocab).all(|token| classes.class(token) < token_classes);
    // An empty section describes a single class; refuse it for several.
    let complete = known && bytes.is_empty() == (token_classes == 1);
    if complete { Ok(classes) } else { Err(Error::TokenClasses) }
}

fn section(sections: &[u8], place: Section) -> Option<&[u8]> {
    let start = place.offset as usize;
    let aligned = start.is_multiple_of(ALIGN);
    let bytes = sections.get(start..start.checked_add(place.len as usize)?)?;
    aligned.then_some(bytes)
}
