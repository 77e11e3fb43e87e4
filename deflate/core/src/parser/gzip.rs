//! The header of a gzip member, RFC 1952.

use crate::error::{Error, Result};

const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
const HEADER_SUM: u8 = 2;
const RESERVED: u8 = 0xe0;
/// A longer name or comment is not taken.
const LONGEST: usize = 66_000;

/// How long the header is that `data` begins with.
pub fn header_length(data: &[u8]) -> Result<usize> {
    let bad = Error::Gzip("a member's header is not one");
    if data.len() < 10 || data[..3] != [0x1f, 0x8b, 8] || data[3] & RESERVED != 0 {
        return Err(bad);
    }
    let flags = data[3];
    let mut length = 10;
    if flags & EXTRA != 0 {
        let size = data.get(length..length + 2).ok_or(bad.clone())?;
        length += 2 + u16::from_le_bytes([size[0], size[1]]) as usize;
    }
    for flag in [NAME, COMMENT] {
        if flags & flag != 0 {
            let text = data.get(length..).ok_or(bad.clone())?;
            length += 1 + text.iter().position(|byte| *byte == 0).ok_or(bad.clone())?;
        }
    }
    if flags & HEADER_SUM != 0 {
        length += 2;
    }
    if length > data.len() || length > LONGEST {
        return Err(bad);
    }
    Ok(length)
}
