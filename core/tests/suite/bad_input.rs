//! Corrupt, foreign and malicious blobs: a typed error that names the problem, never a panic.
//!
//! Tests that recompute the checksum after changing bytes simulate an attacker.
//!
//! Longer than usual: one test for every field of the format.

use resnet_bk_core::blob::{
    Block, Chain, Dimensions, FORMAT_VERSION, Header, Limits, MAGIC, PREAMBLE_LEN, Precision,
    RECORD_LEN, Section, TensorId, TensorLayout, TensorRecord, TokenClasses,
};
use resnet_bk_core::{Error, Model, Sampler, Session, TensorProblem, Tokenizer, Window};

use crate::blob::{Mix, Recipe, encode, reseal, seal, seal_bytes, small};
use crate::random::Random;

fn error(blob: &[u8]) -> Error {
    Model::from_bytes(blob).expect_err("the blob is bad")
}

/// A small blob with every kind of section: a tokenizer, a position table, all precisions.
fn complete() -> Recipe {
    let dims = Dimensions {
        vocab: 270,
        width: 3,
        layers: 1,
        experts: 2,
        hidden: 5,
        positions: 4,
        token_classes: 2,
        ..small().dims
    };
    Recipe { dims, merges: Some(12), seed: 5, ..small() }
}

#[test]
fn every_truncation_is_named() {
    let blob = complete().build();
    for given in 0..blob.len() {
        let needed = if given < PREAMBLE_LEN { PREAMBLE_LEN } else { blob.len() };
        assert_eq!(error(&blob[..given]), Error::Truncated { needed, given });
    }
    Model::from_bytes(&blob).unwrap();
}

#[test]
fn every_flipped_bit_is_noticed() {
    let mut blob = complete().build();
    for bit in (0..8 * blob.len()).step_by(if cfg!(miri) { 997 } else { 1 }) {
        blob[bit / 8] ^= 1 << (bit % 8);
        let error = error(&blob);
        let expected = match bit / 8 {
            0..8 => matches!(error, Error::NotABlob),
            8..12 => matches!(error, Error::Version { supported: FORMAT_VERSION, .. }),
            16..20 => matches!(error, Error::Truncated { .. } | Error::TrailingBytes { .. }),
            _ => matches!(error, Error::Checksum { .. }),
        };
        assert!(expected, "bit {bit}: {error:?}");
        blob[bit / 8] ^= 1 << (bit % 8);
    }
    Model::from_bytes(&blob).unwrap();
}

/// What was not verified is computed with, whatever it is.
#[test]
fn trusted_blobs_of_any_weights_run() {
    let blob = Recipe { dims: Dimensions { token_classes: 1, ..complete().dims }, ..complete() };
    for mix in [Mix::Random, Mix::All(Precision::Fp16), Mix::Planes] {
        let blob = Recipe { mix, ..blob.clone() }.build();
        let mut random = Random(3);
        for _ in 0..if cfg!(miri) { 2 } else { 200 } {
            let mut changed = blob.clone();
            let start = Model::from_bytes(&blob).unwrap().header().records.len() + 200;
            for _ in 0..8 {
                let at = start + random.below((blob.len() - start) as u32) as usize;
                changed[at] = random.next() as u8;
            }
            // Records, chains and the tokenizer are checked in any case.
            let Ok(model) = Model::from_verified_bytes(&changed) else { continue };
            let mut session = Session::allocate(model).unwrap();
            (0..4).for_each(|token| drop(session.step(token).unwrap().to_vec()));
        }
    }
    let blob = complete().build();
    let bits = |model: Model<'_>| Session::allocate(model).unwrap().step(7).unwrap().to_vec();
    assert_eq!(
        bits(Model::from_verified_bytes(&blob).unwrap()),
        bits(Model::from_bytes(&blob).unwrap())
    );
    let needed = blob.len();
    let error = Model::from_verified_bytes(&blob[..needed - 1]).unwrap_err();
    assert_eq!(error, Error::Truncated { needed, given: needed - 1 });
}

