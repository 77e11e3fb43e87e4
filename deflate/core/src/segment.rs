//! A stretch of a gzip file, taken apart.

use crate::header::DynamicHeader;
use crate::token::Token;

/// How many plain bytes before a segment its copies can reach.
pub const HISTORY: usize = 32768;
/// How many plain bytes a segment is cut at, at the next border of blocks.
pub const SEGMENT: usize = 4 << 20;
/// How many plain bytes a segment is cut at, wherever that is.
pub const SEGMENT_HARD: usize = 6 << 20;
/// How many plain bytes a record may cover.
pub const MAX_PLAIN: usize = 8 << 20;
/// How many starts, blocks and ends of members a record may have.
pub const MAX_EVENTS: usize = 32768;

/// How a block holds its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As they are.
    Stored {
        /// How many there are.
        length: u16,
        /// The bits between the block's first three and its next byte.
        padding: u8,
    },
    /// With the codes of RFC 1951.
    Fixed,
    /// With codes of its own.
    Dynamic(Box<DynamicHeader>),
}

/// A block, or the part of one that is in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Whether the block began in the segment before.
    pub continued: bool,
    /// Whether it is the member's last.
    pub last: bool,
    pub kind: Kind,
    /// How many tokens of it are in the segment.
    pub tokens: usize,
    /// Whether it ends in the segment.
    pub ends: bool,
}

/// What a segment consists of, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The header of a gzip member.
    Start(Vec<u8>),
    Block(Block),
    /// What follows a member's last block.
    End {
        /// The bits between the last block and its next byte.
        padding: u8,
        trailer: [u8; 8],
        /// Whether the trailer follows from the segment's plain bytes: the member began in it.
        derived: bool,
    },
}

/// Where a segment lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Place {
    /// How many plain bytes of the same member are known from before it: at most [`HISTORY`].
    pub history: usize,
    /// Whether it begins inside a member.
    pub in_member: bool,
    /// How many plain bytes of that member came before it.
    pub member_offset: u64,
    /// At which bit of a byte it begins.
    pub start_bit: u8,
    /// How many bits of the file it covers.
    pub bits: u64,
}

/// A stretch of a gzip file, taken apart: some 4 MiB of plain bytes. One without events holds bits that could not be taken apart.
#[derive(Default)]
pub struct Segment {
    /// History, then the plain bytes.
    pub(crate) data: Vec<u8>,
    pub(crate) place: Place,
    pub(crate) events: Vec<Event>,
    /// Those of all blocks, one after the other.
    pub(crate) tokens: Vec<Token>,
    /// The bytes of the file that it covers; of the first and the last only some bits may be its own.
    pub(crate) raw: Vec<u8>,
}

impl Segment {
    /// Its plain bytes.
    pub fn plain(&self) -> &[u8] {
        &self.data[self.place.history..]
    }

    /// The plain bytes before it, as far as its copies reach.
    pub fn history(&self) -> &[u8] {
        &self.data[..self.place.history]
    }

    /// At which bit of a byte it begins.
    pub fn start_bit(&self) -> u8 {
        self.place.start_bit
    }

    /// The bits it covers, at their places; bits of its neighbours are 0.
    pub(crate) fn own_bits(&self) -> Vec<u8> {
        let mut raw = self.raw.clone();
        if let Some(first) = raw.first_mut() {
            *first &= 0xff << self.place.start_bit;
        }
        let over = (self.place.start_bit as u64 + self.place.bits) & 7;
        if over != 0 {
            if let Some(last) = raw.last_mut() {
                *last &= (1 << over) - 1;
            }
        }
        raw
    }
}
