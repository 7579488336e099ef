//! Bare messages, as a device sends them: each with the framing that both ends agreed on.

use rayon::prelude::*;
use resnet_bk_core as core;
use resnet_bk_core::coder::Framing;

use super::Flags;
use super::chunk::Coder;
use crate::error::{Error, Result};
use crate::threads::Progress;

/// Bytes of the longest message.
pub const LONGEST_MESSAGE: usize = 1 << 16;

/// What two ends have agreed on.
pub struct Link<'a> {
    coder: Coder<'a>,
    carried: bool,
    framing: Framing,
}

impl<'a> Link<'a> {
    /// A link that codes with `model`. Messages begin fresh, after the text `prime` if that has any
    /// bytes, or, if they are `carried`, after a line feed and those before them.
    ///
    /// # Errors
    ///
    /// [`Error::Blob`] if the model cannot stream or has no tokenizer.
    pub fn new(
        model: &'a core::Model<'a>,
        framing: Framing,
        carried: bool,
        prime: &[u8],
    ) -> Result<Self> {
        let coder = Coder::new(model, Flags { lines: true, carried }, framing, prime)?;
        Ok(Self { coder, carried, framing })
    }

    /// Compresses messages. `progress` is called with the fraction that is done.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for one longer than [`LONGEST_MESSAGE`].
    pub fn send(&self, messages: &[&[u8]], progress: impl Fn(f64) + Sync) -> Result<Vec<Vec<u8>>> {
        if let Some(at) = messages.iter().position(|message| message.len() > LONGEST_MESSAGE) {
            return Err(Error::Usage(format!(
                "line {} has more than {LONGEST_MESSAGE} bytes, the most of a message",
                at + 1
            )));
        }
        self.each(messages, progress, |codec, index, message| {
            let mut code = vec![0; message.len() + 1 + self.framing.bytes()];
            let len = self.coder.send(codec, index, message, &mut code)?;
            code.truncate(len);
            Ok(code)
        })
    }

    /// Decompresses messages: the text of each, or why it cannot be read. Where messages are
    /// carried, none after a lost one can.
    ///
    /// # Errors
    ///
    /// [`Error::Blob`] if no memory is left.
    pub fn receive(
        &self,
        codes: &[Vec<u8>],
        progress: impl Fn(f64) + Sync,
    ) -> Result<Vec<Result<Vec<u8>, core::Error>>> {
        let mut texts = self.each(codes, progress, |codec, index, code| {
            let mut text = vec![0; LONGEST_MESSAGE];
            Ok(self.coder.receive(codec, index, code, &mut text).map(|len| {
                text.truncate(len);
                text
            }))
        })?;
        if self.carried
            && let Some(first) = texts.iter().position(Result::is_err)
        {
            let lost = texts[first].clone();
            texts[first..].fill(lost);
        }
        Ok(texts)
    }

    /// Calls `work` for every message, in parallel unless they depend on each other.
    fn each<M: AsRef<[u8]> + Sync, T: Send>(
        &self,
        messages: &[M],
        progress: impl Fn(f64) + Sync,
        work: impl Fn(&mut super::chunk::Sender<'a, '_>, usize, &[u8]) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let progress = Progress::new(messages.len(), progress);
        if self.carried {
            let mut tokens = vec![0; LONGEST_MESSAGE];
            let mut codec = self.coder.codec(&mut tokens)?;
            let each = messages.iter().enumerate().map(|(index, message)| {
                let result = work(&mut codec, index, message.as_ref());
                progress.add(1);
                result
            });
            return each.collect();
        }
        let each = messages.par_iter().enumerate().map(|(index, message)| {
            let mut tokens = vec![0; message.as_ref().len().max(1)];
            let result = work(&mut self.coder.codec(&mut tokens)?, index, message.as_ref());
            progress.add(1);
            result
        });
        each.collect()
    }
}
