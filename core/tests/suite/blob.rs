//! Seeded random valid blobs, built with the types of the reader.

use resnet_bk_core::blob::ChainFormat;
use resnet_bk_core::blob::{
    Block, Chain, Dimensions, Header, Measured, PREAMBLE_LEN, Preamble, Precision, Provenance,
    Section, TensorId, TensorLayout, TensorRecord, TokenClasses, align_up, checksum,
};

use crate::random::Random;

/// Precisions of the matrices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mix {
    /// The same for all matrices, in groups of 32 if grouped.
    All(Precision),
    /// Random per matrix: FP16, INT8 or INT4 in random groups.
    Random,
    /// Random per matrix: any integer precision, in random groups.
    Planes,
}

/// Parameters of a random blob.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) dims: Dimensions,
    /// Whether all experts but the first have fewer hidden units than `dims.hidden`, in different
    /// numbers.
    pub(crate) smaller_experts: bool,
    pub(crate) mix: Mix,
    pub(crate) chain: ChainFormat,
    /// Merges of the tokenizer, if there is one.
    pub(crate) merges: Option<u32>,
    /// Whether numbers are arbitrary valid ones instead of similar to a trained model's.
    pub(crate) wild: bool,
    pub(crate) seed: u64,
}

/// A small half-chain model.
pub(crate) fn small() -> Recipe {
    Recipe {
        dims: Dimensions {
            vocab: 20,
            width: 16,
            layers: 2,
            experts: 3,
            top_k: 2,
            hidden: 24,
            potentials: 3,
            positions: 0,
            token_classes: 1,
            chain: Chain::Half,
            block: Block::Resolvent,
        },
        smaller_experts: false,
        mix: Mix::Random,
        chain: ChainFormat { frac: 24, off_diagonal: 1 << 16, int8: false },
        merges: None,
        wild: false,
        seed: 1,
    }
}

