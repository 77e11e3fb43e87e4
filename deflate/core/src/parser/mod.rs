//! Takes a gzip file apart as it comes in.

mod gzip;
mod tokens;

use crate::bits::Input;
use crate::crc::{crc32, trailer};
use crate::error::{Error, Result};
use crate::header::{DynamicHeader, DISTANCES};
use crate::prefix::{Completeness, Prefix};
use crate::segment::{Block, Event, Kind, Place, Segment, HISTORY, MAX_EVENTS, SEGMENT, SEGMENT_HARD};
use crate::tables::{fixed_lengths, END_OF_BLOCK};
use tokens::Stop;

/// What a parser may be made to hold. Work and memory are bounded by themselves: this is what the caller expects of the file.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Plain bytes of the whole file.
    pub plain: u64,
    /// Members of the whole file.
    pub members: u64,
    /// Plain bytes of a segment; smaller ones are for tests.
    pub segment: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { plain: 1 << 46, members: 1 << 24, segment: SEGMENT }
    }
}

/// What a parser has to say.
pub enum Step {
    /// It needs more of the file.
    NeedInput,
    /// A stretch is taken apart.
    Segment(Box<Segment>),
    /// The file is at its end.
    End,
}

enum State {
    MemberOrEnd,
    BlockStart,
    InBlock,
    MemberEnd,
    /// What is left is passed on as it is.
    Raw,
    Done,
}

/// The largest header of a member, and the largest block of which all must be at hand.
const WINDOW: usize = 70_000;
/// How much of what cannot be taken apart makes a segment.
const RAW_PIECE: usize = 1 << 20;
/// How much more room is made at a time.
const STEP: usize = 1 << 20;
/// How much room behind the plain bytes the parser keeps: a stored block, and a copy.
const ROOM: usize = 66_000;

/// A gzip file on its way in: bytes are fed, segments come out.
pub struct Parser {
    limits: Limits,
    input: Input,
    state: State,
    segment: Segment,
    /// Where the next plain byte goes in `segment.data`, which has room behind.
    filled: usize,
    segment_bit: usize,
    /// Where the member begins in `segment.data`, if it begins there.
    member_start: Option<usize>,
    member_offset: u64,
    member_length: u64,
    crc: u32,
    summed: usize,
    literals: Prefix,
    distances: Prefix,
    code_lengths: Prefix,
    block: Option<Block>,
    block_tokens: usize,
    plain: u64,
    members: u64,
    fault: Option<Error>,
}

impl Parser {
    /// For one file.
    pub fn new(limits: Limits) -> Parser {
        let mut parser = Parser {
            limits,
            input: Input::default(),
            state: State::MemberOrEnd,
            segment: Segment::default(),
            filled: 0,
            segment_bit: 0,
            member_start: None,
            member_offset: 0,
            member_length: 0,
            crc: 0,
            summed: 0,
            literals: Prefix::new(),
            distances: Prefix::new(),
            code_lengths: Prefix::new(),
            block: None,
            block_tokens: 0,
            plain: 0,
            members: 0,
            fault: None,
        };
        parser.make_room();
        parser
    }

    /// The next bytes of the file. Feed some 64 KiB to 1 MiB, then take steps until input is needed.
    pub fn feed(&mut self, piece: &[u8]) {
        self.input.feed(piece);
    }

    /// No more bytes will come.
    pub fn finish(&mut self) {
        self.input.finish();
    }

    /// How many plain bytes the segments had that were given out.
    pub fn plain(&self) -> u64 {
        self.plain
    }

    /// How many members have begun.
    pub fn members(&self) -> u64 {
        self.members
    }

    /// Why the file is passed on as it is from some place on, if it is.
    pub fn fault(&self) -> Option<&Error> {
        self.fault.as_ref()
    }

