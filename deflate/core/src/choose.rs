//! Which encoder a file looks like.

use std::collections::HashMap;

use crate::code::{self, Parameters, Tables};
use crate::predict::{Budget, Choice, Part};
use crate::record::shortest;
use crate::segment::{Event, Kind, Segment};
use crate::token::{span, Token};

/// How a segment is to be coded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// For the member that the segment begins in.
    pub first: Choice,
    /// For each member that begins in it.
    pub starts: Vec<Choice>,
}

/// The most common first.
const ENCODERS: [u8; 21] = [
    0x16, 0x45, 0x46, 0x11, 0x41, 0x26, 0x19, 0x29, 0x21, 0x14, 0x15, 0x17, 0x18, 0x12, 0x13, 0x22, 0x23, 0x24, 0x25,
    0x27, 0x28,
];
/// pigz's default.
const PIGZ_UNIT: u32 = 131_072;
/// Over how many plain bytes encoders are compared.
const STRETCH: usize = 128 << 10;
/// Over how many a choice is tested again at each segment.
const GLANCE: usize = 32 << 10;
/// A part shorter than this says too little.
const TOO_SHORT: usize = 2000;
/// A choice stays while it hits this share of the tokens.
const GOOD: f64 = 0.98;
/// An encoder that hits less is not worth a try.
const USELESS: f64 = 0.85;
/// How often in a row a choice may disappoint before no more are looked for.
const PATIENCE: usize = 3;
/// Near the end of a stretch an emulator lacks what comes next.
const MARGIN: usize = 300;

/// Chooses for one file, segment after segment in their order. A choice is made on a member's first bytes, kept for all members with the same
/// kind of header, and looked at again where it does not fit any more.
pub struct Chooser {
    tables: Box<Tables>,
    enabled: bool,
    current: Choice,
    /// The size of independent blocks in the member that was begun last, as far as it was seen.
    last_unit: u32,
    disappointments: usize,
    /// By flags, extra flags and operating system of the header: the choice, and on how many bytes it was made.
    known: HashMap<[u8; 3], (Choice, usize)>,
}

/// The part of a member that is in a segment.
struct MemberPart<'a> {
    header: Option<&'a [u8]>,
    lowest: usize,
    start: usize,
    offset: u64,
    length: usize,
    /// Where each block's tokens begin, and the tokens.
    blocks: Vec<(usize, &'a [Token])>,
    /// How many plain bytes come before the first empty stored block: the size of independent blocks.
    flushed_at: Option<usize>,
}

impl Default for Chooser {
    fn default() -> Chooser {
        Chooser::new(true)
    }
}

impl Chooser {
    /// For one file. Not `enabled`, it leaves all to the general model.
    pub fn new(enabled: bool) -> Chooser {
        let tables = Box::new(Tables::new());
        Chooser { tables, enabled, current: Choice::GENERAL, last_unit: 0, disappointments: 0, known: HashMap::new() }
    }

    /// How the next segment is to be coded.
    pub fn choose(&mut self, segment: &Segment) -> Plan {
        let mut plan = Plan { first: self.current, starts: Vec::new() };
        for part in parts(segment) {
            match part.header {
                Some(header) => {
                    if self.enabled {
                        self.start(segment, &part, [header[3], header[8], header[9]]);
                    }
                    plan.starts.push(self.current);
                }
                None => {
                    if self.enabled {
                        self.go_on(segment, &part);
                    }
                    plan.first = self.current;
                }
            }
        }
        plan
    }

    fn start(&mut self, segment: &Segment, part: &MemberPart, kind: [u8; 3]) {
        if let Some((choice, length)) = self.known.get(&kind) {
            let is_well_founded = *length >= STRETCH || part.length < 4 * *length;
            if is_well_founded {
                self.current = *choice;
                return;
            }
        }
        self.disappointments = 0;
        if part.length >= TOO_SHORT {
            self.current = self.best(segment, part);
            self.known.insert(kind, (self.current, part.length));
        }
    }

    fn go_on(&mut self, segment: &Segment, part: &MemberPart) {
        if part.length < TOO_SHORT || self.disappointments >= PATIENCE {
            return;
        }
        if self.hits(segment, part, self.current, GLANCE) >= GOOD {
            self.disappointments = 0;
            return;
        }
        self.disappointments += 1;
        let found = self.best(segment, part);
        // the beginning of a segment may be of a kind that tells little: files that are compressed already
        if found != self.current && self.is_smaller(segment, found, self.current) {
            self.current = found;
        }
    }