#[test]
fn foreign_bytes_are_not_a_blob() {
    assert_eq!(error(&[]), Error::Truncated { needed: PREAMBLE_LEN, given: 0 });
    assert_eq!(error(b"Res"), Error::Truncated { needed: PREAMBLE_LEN, given: 3 });
    assert_eq!(error(b"GGUF"), Error::NotABlob);
    assert_eq!(error(&[0; 1000]), Error::NotABlob);
    assert_eq!(error(b"{\"__metadata__\":{}} and so on, 32 bytes or more"), Error::NotABlob);
}

#[test]
fn other_versions_say_so() {
    let blob = small().build();
    for found in [0, FORMAT_VERSION + 1, u32::MAX] {
        let mut other = blob.clone();
        other[8..12].copy_from_slice(&found.to_le_bytes());
        reseal(&mut other);
        assert_eq!(error(&other), Error::Version { found, supported: FORMAT_VERSION });
    }
}

#[test]
fn trailing_bytes_are_refused() {
    let blob = small().build();
    let longer = [&blob[..], &[0]].concat();
    let (expected, given) = (blob.len(), blob.len() + 1);
    assert_eq!(error(&longer), Error::TrailingBytes { expected, given });
}

#[test]
fn a_header_of_the_wrong_length_is_refused() {
    let blob = small().build();
    let len = u32::from_le_bytes([blob[12], blob[13], blob[14], blob[15]]);
    for wrong in [0, 1, len - 1, len + 1, blob.len() as u32, u32::MAX - 31, u32::MAX] {
        let mut other = blob.clone();
        other[12..16].copy_from_slice(&wrong.to_le_bytes());
        reseal(&mut other);
        assert_eq!(error(&other), Error::Header, "{wrong}");
    }
    // Nothing but a preamble.
    assert_eq!(error(&seal_bytes(&[], &[])), Error::Header);
}

/// A decoded blob, for tests to modify.
struct Parts<'a> {
    header: Header<'a>,
    records: Vec<TensorRecord>,
    sections: &'a [u8],
}

impl<'a> Parts<'a> {
    fn new(blob: &'a [u8]) -> Self {
        let header = Model::from_bytes(blob).unwrap().header().clone();
        let records = header.records.chunks_exact(RECORD_LEN);
        let records = records.map(|r| TensorRecord::from_bytes(r.try_into().unwrap()).unwrap());
        let header_len = u32::from_le_bytes(blob[12..16].try_into().unwrap()) as usize;
        let base = (PREAMBLE_LEN + header_len).next_multiple_of(16);
        Self { records: records.collect(), header, sections: &blob[base..] }
    }

    fn seal(&self) -> Vec<u8> {
        let records: Vec<u8> = self.records.iter().flat_map(|r| r.to_bytes()).collect();
        seal(&Header { records: &records, ..self.header.clone() }, self.sections)
    }
}

#[test]
fn a_header_comes_back_as_it_was_written() {
    let blob = complete().build();
    let parts = Parts::new(&blob);
    assert_eq!(parts.seal(), blob);
    assert_eq!(parts.header.dims, complete().dims);
    assert_eq!(parts.header.provenance.seed, 5);
    assert_eq!(parts.header.provenance.measured.map(|m| m.perplexity), Some(21.25));
    for record in &parts.records {
        assert_eq!(TensorRecord::from_bytes(&record.to_bytes()), Some(*record));
    }
}

