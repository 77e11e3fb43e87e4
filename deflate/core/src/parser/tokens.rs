//! The inner loop of inflating: tokens and plain bytes.

use super::{Parser, State};
use crate::bits::{load64, PADDING};
use crate::error::{Error, Result};
use crate::segment::SEGMENT_HARD;
use crate::tables::{DISTANCE_BASE, DISTANCE_EXTRA, END_OF_BLOCK, LENGTH_BASE, LENGTH_EXTRA, LONG_FORM_CODE};
use crate::token::Token;

/// Why reading tokens stopped.
pub enum Stop {
    NeedInput,
    EndOfBlock,
    /// The segment has as many plain bytes as it may.
    Full,
}

impl Parser {
    pub(super) fn read_tokens(&mut self) -> Result<Stop> {
        debug_assert!(matches!(self.state, State::InBlock));
        let lowest = self.member_start.unwrap_or(0);
        let hard = self.segment.place.history + (self.limits.segment * 3 / 2).clamp(1024, SEGMENT_HARD);
        loop {
            self.make_room();
            let most = hard.min(self.segment.data.len() - 300);
            // A token has at most 48 bits: a word of 64 at any bit of a byte holds one.
            let readable = self.input.bytes().len().saturating_sub(8);
            let inside = if self.input.ended { self.input.real().len() + PADDING - 8 } else { readable };
            let stop = self.run(lowest, most, inside)?;
            if self.input.bit > self.input.real().len() * 8 {
                return Err(Error::Gzip("the file ends early"));
            }
            if let Some(stop) = stop {
                return Ok(stop);
            }
            if self.filled >= hard {
                return Ok(Stop::Full);
            }
            if self.input.bit >> 3 >= inside {
                return if self.input.ended { Err(Error::Gzip("the file ends early")) } else { Ok(Stop::NeedInput) };
            }
        }
    }

    /// Until the block ends, `most` plain bytes are there, or input byte `inside` is reached.
    fn run(&mut self, lowest: usize, most: usize, inside: usize) -> Result<Option<Stop>> {
        let input = self.input.bytes();
        let data = &mut self.segment.data[..];
        let tokens = &mut self.segment.tokens;
        let (mut filled, mut bit) = (self.filled, self.input.bit);
        let mut stop = None;
        while filled < most && bit >> 3 < inside {
            let word = load64(input, bit >> 3) >> (bit & 7);
            let (symbol, bits) = self.literals.decode(word);
            if bits == 0 {
                return Err(Error::Gzip("a code does not exist"));
            }
            if symbol < END_OF_BLOCK {
                data[filled] = symbol as u8;
                filled += 1;
                bit += bits as usize;
                tokens.push(Token::LITERAL);
                continue;
            }
            if symbol == END_OF_BLOCK {
                bit += bits as usize;
                stop = Some(Stop::EndOfBlock);
                break;
            }
            let code = symbol - END_OF_BLOCK - 1;
            if code >= LENGTH_BASE.len() {
                return Err(Error::Gzip("a length code does not exist"));
            }
            let mut used = bits;
            let extra = LENGTH_EXTRA[code] as u32;
            let length = LENGTH_BASE[code] as usize + ((word >> used) as usize & ((1 << extra) - 1));
            used += extra;
            let (symbol, bits) = self.distances.decode(word >> used);
            if bits == 0 || symbol >= DISTANCE_BASE.len() {
                return Err(Error::Gzip("a distance code does not exist"));
            }
            used += bits;
            let extra = DISTANCE_EXTRA[symbol] as u32;
            let distance = DISTANCE_BASE[symbol] as usize + ((word >> used) as usize & ((1 << extra) - 1));
            used += extra;
            if distance > filled - lowest {
                return Err(Error::Gzip("a copy reaches back beyond the start"));
            }
            bit += used as usize;
            let token = Token::copy(length, distance);
            tokens.push(if length == 258 && code == LONG_FORM_CODE { token.in_long_form() } else { token });
            copy(data, filled, length, distance);
            filled += length;
        }
        self.filled = filled;
        self.input.bit = bit;
        Ok(stop)
    }
}

#[inline(always)]
fn copy(data: &mut [u8], at: usize, length: usize, distance: usize) {
    if distance >= length {
        data.copy_within(at - distance..at - distance + length, at);
    } else if distance == 1 {
        let byte = data[at - 1];
        data[at..at + length].fill(byte);
    } else {
        for place in at..at + length {
            data[place] = data[place - distance];
        }
    }
}
