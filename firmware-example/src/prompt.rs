//! From the prompt to tokens, and from tokens to text.

use resnet_bk_core::{Error, Model};

use crate::settings::PROMPT;

/// Room for the prompt's tokens: encoding starts from a token per byte.
pub type Buffer = [u32; PROMPT.len()];

/// The prompt's tokens, by the blob's tokenizer, or numbers such as `1 2 3` where it has none.
///
/// # Errors
///
/// [`Error::NoTokenizer`] for text where numbers are needed.
pub fn encode<'a>(model: &Model<'_>, buffer: &'a mut Buffer) -> Result<&'a [u32], Error> {
    let count = match model.tokenizer() {
        Ok(tokenizer) => {
            defmt::println!("prompt {=[u8]:a}", PROMPT.as_bytes());
            tokenizer.encode(PROMPT.as_bytes(), buffer)?
        }
        Err(_) => {
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

/// The token of a text that ends the continuation; a number where the blob has no tokenizer.
/// `buffer` has room for a token per byte.
///
/// # Errors
///
/// [`Error::Buffer`] for a text of several tokens, or none; [`Error::NoTokenizer`] for text where
/// a number is needed.
pub fn stop<'a>(
    model: &Model<'_>,
    text: &str,
    buffer: &'a mut [u32],
) -> Result<&'a [u32], Error> {
    let count = match model.tokenizer() {
        Ok(tokenizer) => tokenizer.encode(text.as_bytes(), buffer)?,
        Err(_) => {
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
