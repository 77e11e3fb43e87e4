//! Round trips of whatever a gzip file may hold, golden records, and hostile input.

mod golden;
mod hostile;
mod odd;
pub mod random;

use crate::{decode, encode, Assembler, Chooser, Head, Limits, Parser, Step};

/// What became of a file: its plain bytes, its records, and what it was made to again.
pub struct Trip {
    pub plain: Vec<u8>,
    pub records: Vec<Vec<u8>>,
    pub raw: usize,
    pub fault: Option<String>,
    pub encoders: Vec<u8>,
}

/// Takes a file apart, fed in pieces of `piece` bytes.
pub fn take_apart(file: &[u8], segment: usize, piece: usize) -> Trip {
    let mut parser = Parser::new(Limits { segment, ..Limits::default() });
    let mut chooser = Chooser::default();
    let mut trip = Trip { plain: Vec::new(), records: Vec::new(), raw: 0, fault: None, encoders: Vec::new() };
    let mut pieces = file.chunks(piece);
    loop {
        match parser.step() {
            Step::End => break,
            Step::NeedInput => match pieces.next() {
                Some(piece) => parser.feed(piece),
                None => parser.finish(),
            },
            Step::Segment(segment) => {
                let plan = chooser.choose(&segment);
                trip.encoders.push(plan.first.encoder);
                trip.encoders.extend(plan.starts.iter().map(|choice| choice.encoder));
                let made = encode(&segment, &plan);
                trip.plain.extend_from_slice(segment.plain());
                trip.raw += made.is_raw as usize;
                trip.records.push(made.record);
            }
        }
    }
    trip.fault = parser.fault().map(ToString::to_string);
    assert_eq!(parser.plain() as usize, trip.plain.len());
    trip
}

/// Puts a file together from its plain bytes and its records.
pub fn put_together(plain: &[u8], records: &[Vec<u8>]) -> crate::Result<Vec<u8>> {
    let mut assembler = Assembler::new();
    let (mut out, mut at) = (Vec::new(), 0);
    for record in records {
        let head = Head::read(record)?.ok_or(crate::Error::Recipe("a head is cut short"))?;
        let fits = head.history <= at && head.plain <= plain.len() - at;
        let data = if fits { &plain[at - head.history..at + head.plain] } else { &[] };
        let bits = decode(record, assembler.start_bit(), data)?;
        out.extend(assembler.join(bits, head.bits)?);
        at += head.plain;
    }
    assembler.finish()?;
    Ok(out)
}

/// The file comes back, whatever the size of its segments and of the pieces it comes in.
pub fn round_trip(file: &[u8]) -> Trip {
    let trip = take_apart(file, 4 << 20, 1 << 18);
    assert!(put_together(&trip.plain, &trip.records).as_deref() == Ok(file), "the file came back another");
    let short = take_apart(file, 3000, 777);
    assert!(put_together(&short.plain, &short.records).as_deref() == Ok(file), "the file came back another");
    trip
}
