//! Reading and writing bits, the lowest of a byte first.

use crate::error::{Error, Result};

/// Eight bytes from `at` on, the lowest first.
#[inline(always)]
pub fn load64(data: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(data[at..at + 8].try_into().expect("eight bytes"))
}

/// Four bytes from `at` on, the lowest first.
#[inline(always)]
pub fn load32(data: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(data[at..at + 4].try_into().expect("four bytes"))
}

/// How many zero bytes follow the end of a file, so that whole words can be read there.
pub const PADDING: usize = 16;

/// A file that comes in pieces, read bit by bit; what was read is dropped.
#[derive(Default)]
pub struct Input {
    bytes: Vec<u8>,
    real: usize,
    /// The next bit to be read, counted from the first byte still held.
    pub bit: usize,
    /// Whether the file has come to its end.
    pub ended: bool,
}

impl Input {
    pub fn feed(&mut self, piece: &[u8]) {
        debug_assert!(!self.ended);
        self.bytes.extend_from_slice(piece);
        self.real = self.bytes.len();
    }

    pub fn finish(&mut self) {
        if !self.ended {
            self.ended = true;
            self.bytes.resize(self.real + PADDING, 0);
        }
    }

    /// All bytes at hand; after the end, with padding.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes at hand that are the file's.
    pub fn real(&self) -> &[u8] {
        &self.bytes[..self.real]
    }

    /// How many bits can be read.
    pub fn left(&self) -> usize {
        (self.real * 8).saturating_sub(self.bit)
    }

    /// Whether `bits` are there, or will never be.
    pub fn has_or_ended(&self, bits: usize) -> bool {
        self.ended || self.left() >= bits
    }

    /// The next `count` bits, at most 32.
    pub fn take(&mut self, count: u32) -> Result<u32> {
        if self.left() < count as usize {
            return Err(Error::Gzip("the file ends early"));
        }
        let mut word = [0u8; 8];
        let at = self.bit >> 3;
        let there = (self.bytes.len() - at).min(8);
        word[..there].copy_from_slice(&self.bytes[at..at + there]);
        let word = u64::from_le_bytes(word) >> (self.bit & 7);
        self.bit += count as usize;
        Ok((word & ((1u64 << count) - 1)) as u32)
    }

    /// The bits up to the next byte, and how to go on there.
    pub fn align(&mut self) -> Result<u8> {
        Ok(self.take((8 - (self.bit & 7) as u32) & 7)? as u8)
    }

    /// The next `count` bytes; the place is at a byte's start.
    pub fn take_bytes(&mut self, count: usize) -> Result<&[u8]> {
        if self.left() < count * 8 {
            return Err(Error::Gzip("the file ends early"));
        }
        let at = self.bit >> 3;
        self.bit += count * 8;
        Ok(&self.bytes[at..at + count])
    }

    /// Drops `bytes` from the front.
    pub fn forget(&mut self, bytes: usize) {
        self.bytes.drain(..bytes);
        self.real -= bytes;
        self.bit -= bytes * 8;
    }
}

/// Bits on their way out. The first byte may begin inside: its lower bits are zero.
pub struct BitWriter {
    out: Vec<u8>,
    pending: u64,
    count: u32,
}

impl BitWriter {
    /// Begins at bit `phase` (0 to 7) of the first byte.
    pub fn new(phase: u8, capacity: usize) -> BitWriter {
        BitWriter { out: Vec::with_capacity(capacity), pending: 0, count: phase as u32 }
    }

    /// The `count` lowest bits of `value`, at most 32; all others are zero.
    #[inline(always)]
    pub fn put(&mut self, value: u64, count: u32) {
        self.pending |= value << self.count;
        self.count += count;
        if self.count >= 32 {
            self.out.extend_from_slice(&(self.pending as u32).to_le_bytes());
            self.pending >>= 32;
            self.count -= 32;
        }
    }

    /// How many bits were written, those before the first included.
    pub fn bits(&self) -> u64 {
        self.out.len() as u64 * 8 + self.count as u64
    }

    /// Fills up the byte with the lowest bits of `padding`.
    pub fn align(&mut self, padding: u8) {
        let missing = (8 - (self.count & 7)) & 7;
        self.put(padding as u64 & ((1 << missing) - 1), missing);
    }

    /// Whole bytes; the place must be at a byte's start.
    pub fn put_bytes(&mut self, bytes: &[u8]) {
        while self.count >= 8 {
            self.out.push(self.pending as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
        debug_assert_eq!(self.count, 0);
        self.out.extend_from_slice(bytes);
    }

    /// All bytes; the last may be begun only.
    pub fn finish(mut self) -> Vec<u8> {
        let last = self.count.div_ceil(8) as usize;
        self.out.extend_from_slice(&self.pending.to_le_bytes()[..last]);
        self.out
    }
}
