//! Compressed messages with a whole model: they come back, and whatever else comes is refused.

use std::sync::LazyLock;

use proptest::prelude::*;
use resnet_bk_core::blob::{Block, Dimensions};
use resnet_bk_core::coder::{Check, Framing, Start};
use resnet_bk_core::{Codec, Error, Generator, MessageProblem, Model, Sampler, Session};

use crate::blob::{Recipe, small};

/// A model with a tokenizer, of weights so large that it is sure of what comes next.
static BLOB: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let block = Block::Gated { channels: 24 };
    let dims = Dimensions { vocab: 272, width: 7, potentials: 4, block, ..small().dims };
    Recipe { dims, merges: Some(16), wild: true, seed: 120, ..small() }.build()
});
/// The longest message here.
const LONGEST: usize = 300;
const CASES: u32 = if cfg!(miri) { 2 } else { 200 };

/// What the model expects, and a byte that it does not.
static TEXT: LazyLock<Vec<u8>> =
    LazyLock::new(|| [likely(12, 1), vec![0xff], likely(12, 2)].concat());

fn session() -> Session<'static, Vec<u32>> {
    let model = Model::from_bytes(&BLOB).unwrap();
    let memory = vec![0; model.dims().session_words()];
    Session::new(model, memory).unwrap()
}

/// Text as the model writes it.
fn likely(tokens: usize, seed: u64) -> Vec<u8> {
    let session = session();
    let tokenizer = session.model().tokenizer().unwrap();
    let sampler = Sampler::builder().temperature(1.0).seed(seed).build().unwrap();
    let mut generator = Generator::new(session, sampler).limit(tokens);
    let (mut text, mut first) = (b"a".to_vec(), [0]);
    tokenizer.encode(&text, &mut first).unwrap();
    generator.feed(&first).unwrap();
    for token in generator {
        tokenizer.decode(token.unwrap(), |byte| text.push(byte)).unwrap();
    }
    text
}

fn codec(tokens: &mut [u32], framing: Framing) -> Codec<'static, '_, Vec<u32>> {
    Codec::new(session(), tokens, framing).unwrap()
}

#[test]
fn what_the_model_expects_becomes_short() {
    let mut tokens = [0; LONGEST];
    let mut codec = codec(&mut tokens, Framing::default());
    for seed in 0..20 {
        let text = likely(80, seed);
        let mut sent = vec![0; codec.longest(text.len())];
        let len = codec.compress(&text, Start::Fresh, &mut sent).unwrap();
        assert!(2 * len < text.len(), "{len} bytes for {}", text.len());
    }
}

fn framings() -> impl Strategy<Value = Framing> {
    let checks = [Check::None, Check::Bits8, Check::Bits16, Check::Bits32];
    let check = prop::sample::select(checks.to_vec());
    (any::<bool>(), check).prop_map(|(identity, check)| Framing { identity, check })
}