impl Recipe {
    /// Builds the blob.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut random = Random(self.seed);
        let mut sections = Vec::new();
        let mut records = Vec::new();
        for id in self.dims.tensors() {
            let (record, section) = self.matrix(id, &mut random);
            let offset = append(&mut sections, &section).offset;
            records.extend(TensorRecord { offset, ..record }.to_bytes());
        }
        let chain = append(&mut sections, &self.chain_section(&mut random));
        let merges = self.merges.map(|count| tokenizer_section(count, &mut random));
        let tokenizer = merges.map(|section| append(&mut sections, &section));
        let classes = (self.dims.token_classes > 1).then(|| append(&mut sections, &self.classes()));
        let header = Header {
            dims: self.dims,
            chain_frac: self.chain.frac as u8,
            off_diagonal: self.chain.off_diagonal,
            potentials_int8: self.chain.int8,
            chain,
            tokenizer,
            token_classes: classes,
            records: &records,
            provenance: provenance(self.seed),
        };
        seal(&header, &sections)
    }

    /// An arbitrary assignment of tokens to classes in which no class is empty.
    fn class(&self, token: u32) -> u32 {
        let classes = self.dims.token_classes;
        if token < classes { token } else { (token * token + token / 3) % classes }
    }

    fn classes(&self) -> Vec<u8> {
        let mut bytes = vec![0; TokenClasses::byte_len(self.dims.vocab)];
        for token in 0..self.dims.vocab {
            bytes[token as usize / 4] |= (self.class(token) as u8) << (2 * (token % 4));
        }
        bytes
    }

    fn shape(&self, id: TensorId) -> (u32, u32) {
        let (rows, cols) = self.dims.shape(id);
        let fewer = |l: u32, e: u32| if self.smaller_experts { 3 * l + 5 * e } else { 0 };
        match id {
            TensorId::TokenEmbedding(class) | TensorId::LmHead(class) => {
                ((0..rows).filter(|&token| self.class(token) == class).count() as u32, cols)
            }
            TensorId::ExpertUp(l, e) => (rows - fewer(l, e), cols),
            TensorId::ExpertDown(l, e) => (rows, cols - fewer(l, e)),
            _ => (rows, cols),
        }
    }

    fn storage(&self, random: &mut Random) -> (Precision, u16) {
        let grouped =
            |precision: Precision| (precision, if precision.is_grouped() { 32 } else { 0 });
        match self.mix {
            Mix::All(precision) => grouped(precision),
            Mix::Random => match random.below(4) {
                0 => grouped(Precision::Fp16),
                1 => grouped(Precision::Int8),
                2 => grouped(Precision::Int4),
                _ => (Precision::Int4, 1 + random.below(32) as u16),
            },
            Mix::Planes => match random.below(6) as usize {
                0 => grouped(Precision::Int8),
                index => (Precision::ALL[index - 1], 1 + random.below(32) as u16),
            },
        }
    }

    fn matrix(&self, id: TensorId, random: &mut Random) -> (TensorRecord, Vec<u8>) {
        let (rows, cols) = self.shape(id);
        let (precision, group) = self.storage(random);
        // Weights of variance 1/cols, embeddings of variance 1.
        let peak = if id.is_embedding() { 1.0 } else { (3.0 / cols as f32).sqrt() };
        let activation = if id.is_embedding() { 1.0 } else { id.max_code() as f32 };
        let largest_code = match precision {
            Precision::Fp16 => 1.0,
            Precision::Int8 => 127.0,
            grouped => ((1 << (grouped.bits() - 1)) - 1) as f32 * 15.0,
        };
        let (mut mantissa, mut exponent) = (peak / activation / largest_code, 0);
        while mantissa < 32_768.0 {
            mantissa *= 2.0;
            exponent += 1;
        }
        if self.wild {
            exponent = random.below(81) as u8;
        }
        let (mut codes, mut scales, mut biases) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rows {
            let row = match self.wild {
                true => random.next() as u16,
                false => (mantissa * (1.0 - 0.2 * random.unit().abs())) as u16,
            };
            match precision {
                Precision::Fp16 => codes.extend((0..cols).flat_map(|_| self.half(peak, random))),
                Precision::Int8 => {
                    codes
                        .extend((0..cols).map(|c| random.next() as u8 ^ [0x80, 0][c as usize % 2]));
                    scales.extend(row.to_le_bytes());
                }
                _ => {
                    let bytes =
                        TensorLayout::new(precision, 1, cols as usize, group as usize, false);
                    let start = codes.len();
                    codes.extend((0..bytes.row_codes).map(|_| random.next() as u8));
                    if precision == Precision::Int4 {
                        for group in codes[start..].chunks_mut((group as usize).div_ceil(2)) {
                            group.iter_mut().step_by(2).for_each(|byte| *byte ^= 0x88);
                            group.iter_mut().skip(1).step_by(2).for_each(|byte| *byte ^= 0x08);
                        }
                    }
                    scales.extend(row.to_le_bytes());
                    let pairs = cols.div_ceil(group as u32).div_ceil(2);
                    scales.extend((0..pairs).map(|_| random.next() as u8 | 0x44));
                }
            }
        }
        let bias_exponent = if self.wild { random.below(17) as u8 } else { 15 };
        if !id.is_embedding() {
            biases.extend((0..rows).flat_map(|_| (random.next() as i16).to_le_bytes()));
        }
        let exponent = if precision == Precision::Fp16 { 0 } else { exponent };
        let record =
            TensorRecord { precision, exponent, bias_exponent, group, rows, cols, offset: 0 };
        (record, [codes, scales, biases].concat())
    }

    fn half(&self, peak: f32, random: &mut Random) -> [u8; 2] {
        if !self.wild {
            return half::f16::from_f32(peak * random.unit()).to_le_bytes();
        }
        let bits = random.next() as u16;
        let finite = if bits & 0x7c00 == 0x7c00 { bits ^ 0x4000 } else { bits };
        finite.to_le_bytes()
    }

    /// Diagonals around −2 and η from 1/8 to 1; if `wild`, any that the format admits.
    fn chain_section(&self, random: &mut Random) -> Vec<u8> {
        let one = 1i32 << self.chain.frac;
        let mut bytes = Vec::new();
        for _ in 0..self.dims.layers * self.dims.potentials {
            let (diagonal, eta) = loop {
                let numbers = if self.wild {
                    let magnitude = random.below(31);
                    (random.next() as i32 >> random.below(31), random.next() as i32 >> magnitude)
                } else {
                    let diagonal = -2.0 + random.unit();
                    let eta = 0.5625 + 0.4375 * random.unit();
                    ((diagonal * one as f32) as i32, (eta * one as f32) as i32)
                };
                if self.chain.admits(numbers.0, numbers.1) {
                    break numbers;
                }
            };
            bytes.extend(diagonal.to_le_bytes());
            bytes.extend(eta.to_le_bytes());
        }
        bytes
    }
}

