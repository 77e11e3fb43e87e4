//! A gzip file as Go's compress/gzip (up to Go 1.26, levels 4 to 9) writes it, made of its plain bytes alone.
//!
//! Where a recipe is at hand it says what the encoder chose. Here nothing is: blocks end where Go ends them, and each is written in the way
//! that Go finds the smallest (Go, src/compress/flate, huffman_bit_writer.go, described there). The digest of the whole tells whether
//! it was so.

use crate::assemble::Assembler;
use crate::code::Writer;
use crate::code_lengths::{predict, Counts, Style};
use crate::crc::{crc32, trailer};
use crate::error::{Error, Result};
use crate::header::{DynamicHeader, DISTANCES};
use crate::predict::{slid, Budget, Choice, Emulator, Part};
use crate::segment::{Block, Event, Kind, HISTORY};
use crate::tables::{distance_code, fixed_lengths, length_code, DISTANCE_EXTRA, END_OF_BLOCK, LENGTH_EXTRA};
use crate::token::{span, Token};

/// A block has so many tokens.
const TOKENS: usize = 1 << 14;
/// Plain bytes that are looked at together: more than a block can hold of the longest tokens.
const STRETCH: usize = 8 << 20;
/// So many bytes before the end of what is known, an emulator may lack what comes.
const MARGIN: usize = 1024;
/// A stored block has no more bytes.
const MOST_STORED: usize = 65535;

/// A file on its way.
pub struct Remaker {
    encoder: u8,
    /// Some history, then what is not written yet.
    data: Vec<u8>,
    /// Where that begins.
    start: usize,
    /// How many bytes of the member were written.
    written: u64,
    crc: u32,
    emulator: Emulator,
    assembler: Assembler,
    begun: bool,
}

impl Remaker {
    /// `encoder`: the number of a lazy level of Go's, 0x14 to 0x19.
    pub fn new(encoder: u8) -> Result<Remaker> {
        if !(0x14..=0x19).contains(&encoder) {
            return Err(Error::Recipe("files of this encoder cannot be made of plain bytes alone"));
        }
        Ok(Remaker {
            encoder,
            data: Vec::with_capacity(STRETCH + 2 * HISTORY),
            start: 0,
            written: 0,
            crc: 0,
            emulator: Emulator::at_blocks(),
            assembler: Assembler::new(),
            begun: false,
        })
    }

    /// Takes the next plain bytes; gives the bytes of the file that are known now.
    pub fn feed(&mut self, plain: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.crc = crc32(self.crc, plain);
        for piece in plain.chunks(STRETCH) {
            self.data.extend_from_slice(piece);
            if self.data.len() - self.start >= STRETCH {
                self.stretch(false, &mut out)?;
            }
        }
        Ok(out)
    }

