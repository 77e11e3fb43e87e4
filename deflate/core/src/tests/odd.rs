//! Whatever is legal comes back; what is not is held as it is from there on.

use super::random::{gzip, plain, Random};
use super::{put_together, round_trip, take_apart};
use crate::crc::{crc32, trailer};

/// A gzip file of stored blocks.
pub fn stored(plain: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut blocks = plain.chunks(65535).peekable();
    while let Some(block) = blocks.next() {
        let size = block.len() as u16;
        out.push(blocks.peek().is_none() as u8);
        out.extend(size.to_le_bytes());
        out.extend((!size).to_le_bytes());
        out.extend(block);
    }
    out.extend(trailer(crc32(0, plain), plain.len() as u64));
    out
}

#[test]
fn random_streams_come_back() {
    let mut coded = 0;
    for seed in 0..300 {
        let file = gzip(&mut Random::new(seed));
        let trip = round_trip(&file);
        assert_eq!(trip.fault, None, "seed {seed}");
        coded += (trip.raw == 0) as usize;
    }
    assert!(coded > 200, "{coded} of 300 were coded");
}

#[test]
fn a_segment_that_ends_inside_a_block_comes_back() {
    let file = gzip(&mut Random::new(5));
    for segment in [1, 100, 1000, 5000] {
        let trip = take_apart(&file, segment, 100);
        assert_eq!(put_together(&trip.plain, &trip.records).as_deref(), Ok(&file[..]));
    }
}

#[test]
fn stored_blocks_come_back_and_cost_little() {
    let bytes = plain(1, 200_000);
    let file = stored(&bytes);
    let trip = round_trip(&file);
    assert_eq!(trip.plain, bytes);
    assert!(trip.records[0].len() < 100);
}

#[test]
fn what_is_no_gzip_is_held_as_it_is() {
    let good = gzip(&mut Random::new(9));
    let mut cut = good.clone();
    cut.truncate(good.len() - 3);
    let mut changed = good.clone();
    let at = changed.len() - 6;
    changed[at] ^= 1;
    let tail = [&good[..], b"something else"].concat();
    let zeros = [&good[..], &[0; 512]].concat();
    for (file, what) in
        [(b"hello".to_vec(), "header"), (cut, "early"), (changed, "checksum"), (tail, "header"), (zeros, "header")]
    {
        let trip = round_trip(&file);
        assert!(trip.fault.as_deref().is_some_and(|fault| fault.contains(what)), "{:?}", trip.fault);
        assert_eq!(trip.raw, trip.records.len());
    }
}

#[test]
fn nothing_is_no_file() {
    let trip = take_apart(b"", 1000, 100);
    assert!(trip.fault.is_some());
    assert!(trip.records.is_empty());
}

#[test]
fn more_members_or_bytes_than_allowed_are_held_as_they_are() {
    use crate::{Limits, Parser, Step};
    let one = stored(b"some bytes");
    let file = one.repeat(5);
    for (limits, what) in [
        (Limits { members: 4, ..Limits::default() }, "members"),
        (Limits { plain: 30, ..Limits::default() }, "plain bytes"),
    ] {
        let mut parser = Parser::new(limits);
        parser.feed(&file);
        parser.finish();
        let mut bits = 0;
        while let Step::Segment(segment) = parser.step() {
            assert!(segment.plain().is_empty());
            bits += segment.place.bits;
        }
        assert_eq!(bits as usize, file.len() * 8);
        assert!(parser.fault().is_some_and(|fault| fault.to_string().contains(what)));
    }
}

/// The length in a trailer is modulo 2^32; here a member is that long.
#[test]
#[ignore = "minutes; the fuzz profile runs it"]
fn more_than_four_gigabytes_come_back() {
    use crate::{decode, encode, Assembler, Chooser, Head, Limits, Parser, Step};
    let zeros = vec![0u8; 65535];
    let (mut crc, mut length) = (0, 0u64);
    let mut parser = Parser::new(Limits::default());
    let (mut chooser, mut assembler) = (Chooser::default(), Assembler::new());
    parser.feed(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    let mut take = |parser: &mut Parser| loop {
        match parser.step() {
            Step::NeedInput => return false,
            Step::End => return true,
            Step::Segment(segment) => {
                let made = encode(&segment, &chooser.choose(&segment));
                assert!(!made.is_raw);
                let head = Head::read(&made.record).unwrap().unwrap();
                let data = [segment.history(), segment.plain()].concat();
                let bits = decode(&made.record, assembler.start_bit(), &data).unwrap();
                assembler.join(bits, head.bits).unwrap();
            }
        }
    };
    while length < (4 << 30) + 100_000 {
        parser.feed(&[0, 255, 255, 0, 0]);
        parser.feed(&zeros);
        crc = crc32(crc, &zeros);
        length += 65535;
        assert!(!take(&mut parser));
    }
    parser.feed(&[1, 0, 0, 255, 255]);
    parser.feed(&trailer(crc, length));
    parser.finish();
    assert!(take(&mut parser));
    assert_eq!(parser.fault(), None);
    assert_eq!(parser.plain(), length);
}