/// A random permutation of the bytes and `count` merges of short tokens.
fn tokenizer_section(count: u32, random: &mut Random) -> Vec<u8> {
    let mut bytes: Vec<u16> = (0..256).collect();
    for i in (1..256).rev() {
        bytes.swap(i, random.below(i as u32 + 1) as usize);
    }
    let mut lengths = vec![1; 256];
    let mut section: Vec<u8> = bytes.iter().flat_map(|token| token.to_le_bytes()).collect();
    for _ in 0..count {
        let (left, right) = loop {
            let pair = [0; 2].map(|_| random.below(lengths.len() as u32) as usize);
            if lengths[pair[0]] + lengths[pair[1]] <= 12 {
                break (pair[0], pair[1]);
            }
        };
        section.extend((left as u16).to_le_bytes());
        section.extend((right as u16).to_le_bytes());
        lengths.push(lengths[left] + lengths[right]);
    }
    section
}

fn provenance(seed: u64) -> Provenance<'static> {
    Provenance {
        source_sha256: b"not the checksum of a checkpoint",
        source_bytes: 12_345,
        tool: "the core's tests",
        policy: "random",
        calibration: "",
        calibration_tokens: 0,
        seed,
        measured: Some(Measured {
            corpus: "nothing",
            tokens: 7,
            perplexity_fp32: 20.5,
            perplexity: 21.25,
        }),
    }
}

/// Appends a section at the next aligned offset.
pub(crate) fn append(sections: &mut Vec<u8>, bytes: &[u8]) -> Section {
    sections.resize(align_up(sections.len()), 0);
    let section = Section { offset: sections.len() as u32, len: bytes.len() as u32 };
    sections.extend(bytes);
    section
}

/// Assembles a blob from a header and its sections.
pub(crate) fn seal(header: &Header<'_>, sections: &[u8]) -> Vec<u8> {
    seal_bytes(&encode(header), sections)
}

/// Encodes the postcard header.
pub(crate) fn encode(header: &Header<'_>) -> Vec<u8> {
    let mut buffer = vec![0; 512 + header.records.len()];
    postcard::to_slice(header, &mut buffer).expect("the buffer is large enough").to_vec()
}

/// [`seal`] for an encoded header, valid or not.
pub(crate) fn seal_bytes(header: &[u8], sections: &[u8]) -> Vec<u8> {
    let base = align_up(PREAMBLE_LEN + header.len());
    let total_len = (base + sections.len()) as u32;
    let preamble = Preamble { header_len: header.len() as u32, total_len };
    let mut blob = preamble.to_bytes().to_vec();
    blob.extend(header);
    blob.resize(base, 0);
    blob.extend(sections);
    reseal(&mut blob);
    blob
}

/// Recomputes the checksum of a blob that was changed.
pub(crate) fn reseal(blob: &mut [u8]) {
    let sum = checksum(blob);
    if let Some(field) = blob.get_mut(20..24) {
        field.copy_from_slice(&sum.to_le_bytes());
    }
}
