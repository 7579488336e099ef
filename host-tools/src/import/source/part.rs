//! One file of a checkpoint, in any format that can be read.

use super::archive::{Archive, is_archive};
use super::contents::Contents;
use super::input::{Input, bytes_at};
use super::other;
use super::{legacy, safetensors};
use crate::import::refusal::Refusal;
use crate::import::view::Place;
use std::io::SeekFrom;

/// Bytes that tell the format.
const HEAD: u64 = 512;

/// A file whose tensors are known, but not yet read.
pub(super) struct Part<'a> {
    pub(super) contents: Contents,
    /// Bytes of the file.
    pub(super) length: u64,
    /// Whether `torch.save` wrote it.
    pub(super) is_pytorch: bool,
    reader: Reader<'a>,
}

enum Reader<'a> {
    Plain(Box<dyn Input + 'a>),
    Archive(Archive<'a>),
}

impl<'a> Part<'a> {
    /// Finds the format by content and lists the tensors; `file` is the index of the file.
    pub(super) fn open(mut input: Box<dyn Input + 'a>, file: usize) -> Result<Self, Refusal> {
        let unreadable = |reason| {
            Refusal::new(format!("it cannot be read: {reason}"), "try to read it: `cat {file}`")
        };
        let length = input.seek(SeekFrom::End(0)).map_err(|error| unreadable(error.to_string()))?;
        let head = bytes_at(&mut *input, 0, length.min(HEAD)).map_err(unreadable)?;
        let (contents, reader) = if is_archive(&head) {
            let mut archive = Archive::open(input, length)?;
            (archive.contents(file)?, Reader::Archive(archive))
        } else if legacy::is_legacy(&head) {
            (legacy::contents(&mut *input, length, file)?, Reader::Plain(input))
        } else if safetensors::is_safetensors(&head) {
            (safetensors::contents(&mut *input, length, file)?, Reader::Plain(input))
        } else {
            return Err(other::refusal(&head));
        };
        let is_pytorch = !safetensors::is_safetensors(&head);
        Ok(Self { contents, length, is_pytorch, reader })
    }

    /// The bytes of a storage.
    pub(super) fn storage(&mut self, place: &Place) -> Result<Vec<u8>, String> {
        match (&mut self.reader, place) {
            (Reader::Plain(input), &Place::Span { start, length }) => {
                bytes_at(&mut **input, start, length)
            }
            (Reader::Archive(archive), Place::Entry(name)) => archive.entry(name, u64::MAX),
            _ => unreachable!("a file describes places of its own kind"),
        }
    }
}