#[test]
fn every_field_of_every_record_is_checked() {
    let blob = complete().build();
    let parts = Parts::new(&blob);
    type Change = fn(&mut TensorRecord);
    let changes: [(Change, TensorProblem); 13] = [
        (|r| r.rows += 1, TensorProblem::Shape),
        (|r| r.rows = 0, TensorProblem::Shape),
        (|r| r.rows = u32::MAX, TensorProblem::Shape),
        (|r| r.cols += 1, TensorProblem::Shape),
        (|r| r.cols = 0, TensorProblem::Shape),
        (|r| r.exponent = 81, TensorProblem::Exponent),
        (|r| r.exponent = 255, TensorProblem::Exponent),
        (|r| r.bias_exponent = 17, TensorProblem::Exponent),
        (|r| r.bias_exponent = 255, TensorProblem::Exponent),
        (|r| r.offset += 1, TensorProblem::Alignment),
        (|r| r.offset = u32::MAX, TensorProblem::Alignment),
        (|r| r.offset = u32::MAX - 15, TensorProblem::Bounds),
        (|r| r.group = if r.precision.is_grouped() { u16::MAX } else { 32 }, TensorProblem::Group),
    ];
    for index in 0..parts.records.len() {
        for (change, problem) in changes {
            let mut parts = Parts::new(&blob);
            change(&mut parts.records[index]);
            assert_eq!(error(&parts.seal()), Error::Tensor { index: index as u32, problem });
        }
        for (byte, value) in [(0, 0), (0, 7), (0, 255), (3, 1), (3, 255)] {
            let mut records: Vec<u8> = parts.records.iter().flat_map(|r| r.to_bytes()).collect();
            records[index * RECORD_LEN + byte] = value;
            let blob = seal(&Header { records: &records, ..parts.header.clone() }, parts.sections);
            let problem = TensorProblem::Precision;
            assert_eq!(error(&blob), Error::Tensor { index: index as u32, problem });
        }
    }
    let ungrouped = parts.records.iter().position(|r| r.precision == Precision::Int4).unwrap();
    let mut parts = Parts::new(&blob);
    parts.records[ungrouped].group = 0;
    let (index, problem) = (ungrouped as u32, TensorProblem::Group);
    assert_eq!(error(&parts.seal()), Error::Tensor { index, problem });
}

#[test]
fn sections_stay_within_the_blob_and_apart() {
    // A single token class: otherwise the missing classes would be reported first.
    let dims = Dimensions { token_classes: 1, ..complete().dims };
    let blob = Recipe { dims, ..complete() }.build();
    let parts = Parts::new(&blob);
    for index in 1..parts.records.len() {
        let mut parts = Parts::new(&blob);
        parts.records[index].offset = parts.records[index - 1].offset;
        let refused = error(&parts.seal());
        let Error::Tensor { index: named, problem } = refused else { panic!("{refused:?}") };
        assert_eq!(named, index as u32);
        // At the wrong offset, non-finite FP16 weights may be found before the overlap.
        assert!(matches!(problem, TensorProblem::Overlap | TensorProblem::NotFinite));
    }
    // Bounds are exact to the last byte of the last matrix.
    let mut parts = Parts::new(&blob);
    let last = parts.records.len() - 1;
    let record = parts.records[last];
    let layout = |r: &TensorRecord| {
        TensorLayout::new(r.precision, r.rows as usize, r.cols as usize, r.group as usize, true)
    };
    let end = record.offset as usize + layout(&record).len();
    parts.sections = &parts.sections[..end - 1];
    let (index, problem) = (last as u32, TensorProblem::Bounds);
    assert_eq!(error(&parts.seal()), Error::Tensor { index, problem });
}

#[test]
fn the_widest_matrices_are_measured_in_64_bits() {
    let (rows, cols) = (Limits::POSITIONS as usize, Limits::WIDTH as usize);
    let layout = TensorLayout::new(Precision::Fp16, rows, cols, 0, false);
    assert_eq!(layout.byte_len(), 1 << 37);
    let layout = TensorLayout::new(Precision::Int4, 7, 65, 32, true);
    assert_eq!(layout.byte_len(), layout.len() as u64);
    // A table of that size is out of bounds on 32-bit and 64-bit targets alike.
    let dims = Dimensions { positions: Limits::POSITIONS, ..small().dims };
    let blob = small().build();
    let mut parts = Parts::new(&blob);
    parts.header.dims = dims;
    let table = TensorRecord { rows: dims.positions, ..parts.records[0] };
    parts.records.insert(1, table);
    let problem = TensorProblem::Bounds;
    assert_eq!(error(&parts.seal()), Error::Tensor { index: 1, problem });
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let blob = Recipe { mix: Mix::All(Precision::Fp16), ..small() }.build();
    for half in [0x7c00u16, 0xfc00, 0x7e00, 0xffff, 0x7c01] {
        let parts = Parts::new(&blob);
        for (index, record) in parts.records.iter().enumerate() {
            let mut sections = parts.sections.to_vec();
            let last = record.offset as usize + 2 * (record.rows * record.cols - 1) as usize;
            sections[last..last + 2].copy_from_slice(&half.to_le_bytes());
            let blob = seal(&parts.header, &sections);
            let (index, problem) = (index as u32, TensorProblem::NotFinite);
            assert_eq!(error(&blob), Error::Tensor { index, problem });
        }
    }
}

