//! Remedies for each error.

use super::Error;

impl Error {
    /// How the user can fix it.
    pub fn help(&self) -> String {
        match self {
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::IsADirectory => {
                "name a file, not a directory".into()
            }
            Self::Io { action: "read", .. } => {
                "check that the path is spelled correctly and that you may read it".into()
            }
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                "the disk is full; free some space or write elsewhere (no partial file was left)"
                    .into()
            }
            Self::Io { .. } => {
                "check that the directory exists and that you may write to it".into()
            }
            Self::WrongKind { remedy, .. } => (*remedy).into(),
            Self::Overwrite { .. } => {
                "name another file or directory, or add --force to replace what is there".into()
            }
            Self::ImportanceMissing(path) => format!(
                "check that the path is spelled correctly, or write the file with \
                 `resnet-bk analyze MODEL --out {}`",
                path.display()
            ),
            Self::Memory { .. } => {
                "allow more with --memory, or run it on a machine that has more".into()
            }
            Self::Busy { .. } => "wait until it has ended, or choose another --out".into(),
            Self::OtherSettings { .. } => {
                "repeat those settings, name another file, or measure anew with `analyze --force`"
                    .into()
            }
            Self::Format { kind, .. } => format_help(kind).into(),
            Self::Tensors(_) => {
                "the checkpoint was written for other dimensions or is damaged; export it again \
                 or import it with the matching flags"
                    .into()
            }
            Self::NotFinite { .. } => {
                "the training that wrote it diverged; use an earlier checkpoint or train with a \
                 lower learning rate"
                    .into()
            }
            Self::Config(_) => "correct the dimension that the message names".into(),
            Self::Import { remedy, .. } => remedy.clone(),
            Self::CorpusMissing => {
                "pass --corpus DIR or set WIKITEXT2_DIR to a directory with train.txt, valid.txt \
                 and test.txt"
                    .into()
            }
            Self::SplitMissing { split, .. } => {
                format!("add a UTF-8 text file `{split}.txt` to that directory or name another")
            }
            Self::TextEmpty(_) => "put text into the file or name another".into(),
            Self::TextNotUtf8 { .. } => {
                "convert the file to UTF-8, for example with `iconv -t UTF-8`".into()
            }
            Self::TokenFile { remedy, .. } => remedy.clone(),
            Self::TokenizerMissing { .. } => {
                "pass the tokenizer.json that the model was trained with (--tokenizer FILE), or a \
                 file of token ids in place of the text: `python -c \"import numpy as np; \
                 np.save('text.npy', np.asarray(ids, np.uint32))\"`"
                    .into()
            }
            Self::TextShort { .. } => "use a longer text or a shorter --window".into(),
            Self::Window { positions, .. } => {
                format!("choose a --window of at most {positions}, or leave the flag out")
            }
            Self::Tokenizer(_) => {
                "train a tokenizer with this tool, or pass the tokenizer.json that the model was \
                 trained with"
                    .into()
            }
            Self::TokenizerFile { remedy, .. } => remedy.clone(),
            Self::TokenizerOnDevice(_) => {
                "quantize with --no-tokenizer and give the device token ids, or train a model with \
                 a tokenizer of this tool (`resnet-bk train`)"
                    .into()
            }
            Self::TokenizerMismatch { expected, .. } => format!(
                "pass the tokenizer.json that the model was trained with (--tokenizer), whose \
                 `sha256sum` begins with {}; a blob that contains its tokenizer needs none",
                expected.get(..12).unwrap_or(expected)
            ),
            Self::TokenOutOfRange { .. } => "encode the text with the model's own tokenizer".into(),
            Self::ResumeMismatch { .. } => {
                "repeat the original settings to resume, choose another --out, or add --force to \
                 begin anew"
                    .into()
            }
            Self::Diverged { .. } => "train again with a lower --lr or a longer --warmup".into(),
            Self::Policy(_) => {
                "see `resnet-bk quantize --help` for policies and the format of policy files".into()
            }
            Self::Budget(_) => {
                "allow more bytes, a larger --max-kl or --max-per-mac, or train another model"
                    .into()
            }
            Self::Quantize(_) => {
                "the blob format's limits are in docs/format.md; retrain within them".into()
            }
            Self::WeightTooLarge { .. } => {
                "give the tensor another precision with a policy file, or check the checkpoint"
                    .into()
            }
            Self::Overflow { .. } => {
                "its weights, or those of a layer before it, are too large for FP32: check the \
                 checkpoint with `resnet-bk inspect`, or use an earlier one"
                    .into()
            }
            Self::Singular { .. } => {
                "calibrate on more text (--calibration-tokens), or disable the steps that use \
                 second moments: --without gptq,descent,refit"
                    .into()
            }
            Self::Blob(error) | Self::BlobFile { error, .. } => core_help(error).into(),
            Self::Irreversible => "please report this with the blob and the text".into(),
            Self::Damaged { salvaged: true, .. } => {
                "everything else was written; copy the compressed text again to get all of it"
                    .into()
            }
            Self::Damaged { .. } => {
                "copy it again, or add --salvage to write what can still be read".into()
            }
            Self::Stdout(_) => {
                "free some space or send the output elsewhere; files already written are complete"
                    .into()
            }
            Self::Usage(_) => {
                "correct what the message names; `resnet-bk COMMAND --help` explains each flag"
                    .into()
            }
        }
    }
}

