//! From the prompt to tokens, and from tokens to text.

use resnet_bk_core::{Error, Model, Tokenizer};

use crate::settings::PROMPT;

/// Room for the prompt's tokens: encoding starts from a token per byte.
pub type Buffer = [u16; PROMPT.len()];

/// The prompt's tokens, by the blob's tokenizer, or numbers such as `1 2 3` where it has none.
///
/// # Errors
///
/// [`Error::NoTokenizer`] for text where numbers are needed.
pub fn encode<'a>(model: &Model<'_>, buffer: &'a mut Buffer) -> Result<&'a [u16], Error> {
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

/// Prints a token's number and, a few bytes at a time, its text.
pub fn print(tokenizer: Option<Tokenizer<'_>>, token: u32) {
    defmt::println!("token {=u32}", token);
    let Some(tokenizer) = tokenizer else { return };
    let mut bytes = [0; 32];
    let mut len = 0;
    // A token that the tokenizer does not know has no text.
    let _ = tokenizer.decode(token, |byte| {
        if len == bytes.len() {
            defmt::println!("text {=[u8]:a}", bytes);
            len = 0;
        }
        bytes[len] = byte;
        len += 1;
    });
    defmt::println!("text {=[u8]:a}", bytes[..len]);
}
