//! Compile-time reading of dimensions agrees with postcard for any header and any bytes.

use proptest::prelude::*;
use resnet_bk_core::blob::{
    Block, Chain, Dimensions, FORMAT_VERSION, Limits, PREAMBLE_LEN, Preamble,
};
use resnet_bk_core::{Error, Model};

use crate::blob::seal_bytes;
use crate::golden;

/// Evaluated at compile time, as in firmware.
const DIMS: Dimensions = match Dimensions::of_blob(include_bytes!("../golden/v3/half-classes.rbk"))
{
    Ok(dims) => dims,
    Err(_) => panic!("the golden blob has no dimensions"),
};
static MEMORY: [u32; DIMS.session_words()] = [0; DIMS.session_words()];

#[test]
fn a_constant_has_the_dimensions_of_the_model() {
    let blob = include_bytes!("../golden/v3/half-classes.rbk");
    assert_eq!(Model::from_bytes(blob).unwrap().dims(), &DIMS);
    assert_eq!(MEMORY.len(), DIMS.session_words());
}

#[test]
fn golden_blobs_have_the_dimensions_that_the_reader_finds() {
    for golden in golden::all() {
        let (name, blob) = (golden.name, golden.bytes);
        let model = Model::from_bytes(blob).unwrap();
        assert_eq!(Dimensions::of_blob(blob).as_ref(), Ok(model.dims()), "{name}");
        // The prefix suffices, and anything shorter than the fields fails.
        let prefix = &blob[..Dimensions::PREFIX.min(blob.len())];
        assert_eq!(Dimensions::of_blob(prefix).as_ref(), Ok(model.dims()), "{name}");
        let fields = PREAMBLE_LEN + encode(model.dims()).len();
        for len in 0..fields {
            let refused = Dimensions::of_blob(&blob[..len]);
            let needed = if len < PREAMBLE_LEN { PREAMBLE_LEN } else { len + 1 };
            assert_eq!(refused, Err(Error::Truncated { needed, given: len }), "{name}");
        }
        assert_eq!(Dimensions::of_blob(&blob[..fields]).as_ref(), Ok(model.dims()), "{name}");
    }
}

#[test]
fn other_files_and_versions_are_refused() {
    assert_eq!(
        Dimensions::of_blob(b"ResNetBQ and more than thirty-two bytes"),
        Err(Error::NotABlob)
    );
    assert_eq!(Dimensions::of_blob(b"R"), Err(Error::Truncated { needed: 32, given: 1 }));
    let mut blob = include_bytes!("../golden/v3/half-int4.rbk").to_vec();
    blob[8] = 7;
    let supported = FORMAT_VERSION;
    assert_eq!(Dimensions::of_blob(&blob), Err(Error::Version { found: 7, supported }));
}

fn encode(dims: &Dimensions) -> Vec<u8> {
    let mut buffer = [0; 64];
    postcard::to_slice(dims, &mut buffer).unwrap().to_vec()
}

/// Reference: decoding by postcard, then validation.
fn reference(header: &[u8]) -> Result<Dimensions, Error> {
    let (dims, _): (Dimensions, _) =
        postcard::take_from_bytes(header).map_err(|_| Error::Header)?;
    dims.validate()?;
    Ok(dims)
}

/// [`Dimensions::of_blob`] of a blob with this header; maps truncation to [`Error::Header`].
fn of_header(header: &[u8]) -> Result<Dimensions, Error> {
    let preamble = Preamble { header_len: header.len() as u32, total_len: 0 };
    let blob = [&preamble.to_bytes()[..], header].concat();
    Dimensions::of_blob(&blob).map_err(|error| match error {
        Error::Truncated { .. } => Error::Header,
        error => error,
    })
}

fn dimensions() -> impl Strategy<Value = Dimensions> {
    // Varints of every length, within the limits or beyond.
    let size = |limit: u32| prop_oneof![4 => 0..=limit, 1 => any::<u32>(), 1 => Just(limit)];
    let sizes = (size(Limits::VOCAB), size(Limits::WIDTH), size(Limits::LAYERS));
    let experts = (size(Limits::EXPERTS), size(Limits::EXPERTS), size(Limits::HIDDEN));
    let rest = (size(Limits::POTENTIALS), size(Limits::POSITIONS), size(4), any::<bool>());
    let channels = prop_oneof![Just(None), size(Limits::CHANNELS).prop_map(Some)];
    (sizes, experts, rest, channels).prop_map(
        |(
            (vocab, width, layers),
            (experts, top_k, hidden),
            (potentials, positions, classes, full),
            channels,
        )| {
            let chain = if full { Chain::Full } else { Chain::Half };
            Dimensions {
                vocab,
                width,
                layers,
                experts,
                top_k,
                hidden,
                potentials,
                positions,
                token_classes: classes,
                chain,
                block: channels.map_or(Block::Resolvent, |channels| Block::Gated { channels }),
            }
        },
    )
}

proptest! {
    #[test]
    fn any_dimensions_are_read_as_postcard_reads_them(
        dims in dimensions(), behind in any::<[u8; 8]>(),
    ) {
        let header = [&encode(&dims)[..], &behind].concat();
        let expected = dims.validate().map(|()| dims);
        prop_assert_eq!(of_header(&header), expected);
        prop_assert_eq!(reference(&header), expected);
        // A header that ends within the dimensions is refused, whatever bytes follow it.
        let blob = seal_bytes(&encode(&dims), &[]);
        let mut short = blob.clone();
        short[12..16].copy_from_slice(&(encode(&dims).len() as u32 - 1).to_le_bytes());
        prop_assert_eq!(Dimensions::of_blob(&blob), expected);
        prop_assert_eq!(Dimensions::of_blob(&short), Err(Error::Header));
    }

    #[test]
    fn any_bytes_are_read_as_postcard_reads_them(
        header in prop::collection::vec(
            prop_oneof![any::<u8>(), 0u8..4, 0x7eu8..0x82, 0xf0u8..], 0..60,
        ),
    ) {
        prop_assert_eq!(of_header(&header), reference(&header));
    }
}
