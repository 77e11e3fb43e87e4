//! Joins the bits of records into the bytes of a file.

use crate::error::{Error, Result};

/// Joins what [`crate::decode`] makes, record after record. Neighbours may share a byte, of which each has its bits.
#[derive(Default)]
pub struct Assembler {
    shared: u8,
    bits: u64,
}

impl Assembler {
    /// At the start of a file.
    pub fn new() -> Assembler {
        Assembler::default()
    }

    /// At which bit of a byte the next record begins: `decode` wants to know.
    pub fn start_bit(&self) -> u8 {
        (self.bits & 7) as u8
    }

    /// Takes the `bits` bits of the next record, and gives the bytes that are whole now.
    pub fn join(&mut self, mut record: Vec<u8>, bits: u64) -> Result<Vec<u8>> {
        if record.len() as u64 != if bits == 0 { 0 } else { (self.start_bit() as u64 + bits).div_ceil(8) } {
            return Err(Error::Recipe("a record has another length than it says"));
        }
        let Some(first) = record.first_mut() else { return Ok(record) };
        *first |= self.shared;
        self.bits += bits;
        self.shared = if self.bits & 7 == 0 { 0 } else { record.pop().unwrap_or(0) };
        Ok(record)
    }

    /// How many bytes the file has; an error if it ends inside one.
    pub fn finish(&self) -> Result<u64> {
        if self.bits & 7 != 0 {
            return Err(Error::Recipe("the file ends inside a byte"));
        }
        Ok(self.bits >> 3)
    }
}
