//! Assembles a blob. The core describes the format, for writer and reader.

use resnet_bk_core::blob::{
    ALIGN, Dimensions, Header, Preamble, Provenance, RECORD_LEN, Section, TensorId, TensorRecord,
    align_up, checksum,
};

use super::chain::EncodedChain;
use crate::error::{Error, Result};
use crate::tensors::weight_name;
use resnet_bk_schema::Storage;

/// Everything that a blob consists of.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// Dimensions and chain kind.
    pub dims: Dimensions,
    /// Chain format and parameters.
    pub chain: &'a EncodedChain,
    /// Records in canonical order; offsets are filled in here.
    pub records: Vec<TensorRecord>,
    /// Bytes of the tensors' sections, in the same order.
    pub section_lens: Vec<usize>,
    /// Tokenizer section, if included.
    pub tokenizer: Option<&'a [u8]>,
    /// Section of token classes, if there are several.
    pub token_classes: Option<Vec<u8>>,
    /// Provenance of the blob.
    pub provenance: Provenance<'a>,
}

/// Offsets of all sections.
struct Plan {
    header: Vec<u8>,
    chain: Section,
    tokenizer: Option<Section>,
    token_classes: Option<Section>,
    offsets: Vec<usize>,
    total: usize,
}

/// Rejects a matrix that the reader would reject.
pub(super) fn check(dims: &Dimensions, id: TensorId, record: &TensorRecord) -> Result<()> {
    record.check(dims, id).map_err(|problem| {
        let storage = Storage { precision: record.precision, group: record.group.into() };
        let (name, rows, cols) = (weight_name(id), record.rows, record.cols);
        Error::Quantize(format!("`{name}` ({rows} × {cols}) as {storage}: {problem}"))
    })
}

impl Parts<'_> {
    /// Bytes of the blob, computed without its weights.
    pub fn total_len(&self) -> Result<usize> {
        Ok(self.plan()?.total)
    }

    /// The blob; `sections` are the tensors' sections in canonical order.
    pub fn assemble(&self, sections: &[Vec<u8>]) -> Result<Vec<u8>> {
        let plan = self.plan()?;
        let preamble =
            Preamble { header_len: plan.header.len() as u32, total_len: plan.total as u32 };
        let base = preamble.base();
        let mut blob = vec![0; plan.total];
        blob[..preamble.to_bytes().len()].copy_from_slice(&preamble.to_bytes());
        blob[preamble.to_bytes().len()..][..plan.header.len()].copy_from_slice(&plan.header);
        let mut place = |offset: usize, bytes: &[u8]| {
            blob[base + offset..][..bytes.len()].copy_from_slice(bytes);
        };
        for (&offset, section) in plan.offsets.iter().zip(sections) {
            place(offset, section);
        }
        place(plan.chain.offset as usize, &self.chain.bytes);
        let classes = self.token_classes.as_deref();
        let optional = [plan.tokenizer.zip(self.tokenizer), plan.token_classes.zip(classes)];
        for (section, bytes) in optional.into_iter().flatten() {
            place(section.offset as usize, bytes);
        }
        let sum = checksum(&blob);
        blob[20..24].copy_from_slice(&sum.to_le_bytes());
        Ok(blob)
    }

    fn plan(&self) -> Result<Plan> {
        let mut records = self.dims.tensors().zip(&self.records);
        records.try_for_each(|(id, record)| check(&self.dims, id, record))?;
        let mut end = 0;
        let mut take = |len: usize| {
            let offset = align_up(end);
            end = offset + len;
            offset
        };
        let offsets: Vec<usize> = self.section_lens.iter().map(|&len| take(len)).collect();
        let mut section = |len: usize| Section { offset: take(len) as u32, len: len as u32 };
        let chain = section(self.chain.bytes.len());
        let tokenizer = self.tokenizer.map(|bytes| section(bytes.len()));
        let token_classes = self.token_classes.as_ref().map(|bytes| section(bytes.len()));
        let mut records = Vec::with_capacity(self.records.len() * RECORD_LEN);
        for (record, &offset) in self.records.iter().zip(&offsets) {
            records.extend(TensorRecord { offset: offset as u32, ..*record }.to_bytes());
        }
        let header = Header {
            dims: self.dims,
            chain_frac: self.chain.format.frac as u8,
            off_diagonal: self.chain.format.off_diagonal,
            potentials_int8: self.chain.format.int8,
            chain,
            tokenizer,
            token_classes,
            records: &records,
            provenance: self.provenance.clone(),
        };
        let header = postcard::to_allocvec(&header)
            .map_err(|e| Error::Quantize(format!("the header cannot be encoded: {e}")))?;
        let base = Preamble { header_len: header.len() as u32, total_len: 0 }.base();
        // Only the starts of sections are aligned; the last one is not padded.
        let total = base + end;
        debug_assert!(base.is_multiple_of(ALIGN));
        if u32::try_from(total).is_err() {
            return Err(Error::Quantize(format!("a blob of {total} bytes is beyond 4 GiB")));
        }
        Ok(Plan { header, chain, tokenizer, token_classes, offsets, total })
    }
}
