//! Arrays of NumPy (`.npy`): six magic bytes, two of the version, the length of a header, a
//! dictionary of Python with type, order and shape, and the numbers.

use std::path::Path;

use super::refusal::{Refusal, rewrite};

const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads a one-dimensional array of integers.
pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Vec<u32>, Refusal> {
    let name = path.display();
    let load = |rest: &str| {
        format!(
            "`python -c \"import numpy as np; np.save('{name}', np.load('{name}'){rest})\"` \
             writes what is wanted"
        )
    };
    let unreadable = |reason: &str| (format!("not a .npy file: {reason}"), rewrite(path));
    let (header, data) = split(bytes).ok_or_else(|| unreadable("its header is not one"))?;
    let kind = quoted(header, "descr").ok_or_else(|| unreadable("its header has no `descr`"))?;
    let shape = shape(header).ok_or_else(|| unreadable("its header has no `shape`"))?;
    let Some(integer) = Integer::parse(kind) else {
        let reason = format!("`descr` is '{kind}': tokens are integers of at most 64 bits");
        return Err((reason, load(".astype(np.uint32)")));
    };
    let &[count] = &shape[..] else {
        let reason =
            format!("`shape` has {} dimensions: tokens stand in a single row", shape.len());
        return Err((reason, load(".ravel()")));
    };
    if count == 0 {
        return Err(("it is empty".into(), rewrite(path)));
    }
    if count.checked_mul(integer.size) != Some(data.len()) {
        let found = data.len();
        let reason = format!("{found} bytes follow the header, but not {count} tokens");
        return Err((reason, "copy it again".into()));
    }
    let token = |(at, bytes): (usize, &[u8])| {
        let number = integer.number(bytes);
        u32::try_from(number).map_err(|_| {
            let reason = format!("index {at} has {number}: a token is between 0 and {}", u32::MAX);
            (reason, rewrite(path))
        })
    };
    data.chunks_exact(integer.size).enumerate().map(token).collect()
}

/// Header and data.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (&[major, _minor], rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk()?;
    let (length, rest) = match major {
        1 => {
            let (length, rest) = rest.split_first_chunk()?;
            (u16::from_le_bytes(*length) as usize, rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk()?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        _ => return None,
    };
    let (header, data) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

/// What follows a key of the dictionary.
fn value<'h>(header: &'h str, key: &str) -> Option<&'h str> {
    let quoted = ['\'', '"'].map(|quote| format!("{quote}{key}{quote}"));
    let (_, rest) = quoted.iter().find_map(|key| header.split_once(key.as_str()))?;
    rest.trim_start().strip_prefix(':').map(str::trim_start)
}

/// A text of the dictionary.
fn quoted<'h>(header: &'h str, key: &str) -> Option<&'h str> {
    let value = value(header, key)?;
    let quote = value.chars().next().filter(|c| ['\'', '"'].contains(c));
    match quote {
        Some(quote) => value[1..].split(quote).next(),
        // A record of several fields.
        None => Some(value.split(']').next().unwrap_or(value).trim()),
    }
}

fn shape(header: &str) -> Option<Vec<usize>> {
    let (inner, _) = value(header, "shape")?.strip_prefix('(')?.split_once(')')?;
    let sizes = inner.split(',').map(str::trim).filter(|size| !size.is_empty());
    sizes.map(|size| size.parse().ok()).collect()
}

/// An integer type.
#[derive(Clone, Copy)]
struct Integer {
    size: usize,
    signed: bool,
    big_endian: bool,
}

impl Integer {
    /// From a type such as `<u2`.
    fn parse(descr: &str) -> Option<Self> {
        let (order, rest) = descr.split_at_checked(1)?;
        let (kind, size) = rest.split_at_checked(1)?;
        let size = size.parse().ok().filter(|size| [1, 2, 4, 8].contains(size))?;
        let signed = match kind {
            "u" => false,
            "i" => true,
            _ => return None,
        };
        let big_endian = match order {
            "<" | "|" => false,
            "=" => cfg!(target_endian = "big"),
            ">" => true,
            _ => return None,
        };
        Some(Self { size, signed, big_endian })
    }