/// Remedy for a file that is not of this kind.
fn format_help(kind: &str) -> &'static str {
    match kind {
        "checkpoint" => "pass a model.safetensors that `resnet-bk train` or `import` wrote",
        "safetensors file" => {
            "it is incomplete, damaged or of another kind: copy or export it again"
        }
        "tokenizer" => "pass the tokenizer.json that the model was trained with",
        "training state" => "remove it to begin again, or restore it from a copy",
        "file of dimensions" => {
            "write a JSON object with keys of docs/checkpoint.md, such as \
             `{\"top_k\": 2, \"eta_floor\": 0.01}`"
        }
        "frontier" => "pass the frontier.json that `cargo xtask frontier` wrote",
        kind if kind.starts_with("importance file") => {
            "write it again with `resnet-bk analyze`, or name another"
        }
        _ => "write it again with the command that produces it, or name another",
    }
}

/// Remedy for an error of the integer core.
fn core_help(error: &resnet_bk_core::Error) -> &'static str {
    use resnet_bk_core::Error as Core;
    match error {
        Core::NotABlob => "pass a blob that `resnet-bk quantize` wrote",
        Core::Version { .. } => "quantize the checkpoint again with this version of the tool",
        Core::Truncated { .. } | Core::TrailingBytes { .. } | Core::Checksum { .. } => {
            "copy or flash the whole blob again; if that does not help, quantize again"
        }
        Core::Dimension { .. } | Core::OffDiagonal { .. } | Core::TokenizerText { .. } => {
            "the blob format's limits are in docs/format.md; train a model within them"
        }
        Core::NoTokenizer => {
            "pass --tokenizer FILE, give token ids (--ids), or quantize again without \
             --no-tokenizer"
        }
        Core::NoEncoder => {
            "pass --tokenizer FILE, the tokenizer.json that the model was trained with, or token ids"
        }
        Core::Token { .. } => "pass the tokenizer.json that the model was trained with",
        Core::EndOfPositions { .. } => {
            "ask for fewer --tokens or give a shorter --prompt: the model cannot go beyond its \
             position table"
        }
        Core::NotCausal => "score it with `resnet-bk eval`, or train with --chain half to generate",
        Core::EmptyWindow => "give a text of at least one token",
        Core::Memory { .. } | Core::Buffer { .. } => {
            "choose a shorter --window, or a machine with more memory"
        }
        Core::TopK { .. } => "choose a smaller --top-k, or 0 for all tokens",
        Core::TopP => "choose a --top-p above 0 and at most 1",
        Core::Temperature => "choose a --temperature of 0 (greedy) or a positive number",
        Core::RepetitionPenalty => "choose a --repetition-penalty from 1 (none) to 1000",
        Core::EmptyPrompt => "give a --prompt of at least one token",
        _ => "quantize the checkpoint again, then copy or flash the whole blob",
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use resnet_bk_core::Error as Core;

    fn io(action: &'static str, kind: std::io::ErrorKind) -> Error {
        Error::io(action, Path::new("x"))(kind.into())
    }

    fn format(kind: &'static str) -> Error {
        Error::Format { kind, path: "x".into(), reason: "reason".into() }
    }

    /// Each error, with a word that its remedy must contain.
    #[test]
    fn every_remedy_fits_its_cause() {
        use std::io::ErrorKind::{IsADirectory, NotFound, StorageFull};
        let text = || "x".to_string();
        let path = || PathBuf::from("x");
        let blob = Error::Blob;
        let cases = [
            (io("read", NotFound), "spelled"),
            (io("read", IsADirectory), "not a directory"),
            (io("write", StorageFull), "free some space"),
            (io("write", NotFound), "directory exists"),
            (
                Error::WrongKind { path: path(), found: "a", wanted: "b", remedy: "swap them" },
                "swap them",
            ),
            (format("checkpoint"), "`resnet-bk train`"),
            (format("safetensors file"), "export it again"),
            (format("tokenizer"), "tokenizer.json"),
            (format("training state"), "begin again"),
            (format("frontier"), "cargo xtask frontier"),
            (format("file of dimensions"), "docs/checkpoint.md"),
            (format("importance file"), "resnet-bk analyze"),
            (format("importance file for this target"), "resnet-bk analyze"),
            (format("something else"), "write it again"),
            (Error::Tensors(vec![]), "export it again"),
            (Error::Budget(text()), "more bytes, a larger --max-kl"),
            (Error::NotFinite { tensor: text(), index: 0, value: f32::NAN }, "diverged"),
            (Error::Config(text()), "dimension"),
            (Error::Import { path: path(), problems: vec![], remedy: "this".into() }, "this"),
            (Error::CorpusMissing, "--corpus DIR"),
            (Error::SplitMissing { directory: path(), split: "valid".into() }, "`valid.txt`"),
            (Error::TextEmpty(path()), "put text"),
            (Error::TextNotUtf8 { path: path(), offset: 0 }, "UTF-8"),
            (
                Error::TokenFile { path: path(), reason: text(), remedy: "np.save".into() },
                "np.save",
            ),
            (Error::TokenizerMissing { text: text() }, "--tokenizer FILE"),
            (Error::TextShort { what: text(), tokens: 1, needed: 2 }, "longer text"),
            (Error::Window { window: 128, positions: 64 }, "--window of at most 64"),
            (Error::Tokenizer(text()), "tokenizer.json"),
            (Error::ResumeMismatch { path: path(), differences: vec![] }, "another --out"),
            (Error::Diverged { step: 1, loss: f64::NAN }, "lower --lr"),
            (Error::Policy(text()), "policies"),
            (Error::Quantize(text()), "docs/format.md"),
            (Error::WeightTooLarge { tensor: text(), precision: "fp16" }, "another precision"),
            (Error::Stdout(std::io::ErrorKind::StorageFull.into()), "elsewhere"),
            (Error::Usage(text()), "--help"),
            (blob(Core::NotABlob), "a blob that `resnet-bk quantize` wrote"),
            (blob(Core::Version { found: 9, supported: 2 }), "this version"),
            (blob(Core::Truncated { needed: 2, given: 1 }), "whole"),
            (blob(Core::TrailingBytes { expected: 1, given: 2 }), "whole"),
            (blob(Core::Checksum { stored: 1, computed: 2 }), "whole"),
            (blob(Core::Header), "quantize the checkpoint again"),
            (blob(Core::ChainSection), "quantize the checkpoint again"),
            (blob(Core::Dimension { name: "width", value: 0, limit: 1 }), "docs/format.md"),
            (blob(Core::NoTokenizer), "--tokenizer FILE"),
            (blob(Core::NoEncoder), "--tokenizer FILE"),
            (blob(Core::Token { token: 9, vocab: 8 }), "tokenizer.json"),
            (blob(Core::EndOfPositions { positions: 64 }), "fewer --tokens"),
            (blob(Core::NotCausal), "--chain half"),
            (blob(Core::EmptyWindow), "at least one token"),
            (blob(Core::Memory { needed: 2, given: 1 }), "more memory"),
            (blob(Core::Buffer { needed: 2, given: 1 }), "more memory"),
            (blob(Core::TopK { asked: 100, limit: 64 }), "--top-k"),
            (blob(Core::Temperature), "--temperature"),
            (blob(Core::TopP), "--top-p"),
            (blob(Core::OffDiagonal { found: u32::MAX, limit: 1 }), "docs/format.md"),
            (blob(Core::TokenizerText { limit: 1 }), "docs/format.md"),
            (Error::Overflow { what: text(), text: "x" }, "an earlier one"),
            (Error::Singular { tensor: text() }, "--calibration-tokens"),
            (Error::Overwrite { path: path(), reason: text() }, "--force"),
            (Error::Busy { path: path(), process: None }, "another --out"),
            (Error::ImportanceMissing(path()), "resnet-bk analyze"),
            (Error::OtherSettings { path: path(), differences: vec![] }, "analyze --force"),
            (
                Error::TokenizerFile {
                    path: path(),
                    problems: vec![],
                    remedy: "pass the tokenizer.json".into(),
                },
                "tokenizer.json",
            ),
            (Error::TokenizerOnDevice(text()), "--no-tokenizer"),
            (Error::TokenOutOfRange { token: 9, vocab: 8 }, "own tokenizer"),
            (Error::BlobFile { path: path(), error: Core::NotABlob }, "resnet-bk quantize"),
        ];
        for (error, word) in cases {
            assert!(error.help().contains(word), "{error:?}: {}", error.help());
        }
    }
}
