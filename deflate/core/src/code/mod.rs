//! The coding of a segment: events, tokens, headers. One piece of code is the definition of both directions.

mod blocks;
mod headers;
mod prediction;
mod writer;

use crate::crc::{crc32, trailer};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::predict::{Budget, Choice, Emulator, Part};
use crate::range::{number, tree, Coder, Decoder, Encoder, Probability, EVEN, NUMBER};
use crate::segment::{Event, Kind, Place, Segment, HISTORY, MAX_EVENTS};
use crate::token::{span, Token};
use headers::HeaderCoder;
use prediction::Prediction;
pub(crate) use writer::Writer;

/// The tables that one record is coded with, some 3 MB; they may be used for one after the other.
pub struct Tables {
    model: Model,
    pub(crate) emulator: Emulator,
    prediction: Prediction,
    tokens: Vec<Token>,
    /// What emulation gave when a segment of one part was encoded: with the same plain bytes it gives that again.
    remembered: Option<Vec<Token>>,
}

impl Tables {
    pub fn new() -> Tables {
        Tables {
            model: Model::new(),
            emulator: Emulator::new(),
            prediction: Prediction::default(),
            tokens: Vec::new(),
            remembered: None,
        }
    }
}

/// What a payload is coded with beside the place of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// The shortest copy: 3 or 4.
    pub shortest: u8,
    /// For the member that the segment begins in, and for later ones if nothing else is said.
    pub choice: Choice,
}

/// The payload of a segment, and how many tokens the emulation missed out of how many.
pub fn encode(
    tables: &mut Tables,
    segment: &Segment,
    parameters: Parameters,
    choices: &[Choice],
) -> Result<(Vec<u8>, usize)> {
    tables.remembered = None;
    let mut code = Code::new(Encoder::new(), tables, &segment.data, segment.place, parameters);
    code.source = Some(Source { segment, choices, event: 0, token: 0, member: 0 });
    code.begin()?;
    for event in &segment.events {
        code.event(Some(event))?;
        let source = code.source.as_mut().expect("an encoder has a source");
        source.event += 1;
        if matches!(event, Event::Block(block) if !block.ends) {
            return Ok((code.coder.finish(), code.missed));
        }
    }
    code.event(None)?;
    Ok((code.coder.finish(), code.missed))
}

/// The bits that a payload stands for, at their places in bytes; `data` is history and plain bytes.
pub fn decode(
    tables: &mut Tables,
    data: &[u8],
    place: Place,
    parameters: Parameters,
    payload: &[u8],
) -> Result<Vec<u8>> {
    tables.remembered = None;
    decode_encoded(tables, data, place, parameters, payload)
}

/// The same, of what these tables have just encoded: emulation, which takes most of the time, is not run again.
pub fn decode_encoded(
    tables: &mut Tables,
    data: &[u8],
    place: Place,
    parameters: Parameters,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let sound = place.history <= data.len()
        && place.history <= HISTORY
        && place.start_bit < 8
        && place.member_offset <= 1 << 46
        && (place.in_member || (place.history == 0 && place.member_offset == 0));
    if !sound {
        return Err(Error::Recipe("a record lies where it cannot"));
    }
    if !matches!(parameters.shortest, 3 | 4) || !parameters.choice.is_known() {
        return Err(Error::Recipe("a record names an encoder that this version does not know"));
    }
    let mut code = Code::new(Decoder::new(payload), tables, data, place, parameters);
    let mut writer = Writer::new(place);
    code.begin()?;
    for _ in 0..MAX_EVENTS {
        let start = code.at;
        let Some(event) = code.event(None)? else {
            return writer.finish(code.is_done(), place);
        };
        writer.event(&event, &data[start..code.at], &code.tables.tokens)?;
        code.coder.check()?;
        if matches!(&event, Event::Block(block) if !block.ends) {
            return writer.finish(code.is_done(), place);
        }
    }
    Err(Error::Recipe("a record has too many blocks"))
}

/// What an encoder codes.
struct Source<'a> {
    segment: &'a Segment,
    /// One for each member that begins in the segment.
    choices: &'a [Choice],
    event: usize,
    token: usize,
    member: usize,
}