#[test]
fn dimensions_have_limits() {
    type Field = fn(&mut Dimensions) -> &mut u32;
    let fields: [(&str, Field, u32); 8] = [
        ("vocab", |d| &mut d.vocab, Limits::VOCAB),
        ("width", |d| &mut d.width, Limits::WIDTH),
        ("layers", |d| &mut d.layers, Limits::LAYERS),
        ("experts", |d| &mut d.experts, Limits::EXPERTS),
        ("top_k", |d| &mut d.top_k, small().dims.experts),
        ("hidden", |d| &mut d.hidden, Limits::HIDDEN),
        ("potentials", |d| &mut d.potentials, Limits::POTENTIALS),
        ("token_classes", |d| &mut d.token_classes, TokenClasses::MOST),
    ];
    let blob = small().build();
    for (name, field, limit) in fields {
        for value in [0, limit + 1, u32::MAX] {
            let mut parts = Parts::new(&blob);
            *field(&mut parts.header.dims) = value;
            assert_eq!(error(&parts.seal()), Error::Dimension { name, value, limit });
        }
        // Within the limits, but inconsistent with the stored matrices.
        if name != "top_k" {
            let mut parts = Parts::new(&blob);
            *field(&mut parts.header.dims) = limit;
            let refused = error(&parts.seal());
            let found = matches!(refused, Error::Tensor { .. } | Error::Header);
            assert!(found, "{name}: {refused:?}");
        }
    }
    let gated = |change: fn(&mut Dimensions)| {
        let mut parts = Parts::new(&blob);
        parts.header.dims.block = Block::Gated { channels: 6 };
        change(&mut parts.header.dims);
        error(&parts.seal())
    };
    let wide = gated(|d| d.block = Block::Gated { channels: 8193 });
    assert_eq!(wide, Error::Dimension { name: "channels", value: 8193, limit: Limits::CHANNELS });
    let odd = gated(|d| d.block = Block::Gated { channels: 7 });
    assert_eq!(odd, Error::Channels { channels: 7, potentials: 3 });
    let hidden = gated(|d| d.hidden = 0);
    assert_eq!(hidden, Error::Dimension { name: "hidden", value: 0, limit: Limits::HIDDEN });
    assert_eq!(gated(|d| d.chain = Chain::Full), Error::Header);
    assert_eq!(gated(|_| ()), Error::Header);
    let mut parts = Parts::new(&blob);
    parts.header.dims.positions = Limits::POSITIONS + 1;
    let refused = error(&parts.seal());
    assert!(matches!(refused, Error::Dimension { name: "positions", .. }), "{refused:?}");
}

#[test]
fn the_number_of_records_is_that_of_the_dimensions() {
    let blob = small().build();
    let mut parts = Parts::new(&blob);
    parts.records.pop();
    assert_eq!(error(&parts.seal()), Error::Header);
    let mut parts = Parts::new(&blob);
    parts.records.push(parts.records[0]);
    assert_eq!(error(&parts.seal()), Error::Header);
    let parts = Parts::new(&blob);
    let odd = &parts.header.records[..parts.header.records.len() - 1];
    let header = Header { records: odd, ..parts.header.clone() };
    assert_eq!(error(&seal(&header, parts.sections)), Error::Header);
}

