//! Golden blobs: they must load as long as their format version is supported, and give the same
//! logits.
//!
//! A digest is CRC-32C over the logits as little-endian halves, position after position. A changed
//! digest is a change of the number contract: devices in the field would disagree with their hosts.
//! After an intended change, or for a new format version, run
//!
//! ```text
//! cargo test -p resnet-bk-core --test suite -- --ignored write_golden_blobs --nocapture
//! ```
//!
//! to write every blob and print every digest.

use half::f16;
use resnet_bk_core::blob::ChainFormat;
use resnet_bk_core::blob::{Block, Chain, Dimensions, FORMAT_VERSION, Precision};
use resnet_bk_core::{Generator, Model, Sampler, Scorer, Session, Tokenizer};

use crate::blob::{Mix, Recipe, small};
use crate::inference::{Bits, score, stream, tokens};
#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
use crate::subnormals::in_every_setting;

pub(crate) struct Golden {
    pub(crate) name: &'static str,
    pub(crate) bytes: &'static [u8],
    recipe: Recipe,
    /// Digest of the logits of 32 tokens in a session, or of two windows of 16 for a full chain.
    digest: u32,
}

/// A golden blob by name, with its digest.
macro_rules! golden {
    ($name:literal, $digest:literal, $recipe:expr) => {
        Golden {
            name: $name,
            bytes: include_bytes!(concat!("../golden/v3/", $name, ".rbk")),
            recipe: $recipe,
            digest: $digest,
        }
    };
}

pub(crate) fn all() -> [Golden; 10] {
    let dims = small().dims;
    let wide = Dimensions { width: 32, hidden: 64, layers: 1, experts: 2, top_k: 1, ..dims };
    let text = Dimensions { vocab: 272, width: 7, hidden: 13, potentials: 5, ..dims };
    let single = Dimensions { layers: 1, ..dims };
    let published = Dimensions {
        width: 24,
        hidden: 48,
        layers: 1,
        experts: 2,
        potentials: 1,
        positions: 16,
        chain: Chain::Full,
        ..dims
    };
    let block = Block::Gated { channels: 24 };
    let thin = Dimensions { experts: 1, top_k: 1, hidden: 0, block, ..dims };
    let experts = Dimensions { block, ..dims };
    let q27 = ChainFormat { frac: 27, off_diagonal: 1 << 16, int8: true };
    let q15 = ChainFormat { frac: 15, off_diagonal: 50_000, int8: false };
    [
        golden!(
            "half-mixed",
            0x3755_801d,
            Recipe { dims: text, merges: Some(16), seed: 101, ..small() }
        ),
        golden!(
            "half-int4",
            0x4338_df8a,
            Recipe { dims: wide, mix: Mix::All(Precision::Int4), seed: 102, ..small() }
        ),
        golden!(
            "half-fp16",
            0x8a8c_2ff4,
            Recipe {
                dims: single,
                mix: Mix::All(Precision::Fp16),
                chain: q15,
                seed: 103,
                ..small()
            }
        ),
        golden!(
            "full-int8",
            0xf6b4_47f9,
            Recipe {
                dims: published,
                mix: Mix::All(Precision::Int8),
                chain: q27,
                seed: 104,
                ..small()
            }
        ),
        golden!(
            "half-planes",
            0xa157_750c,
            Recipe { dims, mix: Mix::Planes, seed: 106, ..small() }
        ),
        golden!(
            "half-classes",
            0xfce7_ab9b,
            Recipe {
                dims: Dimensions { token_classes: 3, ..dims },
                smaller_experts: true,
                mix: Mix::Planes,
                seed: 107,
                ..small()
            }
        ),
        golden!("half-wild", 0xe07d_ac18, Recipe { wild: true, seed: 105, ..small() }),
        golden!(
            "gated-int8",
            0x56ac_3549,
            Recipe { dims: thin, mix: Mix::All(Precision::Int8), seed: 108, ..small() }
        ),
        golden!("gated-experts", 0x0898_fc1b, Recipe { dims: experts, seed: 109, ..small() }),
        golden!(
            "gated-planes",
            0x41a5_b741,
            Recipe {
                dims: Dimensions { token_classes: 2, ..experts },
                smaller_experts: true,
                mix: Mix::Planes,
                seed: 110,
                ..small()
            }
        ),
    ]
}

fn digest(logits: &Bits) -> u32 {
    let bytes: Vec<u8> = logits.iter().flatten().flat_map(|bits| bits.to_le_bytes()).collect();
    crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(&bytes)
}

/// Logits of the golden tokens; in windows of 16 for a full chain.
fn logits(model: &Model<'_>) -> Bits {
    let tokens = tokens(32, model.dims().vocab, 7);
    if model.is_causal() {
        stream(model, &tokens)
    } else {
        tokens.chunks(16).flat_map(|window| score(model, window, 5)).collect()
    }
}

#[test]
fn golden_blobs_load_and_give_their_logits() {
    for golden in all() {
        let model = Model::from_bytes(golden.bytes).unwrap();
        let logits = logits(&model);
        let digest = digest(&logits);
        assert_eq!(digest, golden.digest, "{}: {digest:#010x}", golden.name);
        if model.is_causal() {
            let tokens = tokens(32, model.dims().vocab, 7);
            assert_eq!(score(&model, &tokens, 6), logits, "{}", golden.name);
        }
    }
}