struct Probabilities {
    event: [[Probability; 4]; 4],
    continued: Probability,
    last: Probability,
    kind: [[Probability; 4]; 4],
    no_padding: Probability,
    is_empty: Probability,
    same_length: Probability,
    ends: Probability,
    extent: [[Probability; 4]; 4],
    tokens: [Probability; NUMBER],
    same_header: Probability,
    header_length: [Probability; NUMBER],
    same_choice: Probability,
    unit: [Probability; NUMBER],
    part_length: [Probability; NUMBER],
    derived: Probability,
    run: [Probability; NUMBER],
}

/// What the next block is compared with.
struct Last {
    event: usize,
    kind: usize,
    extent: usize,
    tokens: usize,
    plain: usize,
    stored: u16,
    header: Vec<u8>,
}

const BLOCK: u32 = 0;
const START: u32 = 1;
const END: u32 = 2;
const STOP: u32 = 3;
const NONE: usize = 3;
const LONGEST_HEADER: usize = 70_000;

struct Code<'a, C> {
    coder: C,
    tables: &'a mut Tables,
    data: &'a [u8],
    place: Place,
    source: Option<Source<'a>>,
    probabilities: Box<Probabilities>,
    headers: HeaderCoder,
    last: Last,
    choice: Choice,
    budget: Budget,
    /// The next plain byte.
    at: usize,
    /// Where the member's bytes, or what is known of them, begin.
    lowest: usize,
    in_member: bool,
    is_first: bool,
    missed: usize,
    /// How many parts were predicted.
    parts: usize,
}

