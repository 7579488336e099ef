//! Conversion of the prompt to tokens, and of tokens to text.

use resnet_bk_core::{Error, Model};

use crate::settings::PROMPT;

/// Capacity for the prompt's tokens: encoding starts with a token per byte.
pub type Buffer = [u32; PROMPT.len()];

/// Tokenizes the prompt; without a tokenizer that encodes it must be token ids such as `1 2 3`.
///
/// # Errors
///
/// [`Error::NoTokenizer`] for text instead of token ids.
pub fn encode<'a>(model: &Model<'_>, buffer: &'a mut Buffer) -> Result<&'a [u32], Error> {
    let count = match model.tokenizer() {
        Ok(tokenizer) if tokenizer.rule().is_some() => {
            defmt::println!("prompt {=[u8]:a}", PROMPT.as_bytes());
            tokenizer.encode(PROMPT.as_bytes(), buffer)?
        }
        _ => {
            let mut count = 0;
            for number in PROMPT.split([',', ' ']).filter(|number| !number.is_empty()) {
                buffer[count] = number.parse().map_err(|_| Error::NoTokenizer)?;
                count += 1;
            }
            count
        }
    };
    if count == 0 { Err(Error::NoTokenizer) } else { Ok(&buffer[..count]) }
}

/// Tokenizes the stop text; without a tokenizer that encodes it must be a token id. `buffer` must
/// have room for a token per byte.
///
/// # Errors
///
/// [`Error::Buffer`] unless the text is exactly one token; [`Error::NoTokenizer`] for text instead
/// of a token id.
pub fn stop<'a>(model: &Model<'_>, text: &str, buffer: &'a mut [u32]) -> Result<&'a [u32], Error> {
    let count = match model.tokenizer() {
        Ok(tokenizer) if tokenizer.rule().is_some() => tokenizer.encode(text.as_bytes(), buffer)?,
        _ => {
            buffer[0] = text.parse().map_err(|_| Error::NoTokenizer)?;
            1
        }
    };
    if count != 1 {
        defmt::error!("RESNET_BK_STOP is {=usize} tokens, but must be one", count);
        return Err(Error::Buffer { needed: count, given: 1 });
    }
    Ok(&buffer[..1])
}

/// Prints a piece of generated text.
pub fn print(text: &str) {
    defmt::println!("text {=[u8]:a}", text.as_bytes());
}