    /// Goes on as far as it can. From the first segment on that is not sound, or over a limit, all bits come in segments without plain bytes.
    pub fn step(&mut self) -> Step {
        self.sound_step().unwrap_or_else(|error| {
            self.fault = Some(error);
            let place = Place { start_bit: self.segment.place.start_bit, ..Place::default() };
            self.segment = Segment { place, ..Segment::default() };
            (self.filled, self.summed, self.member_start) = (0, 0, None);
            self.state = State::Raw;
            self.raw_step()
        })
    }

    fn raw_step(&mut self) -> Step {
        let there = self.input.real().len() * 8;
        let piece = there.saturating_sub(self.segment_bit);
        if piece == 0 && self.input.ended {
            self.state = State::Done;
            return Step::End;
        }
        if piece < RAW_PIECE * 8 && !self.input.ended {
            return Step::NeedInput;
        }
        self.input.bit = there;
        Step::Segment(self.cut())
    }

    fn sound_step(&mut self) -> Result<Step> {
        loop {
            match self.state {
                State::Done => return Ok(Step::End),
                State::Raw => return Ok(self.raw_step()),
                State::MemberOrEnd => {
                    if !self.input.has_or_ended(WINDOW * 8) {
                        return Ok(Step::NeedInput);
                    }
                    if self.input.left() == 0 {
                        if self.members == 0 {
                            return Err(Error::Gzip("the file is empty"));
                        }
                        self.state = State::Done;
                        if !self.segment.events.is_empty() {
                            return Ok(Step::Segment(self.cut()));
                        }
                        continue;
                    }
                    self.start_member()?;
                }
                State::BlockStart => {
                    if self.is_due() {
                        return Ok(Step::Segment(self.cut()));
                    }
                    if !self.input.has_or_ended(WINDOW * 8) {
                        return Ok(Step::NeedInput);
                    }
                    self.start_block()?;
                }
                State::InBlock => match self.read_tokens()? {
                    Stop::NeedInput => return Ok(Step::NeedInput),
                    Stop::EndOfBlock => {
                        let mut block = self.block.take().expect("a block is open");
                        block.tokens = self.segment.tokens.len() - self.block_tokens;
                        block.ends = true;
                        self.end_block(block);
                    }
                    Stop::Full => {
                        let mut block = self.block.take().expect("a block is open");
                        let rest = Block { continued: true, ..block.clone() };
                        block.tokens = self.segment.tokens.len() - self.block_tokens;
                        self.segment.events.push(Event::Block(block));
                        let segment = self.cut();
                        self.block = Some(rest);
                        self.block_tokens = 0;
                        return Ok(Step::Segment(segment));
                    }
                },
                State::MemberEnd => {
                    if !self.input.has_or_ended(128) {
                        return Ok(Step::NeedInput);
                    }
                    self.end_member()?;
                    if self.is_due() {
                        return Ok(Step::Segment(self.cut()));
                    }
                }
            }
        }
    }

    fn is_due(&self) -> bool {
        self.filled - self.segment.place.history >= self.limits.segment || self.segment.events.len() > MAX_EVENTS - 8
    }

    fn make_room(&mut self) {
        let wanted = self.filled + ROOM;
        if self.segment.data.len() < wanted {
            let most = self.filled.max(SEGMENT_HARD + HISTORY) + ROOM + 300;
            let length = (wanted + STEP).min(most);
            self.segment.data.reserve_exact(length - self.segment.data.len());
            self.segment.data.resize(length, 0);
        }
    }

    fn sum_up(&mut self) {
        self.crc = crc32(self.crc, &self.segment.data[self.summed..self.filled]);
        self.member_length += (self.filled - self.summed) as u64;
        self.summed = self.filled;
    }