impl<'a, C: Coder> Code<'a, C> {
    fn new(coder: C, tables: &'a mut Tables, data: &'a [u8], place: Place, parameters: Parameters) -> Code<'a, C> {
        tables.model.reset(parameters.shortest as usize);
        tables.emulator.reset();
        tables.prediction.clear(place.history);
        let probabilities = Box::new(Probabilities {
            event: [[EVEN; 4]; 4],
            continued: EVEN,
            last: EVEN,
            kind: [[EVEN; 4]; 4],
            no_padding: EVEN,
            is_empty: EVEN,
            same_length: EVEN,
            ends: EVEN,
            extent: [[EVEN; 4]; 4],
            tokens: [EVEN; NUMBER],
            same_header: EVEN,
            header_length: [EVEN; NUMBER],
            same_choice: EVEN,
            unit: [EVEN; NUMBER],
            part_length: [EVEN; NUMBER],
            derived: EVEN,
            run: [EVEN; NUMBER],
        });
        let last =
            Last { event: NONE, kind: NONE, extent: 0, tokens: 16384, plain: 65535, stored: 65535, header: Vec::new() };
        Code {
            coder,
            tables,
            data,
            place,
            source: None,
            probabilities,
            headers: HeaderCoder::new(),
            last,
            choice: parameters.choice,
            budget: Budget::new(),
            at: place.history,
            lowest: if place.in_member { 0 } else { place.history },
            in_member: place.in_member,
            is_first: true,
            missed: 0,
            parts: 0,
        }
    }

    fn is_done(&self) -> bool {
        self.at == self.data.len()
    }

    /// The member that the segment begins in.
    fn begin(&mut self) -> Result<()> {
        if self.place.in_member {
            self.predict(self.place.member_offset, 0)
        } else {
            Ok(())
        }
    }

    /// The next event; an encoder is given it, and gets it back. `None` is the segment's end.
    fn event(&mut self, wanted: Option<&Event>) -> Result<Option<Event>> {
        let kind = match wanted {
            Some(Event::Block(_)) => BLOCK,
            Some(Event::Start(_)) => START,
            Some(Event::End { .. }) => END,
            None => STOP,
        };
        let kind = tree(&mut self.coder, &mut self.probabilities.event[self.last.event], kind, 2);
        self.last.event = kind as usize;
        if kind != STOP && (kind == START) == self.in_member {
            return Err(Error::Recipe("a member begins inside another, or a block outside of one"));
        }
        let event = match kind {
            START => Event::Start(self.start(wanted)?),
            END => self.end(wanted)?,
            BLOCK => Event::Block(self.block(wanted)?),
            _ => return Ok(None),
        };
        self.is_first = false;
        Ok(Some(event))
    }

    fn start(&mut self, wanted: Option<&Event>) -> Result<Vec<u8>> {
        let wanted = if let Some(Event::Start(header)) = wanted { header.as_slice() } else { &[] };
        let probabilities = &mut *self.probabilities;
        if !self.coder.bit(&mut probabilities.same_header, wanted == self.last.header) {
            let length = number(&mut self.coder, &mut probabilities.header_length, wanted.len() as u32)? as usize;
            if length > LONGEST_HEADER {
                return Err(Error::Recipe("a member's header is too long"));
            }
            self.last.header.clear();
            for at in 0..length {
                let byte = wanted.get(at).copied().unwrap_or(0);
                self.last.header.push(self.coder.plain(byte as u32, 8) as u8);
            }
            self.coder.check()?;
        }
        let choice = self.source.as_ref().map_or(self.choice, |source| source.choices[source.member]);
        if !self.coder.bit(&mut probabilities.same_choice, choice == self.choice) {
            let encoder = self.coder.plain(choice.encoder as u32, 8) as u8;
            let unit = number(&mut self.coder, &mut probabilities.unit, choice.unit)?;
            self.choice = Choice { encoder, unit };
            if !self.choice.is_known() {
                return Err(Error::Recipe("a record names an encoder that this version does not know"));
            }
        }
        if let Some(source) = &mut self.source {
            source.member += 1;
        }
        self.lowest = self.at;
        self.in_member = true;
        self.tables.model.forget_places();
        self.predict(0, 1)?;
        Ok(self.last.header.clone())
    }

    fn end(&mut self, wanted: Option<&Event>) -> Result<Event> {
        let (padding, found, derived) = match wanted {
            Some(Event::End { padding, trailer, derived }) => (*padding, *trailer, *derived),
            _ => (0, [0; 8], false),
        };
        let padding = self.padding(padding);
        let derived = self.coder.bit(&mut self.probabilities.derived, derived);
        let mut bytes = found;
        if !derived {
            for byte in &mut bytes {
                *byte = self.coder.plain(*byte as u32, 8) as u8;
            }
        } else if !C::ENCODES {
            let plain = &self.data[self.lowest..self.at];
            bytes = trailer(crc32(0, plain), plain.len() as u64);
        }
        self.in_member = false;
        Ok(Event::End { padding, trailer: bytes, derived })
    }

    /// Emulates the encoder for the member's part that begins here, of which `offset` bytes came before. The part's length is coded, as an
    /// encoder sees where its input ends. `skip` events of the source are before its first block.
    fn predict(&mut self, offset: u64, skip: usize) -> Result<()> {
        self.tables.prediction.clear(self.at);
        if self.choice.encoder == 0 {
            return Ok(());
        }
        let wanted = self.source.as_ref().map_or(0, |source| source.part_length(skip));
        let length = number(&mut self.coder, &mut self.probabilities.part_length, wanted as u32)? as usize;
        if length > self.data.len() - self.at {
            return Err(Error::Recipe("a member's part is longer than the plain bytes"));
        }
        if !C::ENCODES {
            if let Some(tokens) = self.tables.remembered.take() {
                self.tables.prediction.tokens = tokens;
                return Ok(());
            }
        }
        let part = Part { data: &self.data[..self.at + length], lowest: self.lowest, start: self.at, offset };
        self.tables.emulator.run(self.choice, part, &mut self.budget, &mut self.tables.prediction.tokens);
        if let Some(source) = &self.source {
            self.tables.prediction.find_runs(source.blocks(skip));
            let is_only = self.parts == 0;
            self.tables.remembered = is_only.then(|| self.tables.prediction.tokens.clone());
        }
        self.parts += 1;
        Ok(())
    }
}

impl<'a> Source<'a> {
    /// The member's blocks from here on: how many stored bytes, then which tokens.
    fn blocks(&self, skip: usize) -> impl Iterator<Item = (usize, &'a [Token])> + '_ {
        let mut token = self.token;
        self.segment.events[self.event + skip..].iter().map_while(move |event| {
            let Event::Block(block) = event else { return None };
            let stored = if let Kind::Stored { length, .. } = block.kind { length as usize } else { 0 };
            let tokens = &self.segment.tokens[token..token + block.tokens];
            token += block.tokens;
            Some((stored, tokens))
        })
    }

    fn part_length(&self, skip: usize) -> usize {
        self.blocks(skip).map(|(stored, tokens)| stored + span(tokens)).sum()
    }
}