#[test]
fn chain_sections_are_checked() {
    let blob = small().build();
    let change = |change: fn(&mut Header<'_>)| {
        let mut parts = Parts::new(&blob);
        change(&mut parts.header);
        error(&parts.seal())
    };
    assert_eq!(change(|h| h.chain.len += 8), Error::ChainSection);
    assert_eq!(change(|h| h.chain.len -= 8), Error::ChainSection);
    assert_eq!(change(|h| h.chain.offset -= 8), Error::ChainSection, "misaligned");
    assert_eq!(change(|h| h.chain.offset += 16), Error::ChainSection, "beyond the end");
    assert_eq!(change(|h| h.chain.offset = u32::MAX - 15), Error::ChainSection);
    assert_eq!(change(|h| h.chain_frac = 11), Error::ChainSection);
    assert_eq!(change(|h| h.chain_frac = 29), Error::ChainSection);
    let (layer, potential) = (0, 0);
    let limit = i32::MAX as u32;
    for found in [limit + 1, u32::MAX] {
        let mut parts = Parts::new(&blob);
        parts.header.off_diagonal = found;
        assert_eq!(error(&parts.seal()), Error::OffDiagonal { found, limit });
    }
    assert_eq!(change(|h| h.off_diagonal = 1 << 30), Error::ChainRange { layer, potential });

    let parts = Parts::new(&blob);
    for eta in [0, -1, i32::MIN, 1, i32::MAX] {
        let mut sections = parts.sections.to_vec();
        // The second potential of the second block.
        let at = parts.header.chain.offset as usize + (3 + 1) * 8 + 4;
        sections[at..at + 4].copy_from_slice(&eta.to_le_bytes());
        let (layer, potential) = (1, 1);
        let refused = error(&seal(&parts.header, &sections));
        assert_eq!(refused, Error::ChainRange { layer, potential }, "{eta}");
    }
}

#[test]
fn tokenizer_sections_are_checked() {
    let blob = complete().build();
    let place = Parts::new(&blob).header.tokenizer.unwrap();
    let with = |tokenizer: Section| {
        let mut parts = Parts::new(&blob);
        parts.header.tokenizer = Some(tokenizer);
        Model::from_bytes(&parts.seal()).map(|_| ())
    };
    assert_eq!(with(place), Ok(()));
    let refused = Err(Error::TokenizerSection);
    assert_eq!(with(Section { len: place.len - 2, ..place }), refused);
    assert_eq!(with(Section { len: place.len + 4, ..place }), refused);
    assert_eq!(with(Section { len: 0, ..place }), refused);
    assert_eq!(with(Section { offset: place.offset - 8, ..place }), refused);
    assert_eq!(with(Section { offset: u32::MAX - 15, ..place }), refused);

    let mut parts = Parts::new(&blob);
    parts.header.tokenizer = None;
    let blob = parts.seal();
    let model = Model::from_bytes(&blob).unwrap();
    assert_eq!(model.tokenizer().unwrap_err(), Error::NoTokenizer);
}

#[test]
fn token_classes_are_checked() {
    let blob = complete().build();
    let place = Parts::new(&blob).header.token_classes.unwrap();
    let with = |classes: Option<Section>| {
        let mut parts = Parts::new(&blob);
        parts.header.token_classes = classes;
        Model::from_bytes(&parts.seal()).map(|_| ())
    };
    assert_eq!(with(Some(place)), Ok(()));
    let refused = Err(Error::TokenClasses);
    assert_eq!(with(None), refused);
    assert_eq!(with(Some(Section { len: place.len - 1, ..place })), refused);
    assert_eq!(with(Some(Section { len: 0, ..place })), refused);
    assert_eq!(with(Some(Section { offset: place.offset - 8, ..place })), refused);
    assert_eq!(with(Some(Section { offset: u32::MAX - 15, ..place })), refused);

    // A class without a matrix, and a class size that differs from the rows of its matrix.
    let first = place.offset as usize;
    for (token, expected) in
        [(2, Error::TokenClasses), (1, Error::Tensor { index: 0, problem: TensorProblem::Shape })]
    {
        let parts = Parts::new(&blob);
        let mut sections = parts.sections.to_vec();
        assert_eq!(sections[first] & 3, 0);
        sections[first] |= token;
        assert_eq!(error(&seal(&parts.header, &sections)), expected);
    }

    // A section is not allowed for a single class.
    let single = small().build();
    let mut parts = Parts::new(&single);
    parts.header.token_classes = Some(parts.header.chain);
    assert_eq!(error(&parts.seal()), Error::TokenClasses);
}