    /// The rest of the file.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.stretch(true, &mut out)?;
        let end = Event::End { padding: 0, trailer: trailer(self.crc, self.written), derived: false };
        let last =
            Block { continued: false, last: true, kind: Kind::Stored { length: 0, padding: 0 }, tokens: 0, ends: true };
        let mut writer = Writer::unbounded(self.assembler.start_bit());
        writer.event(&Event::Block(last), &[], &[])?;
        writer.event(&end, &[], &[])?;
        self.join(writer, &mut out)?;
        self.assembler.finish()?;
        Ok(out)
    }

    /// Writes the blocks that are known to be whole, or all that is left.
    fn stretch(&mut self, is_last: bool, out: &mut Vec<u8>) -> Result<()> {
        let mut tokens = Vec::new();
        let part = Part { data: &self.data, lowest: 0, start: self.start, offset: self.written };
        self.emulator.reset();
        let choice = Choice { encoder: self.encoder, unit: 0 };
        self.emulator.run(choice, part, &mut Budget::new(), &mut tokens);
        let known = if is_last { self.data.len() } else { self.data.len().saturating_sub(MARGIN) };
        let mut writer = Writer::unbounded(self.assembler.start_bit());
        if !self.begun {
            self.begun = true;
            let flags = if self.encoder == 0x19 { 2 } else { 0 };
            writer.event(&Event::Start(vec![31, 139, 8, 0, 0, 0, 0, 0, flags, 255]), &[], &[])?;
        }
        for block in tokens.chunks(TOKENS) {
            let end = self.start + span(block);
            if end > known || (block.len() < TOKENS && !is_last) {
                break;
            }
            self.block(&mut writer, block, end)?;
        }
        if is_last && self.start != self.data.len() {
            return Err(Error::Recipe("the plain bytes take too many steps"));
        }
        self.join(writer, out)?;
        let over = self.start.saturating_sub(HISTORY);
        self.data.drain(..over);
        self.start -= over;
        Ok(())
    }

    fn block(&mut self, writer: &mut Writer, tokens: &[Token], end: usize) -> Result<()> {
        let plain = &self.data[self.start..end];
        let (counts, extra) = counted(plain, tokens);
        let header = predict(Style::Go, &counts);
        let fixed = 3 + weighed(&fixed_lengths(), &counts) + extra;
        let dynamic = 3 + header_size(&header) + weighed(&header.lengths, &counts) + extra;
        let (mut size, mut kind) = (fixed, Kind::Fixed);
        if dynamic < size {
            (size, kind) = (dynamic, Kind::Dynamic(Box::new(header)));
        }
        // Go can store only what its window still has whole
        let is_there = self.written >= slid(self.written + plain.len() as u64);
        if is_there && plain.len() <= MOST_STORED && (plain.len() as u64 + 5) * 8 < size {
            kind = Kind::Stored { length: plain.len() as u16, padding: 0 };
        }
        let is_stored = matches!(kind, Kind::Stored { .. });
        let block = Block { continued: false, last: false, kind, tokens: tokens.len(), ends: true };
        writer.event(&Event::Block(block), plain, if is_stored { &[] } else { tokens })?;
        self.written += plain.len() as u64;
        self.start = end;
        Ok(())
    }

    fn join(&mut self, writer: Writer, out: &mut Vec<u8>) -> Result<()> {
        let (bytes, bits) = writer.into_bits(self.assembler.start_bit());
        out.extend(self.assembler.join(bytes, bits)?);
        Ok(())
    }
}

/// How often a block uses each symbol, and how many bits follow its symbols.
fn counted(plain: &[u8], tokens: &[Token]) -> (Counts, u64) {
    let mut counts = Counts::new();
    counts.literals[END_OF_BLOCK] = 1;
    let (mut at, mut extra) = (0, 0);
    for token in tokens {
        if token.is_literal() {
            counts.literals[plain[at] as usize] += 1;
        } else {
            let (length, distance) = (length_code(token.span()), distance_code(token.distance()));
            counts.literals[END_OF_BLOCK + 1 + length] += 1;
            counts.distances[distance] += 1;
            extra += LENGTH_EXTRA[length] as u64 + DISTANCE_EXTRA[distance] as u64;
        }
        at += token.span();
    }
    if counts.distances.iter().all(|count| *count == 0) {
        counts.distances[0] = 1; // Go counts one, so that there is a tree
    }
    (counts, extra)
}

/// How many bits the symbols take.
fn weighed(lengths: &[u8; 320], counts: &Counts) -> u64 {
    let literals = counts.literals.iter().zip(&lengths[..DISTANCES]);
    let distances = counts.distances.iter().zip(&lengths[DISTANCES..]);
    literals.chain(distances).map(|(count, length)| *count as u64 * *length as u64).sum()
}

/// How many bits a header takes after the block's first three.
fn header_size(header: &DynamicHeader) -> u64 {
    let operations = header.operations.iter().map(|(symbol, _)| {
        let follows = match symbol {
            16 => 2,
            17 => 3,
            18 => 7,
            _ => 0,
        };
        header.code_lengths[*symbol as usize] as u64 + follows
    });
    5 + 5 + 4 + 3 * header.code_length_count as u64 + operations.sum::<u64>()
}