/// Text that the model expects, and any bytes.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..LONGEST),
        (0usize..60, any::<u64>()).prop_map(|(tokens, seed)| likely(tokens, seed)),
        (0usize..60, any::<u64>(), any::<u8>()).prop_map(|(tokens, seed, byte)| {
            let text = likely(tokens, seed);
            [&text, &[byte][..], &text].concat()
        }),
        (any::<u8>(), 0..LONGEST).prop_map(|(byte, count)| vec![byte; count]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn messages_come_back(
        texts in prop::collection::vec(messages(), 1..4),
        framing in framings(),
        carried in any::<bool>(),
    ) {
        let (mut ours, mut theirs) = ([0; LONGEST], [0; LONGEST]);
        let (mut sender, mut receiver) = (codec(&mut ours, framing), codec(&mut theirs, framing));
        let start = if carried { Start::Carried } else { Start::Fresh };
        for text in texts {
            let mut sent = vec![0xaa; sender.longest(text.len())];
            let len = sender.compress(&text, start, &mut sent).unwrap();
            prop_assert!(len <= text.len() + 1 + framing.bytes());
            // A buffer that is just long enough gives the same.
            if !carried {
                let mut exact = vec![0x55; len];
                prop_assert_eq!(sender.compress(&text, start, &mut exact), Ok(len));
                prop_assert_eq!(&exact, &sent[..len]);
            }
            let mut read = vec![0xaa; text.len()];
            prop_assert_eq!(receiver.decompress(&sent[..len], start, &mut read), Ok(text.len()));
            prop_assert_eq!(read, text);
        }
    }

    /// Any bytes end within the bound of the output.
    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        framing in framings(),
        room in 0usize..200,
    ) {
        let (mut tokens, mut text) = ([0; LONGEST], vec![0; room]);
        let mut codec = codec(&mut tokens, framing);
        match codec.decompress(&bytes, Start::Fresh, &mut text) {
            Ok(len) => {
                let mut again = vec![0; codec.longest(len)];
                let sent = codec.compress(&text[..len], Start::Fresh, &mut again).unwrap();
                // Other tokens can have the same text, but not with fewer bytes.
                prop_assert!(sent <= bytes.len().max(len + 1 + framing.bytes()));
            }
            Err(Error::Message(_) | Error::Buffer { .. }) => {}
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}

#[test]
fn damage_is_refused() {
    let framing = Framing { identity: true, check: Check::Bits16 };
    let mut tokens = [0; LONGEST];
    let mut codec = codec(&mut tokens, framing);
    let (mut sent, mut text) = ([0; LONGEST], [0; LONGEST]);
    let len = codec.compress(&TEXT, Start::Fresh, &mut sent).unwrap();
    for bit in 0..8 * len {
        sent[bit / 8] ^= 1 << (bit % 8);
        let result = codec.decompress(&sent[..len], Start::Fresh, &mut text);
        let refused = matches!(result, Err(Error::Message(_) | Error::Buffer { .. }));
        assert!(refused, "bit {bit}: {result:?}");
        if bit < 16 {
            let model = |problem| matches!(problem, MessageProblem::Model { .. });
            assert!(matches!(result, Err(Error::Message(problem)) if model(problem)));
        }
        sent[bit / 8] ^= 1 << (bit % 8);
    }
    for len in 0..len {
        assert!(codec.decompress(&sent[..len], Start::Fresh, &mut text).is_err());
    }
    let short = codec.decompress(&sent[..3], Start::Fresh, &mut text);
    assert_eq!(short, Err(Error::Message(MessageProblem::Truncated)));
    assert_eq!(codec.decompress(&sent[..len], Start::Fresh, &mut text), Ok(TEXT.len()));
}

/// A message that was lost shows in the check of the next one.
#[test]
fn a_lost_message_is_noticed() {
    let framing = Framing { identity: false, check: Check::Bits32 };
    let (mut ours, mut theirs) = ([0; LONGEST], [0; LONGEST]);
    let (mut sender, mut receiver) = (codec(&mut ours, framing), codec(&mut theirs, framing));
    let (mut sent, mut text) = ([0; LONGEST], [0; LONGEST]);
    // Of no tokens, so that the state alone would not tell.
    sender.compress(b"", Start::Carried, &mut sent).unwrap();
    let len = sender.compress(&TEXT, Start::Carried, &mut sent).unwrap();
    let result = receiver.decompress(&sent[..len], Start::Carried, &mut text);
    assert_eq!(result, Err(Error::Message(MessageProblem::Check)));
    // Both start afresh.
    let len = sender.compress(&TEXT, Start::Fresh, &mut sent).unwrap();
    assert_eq!(receiver.decompress(&sent[..len], Start::Fresh, &mut text), Ok(TEXT.len()));
}

#[test]
fn a_primed_state_is_that_of_the_text_before() {
    let (mut ours, mut theirs) = ([0; LONGEST], [0; LONGEST]);
    let (framing, before) = (Framing::default(), likely(9, 3));
    let mut snapshot = vec![0; 4096];
    let mut first = codec(&mut ours, framing);
    first.read(&before).unwrap();
    let len = first.snapshot(&mut snapshot).unwrap();
    assert_eq!(len, first.snapshot_len());
    snapshot.truncate(len);
    let primed = Start::Primed(&snapshot);
    let (mut sender, mut receiver) = (codec(&mut ours, framing), codec(&mut theirs, framing));
    let (mut sent, mut text) = ([0; LONGEST], [0; LONGEST]);
    let len = sender.compress(&TEXT, primed, &mut sent).unwrap();
    assert_eq!(receiver.decompress(&sent[..len], primed, &mut text), Ok(TEXT.len()));
    assert_eq!(text[..TEXT.len()], TEXT[..]);
    let fresh = sender.compress(&TEXT, Start::Fresh, &mut text).unwrap();
    assert_ne!(sent[..len], text[..fresh]);
    // Whoever reads the text before has the same state.
    receiver.decompress(&[], Start::Fresh, &mut text).unwrap();
    receiver.read(&before).unwrap();
    assert_eq!(receiver.decompress(&sent[..len], Start::Carried, &mut text), Ok(TEXT.len()));
    for broken in [&snapshot[1..], &snapshot[..3], &[9; 4], &[]] {
        let broken = receiver.decompress(&sent[..len], Start::Primed(broken), &mut text);
        assert!(matches!(broken, Err(Error::Snapshot(_))));
    }
}

#[test]
fn short_buffers_are_refused() {
    let mut tokens = vec![0; TEXT.len()];
    let mut codec = codec(&mut tokens, Framing { identity: true, check: Check::Bits32 });
    let mut sent = [0; LONGEST];
    let long = codec.compress(&[&TEXT[..], b"a"].concat(), Start::Fresh, &mut sent);
    assert_eq!(long, Err(Error::Buffer { needed: TEXT.len() + 1, given: TEXT.len() }));
    let len = codec.compress(&TEXT, Start::Fresh, &mut sent).unwrap();
    for room in 0..len {
        let result = codec.compress(&TEXT, Start::Fresh, &mut vec![0; room]);
        assert!(matches!(result, Err(Error::Buffer { given, .. }) if given == room), "{result:?}");
    }
    for room in 0..TEXT.len() {
        let result = codec.decompress(&sent[..len], Start::Fresh, &mut vec![0; room]);
        assert!(matches!(result, Err(Error::Buffer { given, .. }) if given == room), "{result:?}");
    }
}

/// The messages of the firmware, which lie beside it with their bytes, under every kernel of this
/// processor: devices write and read the same (`tests/tests/device.rs`).
#[test]
#[cfg_attr(miri, ignore = "too slow, and reads files")]
fn messages_of_the_shipped_model_are_the_same_bytes() {
    let read = |file: &str| {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        std::fs::read(root.join(file)).unwrap()
    };
    let text = |file| String::from_utf8(read(file)).unwrap();
    let blob = read("models/wikitext2/model.rbk");
    let (messages, codes) =
        (text("firmware-example/messages.txt"), text("firmware-example/messages.hex"));
    let compare = || {
        let model = Model::from_bytes(&blob).unwrap();
        let memory = vec![0; model.dims().session_words()];
        let framing = Framing { identity: true, check: Check::Bits16 };
        let (mut tokens, mut sent) = ([0; LONGEST], [0; LONGEST]);
        let session = Session::new(model, memory).unwrap();
        let mut codec = Codec::new(session, &mut tokens, framing).unwrap();
        for (message, code) in messages.lines().zip(codes.lines()) {
            let len = codec.compress(message.as_bytes(), Start::Fresh, &mut sent).unwrap();
            let digits: String = sent[..len].iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digits, code, "{message}");
            let mut read = [0; LONGEST];
            let read_len = codec.decompress(&sent[..len], Start::Fresh, &mut read).unwrap();
            assert_eq!(&read[..read_len], message.as_bytes());
        }
    };
    assert_eq!(messages.lines().count(), codes.lines().count());
    compare();
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    {
        use resnet_bk_core::internals::HostKernels;
        for kernels in [HostKernels::Portable, HostKernels::Avx2, HostKernels::Vnni] {
            if kernels.select() {
                compare();
            }
        }
        HostKernels::Chosen.select();
    }
}
