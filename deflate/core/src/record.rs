//! One record of a recipe: how to make a stretch of the file from its plain bytes.

use crate::choose::Plan;
use crate::code::{self, Parameters, Tables};
use crate::error::{Error, Result};
use crate::predict::{Choice, LARGEST_UNIT};
use crate::segment::{Place, Segment, HISTORY, MAX_PLAIN};

const CODED: u8 = 1;
const RAW: u8 = 2;
/// Bits that are not a symbol's of some plain byte: headers of blocks and members.
const MOST_EXTRA_BYTES: u64 = 16 << 20;

/// What a record covers, read from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// How many plain bytes.
    pub plain: usize,
    /// How many bits of the file.
    pub bits: u64,
    /// How many plain bytes before its own it must be given.
    pub history: usize,
    /// Where its payload begins in the record.
    pub payload: usize,
    /// How long the whole record is.
    pub length: usize,
    place: Place,
    parameters: Option<Parameters>,
}

/// How long the longest head is.
pub const LONGEST_HEAD: usize = 1 + 4 * 10 + 3 + 10;

impl Head {
    /// Reads the head that `bytes` begin with; the payload need not be there. `None` if more bytes are needed.
    pub fn read(bytes: &[u8]) -> Result<Option<Head>> {
        let mut reader = Reader { bytes, at: 0 };
        match reader.head() {
            Ok(head) => Ok(Some(head)),
            Err(None) if bytes.len() < LONGEST_HEAD => Ok(None),
            Err(error) => Err(error.unwrap_or(Error::Recipe("a record's head is too long"))),
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// `None`: the bytes end.
type Short<T> = std::result::Result<T, Option<Error>>;

impl Reader<'_> {
    fn byte(&mut self) -> Short<u8> {
        let byte = *self.bytes.get(self.at).ok_or(None)?;
        self.at += 1;
        Ok(byte)
    }

    fn number(&mut self, most: u64) -> Short<u64> {
        let mut value = 0u64;
        for place in 0..9 {
            let byte = self.byte()?;
            value |= ((byte & 127) as u64) << (7 * place);
            if byte < 128 {
                if value > most {
                    break;
                }
                return Ok(value);
            }
        }
        Err(Some(Error::Recipe("a number of a record is too large")))
    }

    fn head(&mut self) -> Short<Head> {
        let kind = self.byte()?;
        if kind != CODED && kind != RAW {
            return Err(Some(Error::Recipe("a record has a kind that this version does not know")));
        }
        let plain = self.number(MAX_PLAIN as u64)?;
        let bits = self.number(8 * (2 * plain + MOST_EXTRA_BYTES))?;
        let mut place = Place { bits, ..Place::default() };
        let mut parameters = None;
        if kind == CODED {
            let history = self.number(2 * HISTORY as u64 + 1)?;
            place.history = (history >> 1) as usize;
            place.in_member = history & 1 == 1;
            place.member_offset = self.number(1 << 46)?;
            let shortest = self.byte()?;
            let encoder = self.byte()?;
            let unit = self.number(LARGEST_UNIT as u64)? as u32;
            parameters = Some(Parameters { shortest, choice: Choice { encoder, unit } });
        }
        let size = self.number(bits / 8 + 64)? as usize;
        let length = self.at + size;
        Ok(Head { plain: plain as usize, bits, history: place.history, payload: self.at, length, place, parameters })
    }
}

fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value > 127 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A record, and how well it went.
pub struct Made {
    /// The record.
    pub record: Vec<u8>,
    /// Whether the file's bits are held as they are.
    pub is_raw: bool,
    /// How many tokens the segment has.
    pub tokens: usize,
    /// How many of them the emulated encoder did not predict.
    pub missed: usize,
}

/// The record of a segment. It is decoded at once: what would not come back bit for bit is held as it is.
pub fn encode(segment: &Segment, plan: &Plan) -> Made {
    let own = segment.own_bits();
    let mut tables = Tables::new();
    let parameters = Parameters { shortest: shortest(segment), choice: plan.first };
    let tokens = segment.tokens.len();
    let coded = if segment.events.is_empty() {
        None
    } else {
        code::encode(&mut tables, segment, parameters, &plan.starts).ok()
    };
    if let Some((payload, missed)) = coded {
        if payload.len() < own.len() {
            let decoded = code::decode_encoded(&mut tables, &segment.data, segment.place, parameters, &payload);
            if decoded.is_ok_and(|bits| bits == own) {
                let record = record(segment, Some(parameters), &payload);
                return Made { record, is_raw: false, tokens, missed };
            }
        }
    }
    Made { record: record(segment, None, &own), is_raw: true, tokens, missed: tokens }
}

pub(crate) fn shortest(segment: &Segment) -> u8 {
    if segment.tokens.iter().any(|token| token.span() == 3) {
        3
    } else {
        4
    }
}

fn record(segment: &Segment, parameters: Option<Parameters>, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + LONGEST_HEAD);
    let place = segment.place;
    out.push(if parameters.is_some() { CODED } else { RAW });
    put_number(&mut out, segment.plain().len() as u64);
    put_number(&mut out, place.bits);
    if let Some(Parameters { shortest, choice }) = parameters {
        put_number(&mut out, (place.history as u64) << 1 | place.in_member as u64);
        put_number(&mut out, place.member_offset);
        out.extend([shortest, choice.encoder]);
        put_number(&mut out, choice.unit as u64);
    }
    put_number(&mut out, payload.len() as u64);
    out.extend_from_slice(payload);
    out
}

/// The bits of a record, from bit `start_bit` of the first byte on; bits of its neighbours are 0. `data` is as much history as
/// the head says, then the record's plain bytes.
pub fn decode(record: &[u8], start_bit: u8, data: &[u8]) -> Result<Vec<u8>> {
    let head = Head::read(record)?.ok_or(Error::Recipe("a record ends early"))?;
    if record.len() != head.length {
        return Err(Error::Recipe("a record has another length than it says"));
    }
    if data.len() != head.history + head.plain || start_bit > 7 {
        return Err(Error::Recipe("a record is given other plain bytes than it covers"));
    }
    let payload = &record[head.payload..];
    let place = Place { start_bit, ..head.place };
    match head.parameters {
        Some(parameters) => code::decode(&mut Tables::new(), data, place, parameters, payload),
        None => raw(payload, place),
    }
}

fn raw(payload: &[u8], place: Place) -> Result<Vec<u8>> {
    let end = place.start_bit as u64 + place.bits;
    let length = if place.bits == 0 { 0 } else { end.div_ceil(8) };
    let sound = payload.len() as u64 == length
        && payload.first().map_or(true, |first| first & !(0xff << place.start_bit) == 0)
        && (end & 7 == 0 || payload.last().map_or(true, |last| last >> (end & 7) == 0));
    if !sound {
        return Err(Error::Recipe("a record holds bits that are not its own"));
    }
    Ok(payload.to_vec())
}