/// No float operation of inference and sampling meets a subnormal number, so the results do not
/// change if the processor flushes subnormals to zero.
#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
#[test]
fn golden_blobs_need_no_subnormal_floats() {
    for golden in all() {
        let model = Model::from_bytes(golden.bytes).unwrap();
        let logits = in_every_setting(golden.name, &|| logits(&model));
        assert_eq!(digest(&logits), golden.digest, "{}", golden.name);
        for temperature in [1e-30, 0.8, 1e30] {
            in_every_setting(golden.name, &|| {
                let sampler = Sampler::builder().temperature(temperature).seed(9);
                let mut sampler = sampler.build().unwrap();
                let halves = logits.iter().map(|bits| bits.iter().map(|&b| f16::from_bits(b)));
                halves.map(|l| sampler.sample(&mut l.collect::<Vec<_>>())).collect::<Vec<_>>()
            });
        }
    }
}

/// The writer still produces the same bytes.
#[test]
fn golden_blobs_are_made_from_their_recipes() {
    for golden in all() {
        assert!(golden.bytes.len() < 10_000, "{} is large for a repository", golden.name);
        assert!(golden.recipe.build() == golden.bytes, "{} has changed", golden.name);
    }
}

const GREEDY: [u32; 17] =
    [0, 168, 161, 161, 161, 161, 161, 161, 161, 161, 161, 161, 161, 161, 161, 161, 161];
const AMONG_FIVE: [u32; 17] =
    [0, 168, 161, 141, 161, 202, 161, 161, 141, 161, 209, 68, 83, 210, 161, 210, 210];
const PENALIZED: [u32; 17] =
    [0, 168, 161, 141, 202, 210, 209, 161, 141, 202, 210, 209, 161, 141, 202, 210, 209];
const AMONG_ALL: [u32; 17] =
    [0, 201, 161, 61, 83, 192, 179, 141, 68, 105, 210, 32, 83, 210, 161, 250, 240];

/// Sampling is part of the number contract: the same text on every machine.
#[test]
fn golden_text() {
    let blob = all()[0].bytes;
    let model = Model::from_bytes(blob).unwrap();
    let words = model.dims().session_words();
    let generate = |mut sampler: Sampler| {
        let mut session = Session::new(model.clone(), vec![0; words]).unwrap();
        let mut text = vec![0u32];
        for i in 0..16 {
            text.push(sampler.sample(session.step(text[i]).unwrap()));
        }
        text
    };
    let builder = Sampler::builder().seed(1234);
    let samplers = [
        (Sampler::greedy(), GREEDY),
        (builder.temperature(0.8).top_k(5).build().unwrap(), AMONG_FIVE),
        (builder.build().unwrap(), AMONG_ALL),
    ];
    for (sampler, expected) in samplers {
        assert_eq!(generate(sampler), expected);
    }
}

/// The same with a repetition penalty.
#[test]
fn golden_penalized_text() {
    let model = Model::from_bytes(all()[0].bytes).unwrap();
    let sampler = Sampler::builder().temperature(0.0).repetition_penalty::<4>(3.0);
    let session = Session::new(model.clone(), vec![0; 4096]).unwrap();
    let mut generator = Generator::new(session, sampler.build().unwrap()).limit(16);
    generator.feed(&PENALIZED[..1]).unwrap();
    let text: Vec<u32> = generator.map(Result::unwrap).collect();
    assert_eq!(text, PENALIZED[1..]);
}

/// Scores are part of the number contract: exact bits of surprisals in nats.
#[test]
fn golden_surprise() {
    let model = Model::from_bytes(all()[0].bytes).unwrap();
    let mut scorer = Scorer::new(Session::new(model.clone(), vec![0; 4096]).unwrap());
    let tokens = tokens(9, model.dims().vocab, 7);
    let nats = tokens.iter().filter_map(|&token| scorer.next(token).unwrap());
    let bits: Vec<u32> = nats.map(f32::to_bits).collect();
    assert_eq!(bits, SURPRISE);
}

const SURPRISE: [u32; 8] = [
    1085300796, 1090225194, 1089701654, 1089567431, 1087214657, 1087152774, 1083498813, 1089635145,
];

/// Decoding of tokens and encoding of text.
#[test]
fn golden_tokens() {
    let model = Model::from_bytes(all()[0].bytes).unwrap();
    let tokenizer: Tokenizer<'_> = model.tokenizer().unwrap();
    let mut tokens = [0; 80];
    // The text is that of every merge, each followed by a space.
    let mut text = Vec::new();
    for token in 256..272 {
        tokenizer.decode(token, |byte| text.push(byte)).unwrap();
        text.push(b' ');
    }
    let count = tokenizer.encode(&text, &mut tokens).unwrap();
    let space = 140;
    let expected: Vec<u32> = (256..272).flat_map(|token| [token, space]).collect();
    assert_eq!(tokens[..count], expected);
}

#[test]
#[ignore = "writes files: only for blobs of a new format version or a change of the contract"]
fn write_golden_blobs() {
    for golden in all() {
        let folder = format!("{}/tests/golden/v{FORMAT_VERSION}", env!("CARGO_MANIFEST_DIR"));
        let path = std::path::Path::new(&folder).join(golden.name).with_extension("rbk");
        std::fs::create_dir_all(&folder).unwrap();
        let blob = golden.recipe.build();
        std::fs::write(&path, &blob).unwrap();
        let model = Model::from_bytes(&blob).unwrap();
        let logits = logits(&model);
        let largest = logits.iter().flatten().map(|&b| f16::from_bits(b).to_f32().abs());
        println!(
            "{}: {} bytes, digest {:#010x}, largest logit {}",
            golden.name,
            blob.len(),
            digest(&logits),
            largest.fold(0.0, f32::max),
        );
    }
}