    /// Ends the segment here, and begins the next.
    fn cut(&mut self) -> Box<Segment> {
        self.sum_up();
        let plain = self.filled - self.segment.place.history;
        self.plain += plain as u64;
        let in_member = matches!(self.state, State::BlockStart | State::InBlock | State::MemberEnd);
        let mut next = Segment::default();
        if in_member {
            let from = self.member_start.unwrap_or(0).max(self.filled.saturating_sub(HISTORY));
            next.data.extend_from_slice(&self.segment.data[from..self.filled]);
            self.member_offset = match self.member_start {
                Some(start) => (self.filled - start) as u64,
                None => self.member_offset + plain as u64,
            };
            next.place.member_offset = self.member_offset;
        }
        let history = next.data.len();
        next.place = Place { history, in_member, start_bit: (self.input.bit & 7) as u8, ..next.place };
        let mut segment = std::mem::replace(&mut self.segment, next);
        segment.data.truncate(self.filled);
        segment.place.bits = (self.input.bit - self.segment_bit) as u64;
        segment.raw = self.input.bytes()[self.segment_bit >> 3..self.input.bit.div_ceil(8)].to_vec();
        self.input.forget(self.input.bit >> 3);
        self.segment_bit = self.input.bit;
        self.filled = history;
        self.summed = history;
        self.member_start = None;
        self.make_room();
        Box::new(segment)
    }

    fn start_member(&mut self) -> Result<()> {
        let at = self.input.bit >> 3;
        let length = gzip::header_length(&self.input.real()[at..])?;
        self.members += 1;
        if self.members > self.limits.members {
            return Err(Error::Limit("members"));
        }
        let header = self.input.take_bytes(length)?.to_vec();
        self.segment.events.push(Event::Start(header));
        self.member_start = Some(self.filled);
        self.crc = 0;
        self.member_length = 0;
        self.summed = self.filled;
        self.state = State::BlockStart;
        Ok(())
    }

    fn start_block(&mut self) -> Result<()> {
        if self.plain + (self.filled - self.segment.place.history) as u64 > self.limits.plain {
            return Err(Error::Limit("plain bytes"));
        }
        let last = self.input.take(1)? == 1;
        let kind = match self.input.take(2)? {
            0 => {
                let padding = self.input.align()?;
                let length = self.input.take(16)? as u16;
                if length != !(self.input.take(16)? as u16) {
                    return Err(Error::Gzip("a stored block's length and its complement differ"));
                }
                self.make_room();
                let bytes = self.input.take_bytes(length as usize)?;
                self.segment.data[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
                self.filled += length as usize;
                let kind = Kind::Stored { length, padding };
                self.end_block(Block { continued: false, last, kind, tokens: 0, ends: true });
                return Ok(());
            }
            1 => {
                let lengths = fixed_lengths();
                self.literals.build(&lengths[..DISTANCES], Completeness::Any)?;
                self.distances.build(&lengths[DISTANCES..DISTANCES + 30], Completeness::Any)?;
                Kind::Fixed
            }
            2 => {
                let header = DynamicHeader::read(&mut self.input, &mut self.code_lengths)?;
                if header.lengths[END_OF_BLOCK] == 0 {
                    return Err(Error::Gzip("a block cannot end"));
                }
                self.literals.build(&header.lengths[..header.literal_count], Completeness::OneOrAll)?;
                let distances = &header.lengths[DISTANCES..DISTANCES + header.distance_count];
                self.distances.build(distances, Completeness::OneOrAll)?;
                Kind::Dynamic(Box::new(header))
            }
            _ => return Err(Error::Gzip("a block has a type that does not exist")),
        };
        self.block = Some(Block { continued: false, last, kind, tokens: 0, ends: false });
        self.block_tokens = self.segment.tokens.len();
        self.state = State::InBlock;
        Ok(())
    }

    fn end_block(&mut self, block: Block) {
        self.state = if block.last { State::MemberEnd } else { State::BlockStart };
        self.segment.events.push(Event::Block(block));
    }

    fn end_member(&mut self) -> Result<()> {
        let padding = self.input.align()?;
        self.sum_up();
        let mut found = [0; 8];
        found.copy_from_slice(self.input.take_bytes(8)?);
        if found != trailer(self.crc, self.member_length) {
            return Err(Error::Gzip("a member's checksum or length differs from its plain bytes"));
        }
        let derived = self.member_start.is_some();
        self.segment.events.push(Event::End { padding, trailer: found, derived });
        self.member_start = None;
        self.state = State::MemberOrEnd;
        Ok(())
    }
}