#[test]
fn hidden_units_are_the_same_in_both_matrices_of_an_expert() {
    let recipe = Recipe { smaller_experts: true, mix: Mix::All(Precision::Int8), ..small() };
    let blob = recipe.build();
    let dims = recipe.dims;
    for l in 0..dims.layers {
        for e in 0..dims.experts {
            let index = dims.index(TensorId::ExpertUp(l, e));
            let mut parts = Parts::new(&blob);
            parts.records[index].rows -= 1;
            let (index, problem) = (index as u32 + 1, TensorProblem::Shape);
            assert_eq!(error(&parts.seal()), Error::Tensor { index, problem });
            let mut parts = Parts::new(&blob);
            parts.records[index as usize - 1].rows = 0;
            let index = index - 1;
            assert_eq!(error(&parts.seal()), Error::Tensor { index, problem });
        }
    }
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let blob = small().build();
    let parts = Parts::new(&blob);
    let mut header = encode(&parts.header);
    let policy = header.windows(6).position(|w| w == b"random").unwrap();
    header[policy] = 0xff;
    assert_eq!(error(&seal_bytes(&header, parts.sections)), Error::Header);
}

#[test]
fn every_error_says_what_it_is_about() {
    let errors = [
        Error::NotABlob,
        Error::Version { found: 7, supported: 1 },
        Error::Truncated { needed: 9, given: 7 },
        Error::TrailingBytes { expected: 9, given: 10 },
        Error::Checksum { stored: 1, computed: 2 },
        Error::Header,
        Error::Dimension { name: "width", value: 0, limit: 3 },
        Error::Tensor { index: 3, problem: TensorProblem::Overlap },
        Error::ChainRange { layer: 1, potential: 2 },
        Error::ChainSection,
        Error::TokenClasses,
        Error::TokenizerSection,
        Error::NoTokenizer,
        Error::Token { token: 0, vocab: 0 },
        Error::EndOfPositions { positions: 4 },
        Error::NotCausal,
        Error::EmptyWindow,
        Error::Memory { needed: 2, given: 1 },
        Error::Buffer { needed: 2, given: 1 },
        Error::TopK { asked: 65, limit: 64 },
        Error::Temperature,
        Error::TopP,
        Error::RepetitionPenalty,
        Error::EmptyPrompt,
    ];
    let texts: std::collections::HashSet<String> = errors.iter().map(Error::to_string).collect();
    assert_eq!(texts.len(), errors.len());
    assert!(texts.iter().all(|text| text.len() > 12));
}

