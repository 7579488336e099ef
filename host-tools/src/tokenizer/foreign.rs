//! Files of other programs.

use std::path::Path;

use serde_json::Value;
use tokenizers::{ModelWrapper, PostProcessorWrapper};

use super::library::problem;
use crate::error::{Error, Result};

/// Reads a `tokenizer.json` of any kind; the error says what the file is instead, if that is known.
pub(super) fn read(bytes: &[u8], path: &Path) -> Result<tokenizers::Tokenizer> {
    // It takes some of what a file says for granted.
    let parsed = std::panic::catch_unwind(|| tokenizers::Tokenizer::from_bytes(bytes));
    let parsed = match parsed {
        Ok(parsed) => parsed.map_err(|reason| reason.to_string()),
        Err(_) => Err("it contradicts itself".into()),
    };
    parsed.map_err(|reason| {
        let (problem, remedy) = diagnose(bytes, path, &reason);
        Error::TokenizerFile { path: path.to_path_buf(), problems: vec![problem], remedy }
    })
}

/// Makes it encode whole texts, always in the same way.
pub(super) fn prepare(inner: &mut tokenizers::Tokenizer) -> Result<()> {
    inner.with_truncation(None).map_err(problem)?;
    inner.with_padding(None);
    // It only adds tokens that no text contains, and cuts white space off the places of others.
    inner.with_post_processor(None::<PostProcessorWrapper>);
    if let ModelWrapper::BPE(bpe) = inner.get_model()
        && bpe.dropout.is_some()
    {
        let mut bpe = bpe.clone();
        bpe.dropout = None;
        inner.with_model(bpe);
    }
    Ok(())
}

/// What is wrong with a file that the library does not read, and how to get one that it does.
fn diagnose(bytes: &[u8], path: &Path, reason: &str) -> (String, String) {
    let file = path.display();
    let json = match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(json)) => json,
        Ok(_) => return ("not a JSON object".into(), saved_again(path)),
        Err(_) if path.extension().is_some_and(|e| e == "model") => {
            let remedy = format!(
                "convert it: `python -c \"from transformers import AutoTokenizer as T; \
                 T.from_pretrained('{}').save_pretrained('.')\"` writes a tokenizer.json",
                path.parent().filter(|p| p.as_os_str() != "").unwrap_or(Path::new(".")).display()
            );
            return ("not JSON, but a model of SentencePiece".into(), remedy);
        }
        Err(error) => return (format!("not JSON: {error}"), saved_again(path)),
    };
    if !json.contains_key("model") && json.values().all(Value::is_u64) && !json.is_empty() {
        let remedy = format!(
            "with the merges.txt beside it, `python -c \"from tokenizers import \
             ByteLevelBPETokenizer as T; T('{file}', 'merges.txt').save('tokenizer.json')\"` \
             writes a tokenizer.json"
        );
        return ("a vocabulary alone, without `model`".into(), remedy);
    }
    (format!("the tokenizers library cannot read it: {reason}"), saved_again(path))
}

fn saved_again(path: &Path) -> String {
    format!(
        "pass the tokenizer.json of the model; one of another version of the library may be saved \
         again: `python -c \"from tokenizers import Tokenizer as T; \
         T.from_file('{file}').save('{file}')\"`",
        file = path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_tokenizer_is_called_by_its_name() {
        let refused = |bytes: &[u8], path: &str| match read(bytes, Path::new(path)) {
            Err(Error::TokenizerFile { problems, remedy, .. }) => (problems.join(";"), remedy),
            _ => panic!("{path} was read"),
        };
        for (bytes, path, cause, command) in [
            (
                &b"\x0a\x0e\xff"[..],
                "dir/tokenizer.model",
                "SentencePiece",
                "from_pretrained('dir')",
            ),
            (b"\xff", "x.json", "not JSON", "T.from_file('x.json')"),
            (b"[]", "x.json", "not a JSON object", "from_file"),
            (b"{\"a\":0,\"b\":1}", "vocab.json", "a vocabulary alone", "merges.txt"),
            (b"{}", "x.json", "library cannot read it: ", "from_file"),
            (b"{\"model\":{\"type\":\"New\"}}", "x.json", "cannot read it", "from_file"),
        ] {
            let (problem, remedy) = refused(bytes, path);
            assert!(problem.contains(cause), "{path}: {problem}");
            assert!(remedy.contains(command), "{path}: {remedy}");
        }
    }
}
