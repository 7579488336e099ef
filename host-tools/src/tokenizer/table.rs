//! The bytes of every token of a tokenizer whose decoder only joins them.

use tokenizers::{Decoder, DecoderWrapper};

use super::vocabulary;

/// A token on its way through the decoders.
enum Piece {
    Text(String),
    /// Bytes that no later decoder changes.
    Bytes(Vec<u8>),
}

/// The bytes of each token by number; none for numbers without a token. A space that a decoder
/// takes off the beginning of a text is kept: it belongs there wherever a text goes on.
///
/// # Errors
/// Why the bytes of a text are not those of its tokens.
pub(super) fn table(inner: &tokenizers::Tokenizer) -> Result<Vec<Vec<u8>>, String> {
    let decoders = match inner.get_decoder() {
        None => {
            return Err("its `decoder` is null, which puts a space between tokens".into());
        }
        Some(DecoderWrapper::Sequence(all)) => all.get_decoders(),
        Some(one) => std::slice::from_ref(one),
    };
    let vocab = inner.get_vocab(true);
    let count = vocab.values().max().map_or(0, |&token| token as usize + 1);
    let mut table = vec![Vec::new(); count];
    for (text, token) in vocab {
        let mut piece = Piece::Text(text);
        // What follows sees the whole text as one token.
        let mut fused = false;
        for decoder in decoders {
            piece = match piece {
                Piece::Text(text) => decoded(decoder, text, &mut fused)?,
                bytes => bytes,
            };
        }
        table[token as usize] = match piece {
            Piece::Text(text) => text.into_bytes(),
            Piece::Bytes(bytes) => bytes,
        };
    }
    Ok(table)
}

/// What a decoder makes of a token inside a text.
fn decoded(decoder: &DecoderWrapper, text: String, fused: &mut bool) -> Result<Piece, String> {
    let text = match decoder {
        DecoderWrapper::ByteLevel(_) => {
            let bytes = vocabulary::bytes(&text).unwrap_or_else(|| text.into_bytes());
            return Ok(Piece::Bytes(bytes));
        }
        DecoderWrapper::ByteFallback(_) => {
            let byte = (text.len() == 6).then(|| text.strip_prefix("<0x")?.strip_suffix('>'));
            let byte = byte.flatten().and_then(|digits| u8::from_str_radix(digits, 16).ok());
            return Ok(byte.map_or(Piece::Text(text), |byte| Piece::Bytes(vec![byte])));
        }
        DecoderWrapper::Metaspace(of) => text.replace(of.get_replacement(), " "),
        DecoderWrapper::BPE(of) => text.replace(&of.suffix, " "),
        DecoderWrapper::Fuse(_) => {
            *fused = true;
            text
        }
        // It cuts the ends of the whole text.
        DecoderWrapper::Strip(_) if *fused => text,
        DecoderWrapper::Strip(_) | DecoderWrapper::Replace(_) if !*fused => {
            let one = decoder.decode_chain(vec![text]).map_err(|error| error.to_string())?;
            one.concat()
        }
        other => {
            let name = serde_json::to_value(other).unwrap_or_default();
            let name = name["type"].as_str().unwrap_or("of a sequence").to_owned();
            return Err(format!(
                "its `decoder` {name} makes more of tokens than to join their bytes"
            ));
        }
    };
    Ok(Piece::Text(text))
}
