//! Events and tokens as the bits of a gzip file.

use crate::bits::BitWriter;
use crate::error::{Error, Result};
use crate::header::DISTANCES;
use crate::prefix::{codes, Code};
use crate::segment::{Block, Event, Kind, Place};
use crate::tables::{
    distance_code, fixed_lengths, length_code, DISTANCE_BASE, DISTANCE_EXTRA, END_OF_BLOCK, LENGTH_BASE, LENGTH_EXTRA,
    LONG_FORM_CODE,
};
use crate::token::Token;

/// Writes a segment, which has as many bits as its place says.
pub struct Writer {
    bits: BitWriter,
    most: u64,
}

impl Writer {
    pub fn new(place: Place) -> Writer {
        let likely = (place.bits / 8).min(8 << 20) as usize + 16;
        Writer { bits: BitWriter::new(place.start_bit, likely), most: place.start_bit as u64 + place.bits }
    }

    /// Writes as many bits as there are, from bit `start_bit` of the first byte on.
    pub fn unbounded(start_bit: u8) -> Writer {
        Writer { bits: BitWriter::new(start_bit, 1 << 20), most: u64::MAX }
    }

    /// The bytes that were written, and how many bits of them are its own.
    pub fn into_bits(self, start_bit: u8) -> (Vec<u8>, u64) {
        let bits = self.bits.bits() - start_bit as u64;
        (if bits == 0 { Vec::new() } else { self.bits.finish() }, bits)
    }

    /// The event's bits; `plain` and `tokens` are its own.
    pub fn event(&mut self, event: &Event, plain: &[u8], tokens: &[Token]) -> Result<()> {
        match event {
            Event::Start(header) => {
                if self.bits.bits() & 7 != 0 {
                    return Err(Error::Recipe("a member begins inside a byte"));
                }
                self.bits.put_bytes(header);
            }
            Event::End { padding, trailer, .. } => {
                self.bits.align(*padding);
                self.bits.put_bytes(trailer);
            }
            Event::Block(block) => self.block(block, plain, tokens)?,
        }
        if self.bits.bits() > self.most {
            return Err(Error::Recipe("a record makes more bits than it says"));
        }
        Ok(())
    }

    fn block(&mut self, block: &Block, plain: &[u8], tokens: &[Token]) -> Result<()> {
        let kind = match block.kind {
            Kind::Stored { .. } => 0,
            Kind::Fixed => 1,
            Kind::Dynamic(_) => 2,
        };
        if !block.continued {
            self.bits.put(block.last as u64 | kind << 1, 3);
        }
        let lengths = match &block.kind {
            Kind::Stored { length, padding } => {
                self.bits.align(*padding);
                self.bits.put(*length as u64 | (!*length as u64) << 16, 32);
                self.bits.put_bytes(plain);
                return Ok(());
            }
            Kind::Fixed => fixed_lengths(),
            Kind::Dynamic(header) => {
                if !block.continued {
                    header.write(&mut self.bits)?;
                }
                header.lengths
            }
        };
        let mut literals = [(0, 0); DISTANCES];
        let mut distances = [(0, 0); 32];
        codes(&lengths[..DISTANCES], &mut literals)?;
        codes(&lengths[DISTANCES..], &mut distances)?;
        let mut coded = self.tokens(plain, tokens, &literals, &distances);
        if block.ends {
            let (code, bits) = literals[END_OF_BLOCK];
            self.bits.put(code as u64, bits as u32);
            coded &= bits > 0;
        }
        if !coded {
            return Err(Error::Recipe("a symbol has no code"));
        }
        Ok(())
    }

    /// False if some symbol has no code.
    fn tokens(&mut self, plain: &[u8], tokens: &[Token], literals: &[Code; DISTANCES], distances: &[Code; 32]) -> bool {
        let mut place = 0;
        let mut coded = true;
        for token in tokens {
            if token.is_literal() {
                let (code, bits) = literals[plain[place] as usize];
                coded &= bits > 0;
                self.bits.put(code as u64, bits as u32);
                place += 1;
                continue;
            }
            let length = token.span();
            let symbol = if token.is_long_form() { LONG_FORM_CODE } else { length_code(length) };
            let (code, bits) = literals[END_OF_BLOCK + 1 + symbol];
            coded &= bits > 0;
            let extra = (length - LENGTH_BASE[symbol] as usize) as u64;
            self.bits.put(code as u64 | extra << bits, bits as u32 + LENGTH_EXTRA[symbol] as u32);
            let distance = token.distance();
            let symbol = distance_code(distance);
            let (code, bits) = distances[symbol];
            coded &= bits > 0;
            let extra = (distance - DISTANCE_BASE[symbol] as usize) as u64;
            self.bits.put(code as u64 | extra << bits, bits as u32 + DISTANCE_EXTRA[symbol] as u32);
            place += length;
        }
        coded
    }

    /// All bits, if they and the plain bytes were as many as the record says.
    pub fn finish(self, plain_is_done: bool, place: Place) -> Result<Vec<u8>> {
        if !plain_is_done {
            return Err(Error::Recipe("a record leaves plain bytes over"));
        }
        if self.bits.bits() != place.start_bit as u64 + place.bits {
            return Err(Error::Recipe("a record makes fewer bits than it says"));
        }
        Ok(self.bits.finish())
    }
}