    fn number(self, bytes: &[u8]) -> i128 {
        let push = |number: u64, &byte: &u8| number << 8 | u64::from(byte);
        let number = match self.big_endian {
            true => bytes.iter().fold(0, push),
            false => bytes.iter().rev().fold(0, push),
        };
        let unused = 64 - 8 * self.size;
        match self.signed {
            true => i128::from(((number << unused) as i64) >> unused),
            false => i128::from(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As NumPy writes it.
    fn array(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
        let mut bytes = [MAGIC, &[1, 0], &(length as u16).to_le_bytes()].concat();
        bytes.extend(format!("{header:<width$}\n", width = length - 1).into_bytes());
        bytes.extend(data);
        bytes
    }

    fn read(descr: &str, shape: &str, data: &[u8]) -> Result<Vec<u32>, Refusal> {
        parse(&array(descr, shape, data), Path::new("x.npy"))
    }

    #[test]
    fn integers_of_every_width_are_tokens() {
        assert_eq!(read("|u1", "(2,)", &[7, 255]).unwrap(), [7, 255]);
        assert_eq!(read("<u2", "(2,)", &[1, 2, 255, 255]).unwrap(), [513, 65_535]);
        assert_eq!(read(">u2", "(2,)", &[1, 2, 0, 3]).unwrap(), [258, 3]);
        assert_eq!(read("<u4", "(1,)", &[255; 4]).unwrap(), [u32::MAX]);
        assert_eq!(read("<i4", "(1,)", &[5, 0, 1, 0]).unwrap(), [65_541]);
        assert_eq!(read("<i8", "(1,)", &[5, 0, 0, 0, 0, 0, 0, 0]).unwrap(), [5]);
        assert_eq!(read(">i8", "(1,)", &[0, 0, 0, 0, 0, 0, 0, 9]).unwrap(), [9]);
    }

    #[test]
    fn what_is_no_row_of_tokens_is_refused_with_a_line_of_python() {
        for (descr, shape, data, cause, command) in [
            ("<f4", "(1,)", &[0; 4][..], "`descr` is '<f4'", ".astype(np.uint32)"),
            ("|O", "(1,)", &[0; 8], "`descr` is '|O'", ".astype(np.uint32)"),
            ("<u2", "(2, 2)", &[0; 8], "2 dimensions", ".ravel()"),
            ("<u2", "()", &[0; 2], "0 dimensions", ".ravel()"),
            ("<u2", "(0,)", &[], "empty", "np.save"),
            ("<u2", "(3,)", &[0; 4], "4 bytes follow the header, but not 3 tokens", "copy"),
            ("<u2", "(99999999999999999,)", &[0; 4], "4 bytes follow", "copy"),
            ("<i4", "(2,)", &[0, 0, 0, 0, 255, 255, 255, 255], "index 1 has -1", "np.save"),
            ("<u8", "(1,)", &[0, 0, 0, 0, 1, 0, 0, 0], "index 0 has 4294967296", "np.save"),
        ] {
            let (reason, remedy) = read(descr, shape, data).unwrap_err();
            assert!(reason.contains(cause), "{descr} {shape}: {reason}");
            assert!(remedy.contains(command), "{descr} {shape}: {remedy}");
        }
        let good = array("<u2", "(1,)", &[0; 2]);
        for broken in [&good[..7], &good[..30], b"\x93NUMPY\x09\x00"] {
            assert!(parse(broken, Path::new("x")).unwrap_err().0.contains("not a .npy file"));
        }
        let record = array("x", "(1,)", &[0; 2]);
        let text = String::from_utf8_lossy(&record).replace("'x'", "[('a', '<u2')]");
        let (reason, _) = parse(text.as_bytes(), Path::new("x")).unwrap_err();
        assert!(reason.contains("not a .npy file") || reason.contains("descr"), "{reason}");
    }
}
