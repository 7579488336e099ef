//! Files of token ids, for models without a tokenizer: a one-dimensional `.npy` of integers, or
//! bare little-endian numbers.

use std::path::Path;

use crate::error::{Error, Result};
use crate::files;
pub use bare::TokenType;

mod bare;
mod npy;
mod refusal;

/// Endings of files of token ids.
pub const EXTENSIONS: [&str; 4] = ["npy", "u16", "u32", "bin"];

/// The ending of a file of token ids.
fn extension(path: &Path) -> Option<&'static str> {
    let found = path.extension()?.to_str()?;
    EXTENSIONS.into_iter().find(|known| found.eq_ignore_ascii_case(known))
}

/// Whether a file has token ids, by its ending.
pub fn is_token_file(path: &Path) -> bool {
    extension(path).is_some()
}

/// Reads a file of token ids; `width` says how wide they are in a `.bin`, which does not say so
/// itself.
///
/// # Errors
/// [`Error::TokenFile`] with the reason and a remedy.
pub fn read(path: &Path, width: Option<TokenType>) -> Result<Vec<u32>> {
    let bytes = files::read(path)?;
    let refuse = |(reason, remedy)| {
        let path = path.to_path_buf();
        Error::TokenFile { path, reason, remedy }
    };
    let width = match extension(path) {
        Some("npy") => return npy::parse(&bytes, path).map_err(refuse),
        Some("u16") => TokenType::U16,
        Some("u32") => TokenType::U32,
        _ => width.ok_or_else(|| {
            refuse((
                "its name does not say how wide its tokens are".into(),
                "add --token-type u16 or --token-type u32".into(),
            ))
        })?,
    };
    bare::parse(&bytes, width, path).map_err(refuse)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (directory, path)
    }

    #[test]
    fn bare_numbers_are_as_wide_as_the_name_or_a_flag_says() {
        let bytes = [1, 0, 0xff, 0xff, 2, 1, 0, 0];
        for (name, width, tokens) in [
            ("x.u16", None, &[1, 0xffff, 0x102, 0][..]),
            ("x.U32", None, &[0xffff_0001, 0x102]),
            ("x.bin", Some(TokenType::U16), &[1, 0xffff, 0x102, 0]),
            ("x.bin", Some(TokenType::U32), &[0xffff_0001, 0x102]),
            // The name knows better.
            ("x.u16", Some(TokenType::U32), &[1, 0xffff, 0x102, 0]),
        ] {
            let (_place, path) = written(name, &bytes);
            assert_eq!(read(&path, width).unwrap(), tokens, "{name}");
        }
        assert!(is_token_file(Path::new("a/b.Npy")) && !is_token_file(Path::new("npy")));
    }

    #[test]
    fn what_has_no_tokens_is_refused_with_a_remedy() {
        for (name, width, bytes, cause, command) in [
            ("x.bin", None, &[0; 4][..], "how wide", "--token-type u16"),
            ("x.u32", None, &[0; 6], "6 bytes are no whole number of tokens of 4", "as u16"),
            ("x.bin", Some(TokenType::U16), &[0; 3], "3 bytes", "as u32"),
            ("x.u16", None, &[], "it is empty", "np.save("),
            ("x.npy", None, &[1, 2], "not a .npy file", "np.save("),
        ] {
            let (_place, path) = written(name, bytes);
            let error = read(&path, width).unwrap_err();
            assert!(error.to_string().contains(cause), "{name}: {error}");
            assert!(error.to_string().contains(name), "{name}: {error}");
            assert!(error.help().contains(command), "{name}: {}", error.help());
        }
    }
}