    /// The encoder that hits most tokens, if it makes the record smaller.
    fn best(&mut self, segment: &Segment, part: &MemberPart) -> Choice {
        let likely: &[u8] = match part.header.map_or(0, |header| header[8]) {
            2 => &[0x19, 0x29],
            4 => &[0x11, 0x41, 0x21],
            _ => &[],
        };
        let mut best = (0.0, Choice::GENERAL);
        for encoder in likely.iter().chain(&ENCODERS) {
            let choice = Choice { encoder: *encoder, unit: 0 };
            let hits = self.hits(segment, part, choice, STRETCH);
            if hits > best.0 {
                best = (hits, choice);
            }
            if hits == 1.0 {
                break;
            }
        }
        if let Some(in_blocks) = in_blocks(best.1, self.unit(part)) {
            let stretch = (in_blocks.unit as usize + 100_000).min(4 << 20);
            let without = self.hits(segment, part, best.1, stretch);
            let with = self.hits(segment, part, in_blocks, stretch);
            if with > without {
                best = (with, in_blocks);
            }
        }
        match best.0 {
            hits if hits >= GOOD => best.1,
            hits if hits >= USELESS && self.is_smaller(segment, best.1, Choice::GENERAL) => best.1,
            _ => Choice::GENERAL,
        }
    }

    /// The size of independent blocks, as far as it is known.
    fn unit(&mut self, part: &MemberPart) -> Option<u32> {
        match part.flushed_at {
            Some(place) if part.offset == 0 => {
                self.last_unit = place as u32;
                Some(place as u32)
            }
            _ => Some(self.last_unit).filter(|unit| *unit > 0),
        }
    }

    /// Whether the segment's record is smaller with a choice than with another.
    fn is_smaller(&mut self, segment: &Segment, choice: Choice, other: Choice) -> bool {
        let mut size = |choice| {
            let parameters = Parameters { shortest: shortest(segment), choice };
            let starts = vec![choice; segment.events.iter().filter(|event| matches!(event, Event::Start(_))).count()];
            code::encode(&mut self.tables, segment, parameters, &starts)
                .map_or(usize::MAX, |(payload, _)| payload.len())
        };
        size(choice) < size(other)
    }

    /// The share of tokens in the first `stretch` bytes that an encoder would have chosen.
    fn hits(&mut self, segment: &Segment, part: &MemberPart, choice: Choice, stretch: usize) -> f64 {
        if choice == Choice::GENERAL {
            return 0.0;
        }
        let end = part.start + part.length.min(stretch);
        let margin = if part.length > stretch { MARGIN } else { 0 };
        let mut predicted = Vec::new();
        let seen = Part { data: &segment.data[..end], lowest: part.lowest, start: part.start, offset: part.offset };
        self.tables.emulator.reset();
        self.tables.emulator.run(choice, seen, &mut Budget::new(), &mut predicted);
        let (mut hits, mut all) = (0u32, 0u32);
        let (mut next, mut next_place) = (0, part.start);
        for (block, tokens) in &part.blocks {
            let mut place = *block;
            for token in *tokens {
                if place + margin >= end {
                    break;
                }
                while next_place < place && next < predicted.len() {
                    next_place += predicted[next].span();
                    next += 1;
                }
                hits += (next_place == place && predicted.get(next) == Some(token)) as u32;
                all += 1;
                place += token.span();
            }
        }
        if all == 0 {
            0.0
        } else {
            hits as f64 / all as f64
        }
    }
}

fn in_blocks(choice: Choice, unit: Option<u32>) -> Option<Choice> {
    let in_blocks = match choice.encoder {
        0x21..=0x29 => Choice { encoder: choice.encoder + 0x10, unit: unit.unwrap_or(PIGZ_UNIT) },
        0x41..=0x49 => Choice { encoder: choice.encoder, unit: unit? },
        _ => return None,
    };
    Some(in_blocks).filter(|choice| choice.is_known())
}

fn parts(segment: &Segment) -> Vec<MemberPart<'_>> {
    const SMALLEST_UNIT: usize = 16384;
    let place = segment.place;
    let part = |header, lowest, start, offset| MemberPart {
        header,
        lowest,
        start,
        offset,
        length: 0,
        blocks: Vec::new(),
        flushed_at: None,
    };
    let mut parts = Vec::new();
    if place.in_member {
        parts.push(part(None, 0, place.history, place.member_offset));
    }
    let (mut at, mut token) = (place.history, 0);
    for event in &segment.events {
        match event {
            Event::Start(header) => parts.push(part(Some(header.as_slice()), at, at, 0)),
            Event::End { .. } => {}
            Event::Block(block) => {
                let Some(part) = parts.last_mut() else { continue };
                if let Kind::Stored { length, .. } = block.kind {
                    if length == 0 && !block.last && part.flushed_at.is_none() && at - part.start >= SMALLEST_UNIT {
                        part.flushed_at = Some(at - part.start);
                    }
                    at += length as usize;
                }
                let tokens = &segment.tokens[token..token + block.tokens];
                token += block.tokens;
                part.blocks.push((at, tokens));
                at += span(tokens);
                part.length = at - part.start;
            }
        }
    }
    parts
}