/// Exercises all of the API on a blob. Returns whether it was accepted.
fn use_it(blob: &[u8], random: &mut Random) -> bool {
    let model = match Model::from_bytes(blob) {
        Ok(model) => model,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let dims = model.dims();
    let sampler = Sampler::builder().temperature(0.7).top_k(random.below(30) as usize);
    let sampler = sampler.seed(random.next()).repetition_penalty::<3>(1.2);
    let mut sampler = sampler.build().unwrap();
    let token = |random: &mut Random| random.below(dims.vocab + 1);
    let words = dims.session_words();
    if let Ok(mut session) = Session::new(model.clone(), vec![0; words]) {
        for _ in 0..4 {
            if let Ok(logits) = session.step(token(random)) {
                assert!(logits.iter().all(|l| l.is_finite()));
                assert!(sampler.sample(logits) < dims.vocab);
            }
        }
    }
    let words = dims.window_words(5, 2);
    let mut window = Window::new(model.clone(), vec![0; words], 5, 2).unwrap();
    let tokens = [0; 5].map(|_| token(random));
    let _ = window.score(&tokens, |_, logits| {
        assert!(sampler.sample(&mut logits.to_vec()) < dims.vocab);
    });
    let _ = window.log_probabilities(&tokens, |_, value| assert!(value <= 0.0));
    if let Ok(tokenizer) = model.tokenizer() {
        let text: Vec<u8> = (0..40).map(|_| b" abc\n\xff\0e"[random.below(8) as usize]).collect();
        assert_round_trip(&tokenizer, &text);
        for _ in 0..10 {
            let (token, mut len) = (random.below(dims.vocab + 2), 0);
            let _ = tokenizer.decode(token, |_| len += 1);
            assert!(len <= 256);
        }
        let mut decoder = tokenizer.decoder();
        for _ in 0..10 {
            let _ = decoder.decode(random.below(dims.vocab + 2), |part| assert!(part.len() <= 32));
        }
    }
    true
}

fn assert_round_trip(tokenizer: &Tokenizer<'_>, text: &[u8]) {
    let mut tokens = vec![0; text.len()];
    let count = tokenizer.encode(text, &mut tokens).unwrap();
    let mut bytes = Vec::new();
    for &token in &tokens[..count] {
        tokenizer.decode(token, |b| bytes.push(b)).unwrap();
    }
    assert_eq!(bytes, text);
}

#[test]
fn any_byte_may_be_changed() {
    let mut blob = complete().build();
    let mut random = Random(1);
    let mut accepted = 0;
    for at in (0..blob.len()).step_by(if cfg!(miri) { 211 } else { 1 }) {
        let before = blob[at];
        for value in [0, 0xff, before ^ 0x81] {
            blob[at] = value;
            reseal(&mut blob);
            accepted += use_it(&blob, &mut random) as u32;
        }
        blob[at] = before;
    }
    assert!(accepted as usize > blob.len(), "weights may be any, but only {accepted} were read");
}

#[test]
fn bytes_may_be_changed_together() {
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..if cfg!(miri) { 5 } else { 6000 } {
        let mut random = Random(seed);
        let recipe = Recipe { wild: seed % 3 == 0, seed: seed % 7, ..complete() };
        let mut blob = recipe.build();
        let header_len = u32::from_le_bytes([blob[12], blob[13], blob[14], blob[15]]);
        // Anywhere, in the header, or in its first fields.
        let reach = [blob.len() as u32, PREAMBLE_LEN as u32 + header_len, 60][seed as usize % 3];
        for _ in 0..1 + random.below(6) {
            let at = random.below(reach) as usize;
            blob[at] = match random.below(4) {
                0 => random.next() as u8,
                1 => blob[at].wrapping_add(1),
                2 => [0, 1, 0x7f, 0x80, 0xff][random.below(5) as usize],
                _ => blob[random.below(reach) as usize],
            };
        }
        if random.below(4) == 0 {
            blob.truncate(random.below(blob.len() as u32) as usize);
            let len = blob.len() as u32;
            if let Some(field) = blob.get_mut(16..20) {
                field.copy_from_slice(&len.to_le_bytes());
            }
        }
        if random.below(8) != 0 && blob.len() >= 12 {
            blob[..8].copy_from_slice(&MAGIC);
            blob[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        }
        reseal(&mut blob);
        *(if use_it(&blob, &mut random) { &mut accepted } else { &mut refused }) += 1;
    }
    let enough = if cfg!(miri) { 0 } else { 500 };
    assert!(accepted > enough && refused > enough, "{accepted} accepted, {refused} refused");
}

/// Whole models with numbers of every magnitude that a blob can hold.
#[test]
fn wild_numbers_are_computed_with() {
    for seed in 0..if cfg!(miri) { 2 } else { 400 } {
        let recipe = Recipe { wild: true, seed, ..complete() };
        assert!(use_it(&recipe.build(), &mut Random(seed)));
    }
}

#[test]
fn an_empty_matrix_list_is_not_a_model() {
    assert!(complete().dims.tensors().any(|id| id == TensorId::PositionEmbedding));
    let blob = complete().build();
    let mut parts = Parts::new(&blob);
    parts.records.clear();
    assert_eq!(error(&parts.seal()), Error::Header);
}
