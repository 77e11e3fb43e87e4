//! Random numbers, plain bytes, and deflate streams that no encoder would write and every decoder must take.

use crate::bits::BitWriter;
use crate::crc::{crc32, trailer};
use crate::header::{DynamicHeader, DISTANCES};
use crate::prefix::codes;
use crate::tables::*;

/// xorshift64*.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, most: usize) -> usize {
        (self.next() >> 33) as usize % most.max(1)
    }

    pub fn one_in(&mut self, most: usize) -> bool {
        self.below(most) == 0
    }
}

/// Words, numbers, runs and noise, some of it again and again: it compresses about as a layer does.
pub fn plain(seed: u64, size: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let words: Vec<Vec<u8>> =
        (0..400).map(|_| (0..2 + random.below(9)).map(|_| b'a' + random.below(26) as u8).collect()).collect();
    let mut out = Vec::with_capacity(size + 600);
    while out.len() < size {
        match random.below(40) {
            0 => out.extend(std::iter::repeat(random.next() as u8).take(random.below(600))),
            1 => (0..random.below(300)).for_each(|_| out.push(random.next() as u8)),
            2 | 3 if out.len() > 100 => {
                let from = out.len() - 1 - random.below(out.len().min(60_000));
                let to = (from + random.below(3000)).min(out.len());
                out.extend_from_within(from..to);
            }
            4 => out.extend(format!("{:08x}\n", random.next() as u32).bytes()),
            _ => {
                let common = random.below(400) * random.below(400) / 400;
                out.extend_from_slice(&words[common]);
                out.push(if random.one_in(12) { b'\n' } else { b' ' });
            }
        }
    }
    out.truncate(size);
    out
}

/// A gzip file of random members and blocks.
pub fn gzip(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..1 + random.below(3) * random.below(2) {
        let mut flags = 0;
        let mut extra = Vec::new();
        if random.one_in(4) {
            flags |= 4;
            let size = random.below(40);
            extra.extend((size as u16).to_le_bytes());
            extra.extend((0..size).map(|_| random.next() as u8));
        }
        if random.one_in(4) {
            flags |= 8;
            extra.extend(b"a name\0");
        }
        if random.one_in(6) {
            flags |= 2;
            extra.extend([random.next() as u8, random.next() as u8]);
        }
        out.extend([0x1f, 0x8b, 8, flags, 0, random.next() as u8, 0, 0, random.below(5) as u8, 255]);
        out.extend(extra);
        let (deflated, plain) = deflate(random);
        out.extend(deflated);
        out.extend(trailer(crc32(0, &plain), plain.len() as u64));
    }
    out
}

fn deflate(random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    let mut out = BitWriter::new(0, 1000);
    let mut plain = Vec::new();
    let blocks = 1 + random.below(6);
    for block in 0..blocks {
        let last = (block + 1 == blocks) as u64;
        match random.below(4) {
            0 => stored(random, &mut out, &mut plain, last),
            1 => {
                out.put(last | 1 << 1, 3);
                tokens(random, &mut out, &mut plain, &fixed_lengths());
            }
            _ => {
                out.put(last | 2 << 1, 3);
                let header = header(random);
                header.write(&mut out).expect("the header is sound");
                tokens(random, &mut out, &mut plain, &header.lengths);
            }
        }
    }
    out.align(random.next() as u8);
    (out.finish(), plain)
}

fn stored(random: &mut Random, out: &mut BitWriter, plain: &mut Vec<u8>, last: u64) {
    let size = if random.one_in(3) { 0 } else { random.below(2000) };
    let bytes: Vec<u8> = (0..size).map(|_| random.next() as u8).collect();
    out.put(last, 3);
    out.align(if random.one_in(2) { 0 } else { random.next() as u8 });
    out.put(size as u64 | (!(size as u16) as u64) << 16, 32);
    out.put_bytes(&bytes);
    plain.extend(bytes);
}

/// A complete code of a random shape over some symbols; or one of a single bit.
fn code(random: &mut Random, symbols: &[usize], lengths: &mut [u8], limit: u8) {
    if symbols.len() == 1 {
        lengths[symbols[0]] = 1;
        return;
    }
    let mut leaves = vec![0u8];
    while leaves.len() < symbols.len() {
        let at = random.below(leaves.len());
        if leaves[at] < limit {
            leaves[at] += 1;
            leaves.push(leaves[at]);
        }
    }
    for (symbol, length) in symbols.iter().zip(leaves) {
        lengths[*symbol] = length;
    }
}

fn header(random: &mut Random) -> DynamicHeader {
    let mut lengths = [0u8; 320];
    let mut literals: Vec<usize> = (0..286).filter(|_| !random.one_in(3)).collect();
    if !literals.contains(&END_OF_BLOCK) {
        literals.push(END_OF_BLOCK);
    }
    if random.one_in(8) {
        literals = vec![END_OF_BLOCK];
    }
    code(random, &literals, &mut lengths[..DISTANCES], 15);
    let few = random.below(30);
    let distances: Vec<usize> = match random.below(4) {
        0 => vec![],
        1 => vec![few],
        _ => (0..30).filter(|_| !random.one_in(3)).collect(),
    };
    if !distances.is_empty() {
        code(random, &distances, &mut lengths[DISTANCES..], 15);
    }
    let used = |part: &[u8]| part.iter().rposition(|length| *length > 0).map_or(0, |last| last + 1);
    let literal_count = used(&lengths[..286]).max(257 + random.below(2) * random.below(30));
    let distance_count = used(&lengths[DISTANCES..]).max(1);
    let flat = [&lengths[..literal_count], &lengths[DISTANCES..DISTANCES + distance_count]].concat();
    let mut operations = Vec::new();
    let mut at = 0;
    while at < flat.len() {
        let run = flat[at..].iter().take_while(|other| **other == flat[at]).count();
        let before = at > 0 && flat[at - 1] == flat[at];
        let (operation, count) = match random.below(3) {
            0 if flat[at] == 0 && run >= 11 => {
                let count = 11 + random.below(run.min(138) - 10);
                ((18, count as u8 - 11), count)
            }
            1 if flat[at] == 0 && run >= 3 => {
                let count = 3 + random.below(run.min(10) - 2);
                ((17, count as u8 - 3), count)
            }
            _ if before && run >= 3 && random.one_in(2) => {
                let count = 3 + random.below(run.min(6) - 2);
                ((16, count as u8 - 3), count)
            }
            _ => ((flat[at], 0), 1),
        };
        operations.push(operation);
        at += count;
    }
    let mut code_lengths = [0; 19];
    let mut symbols: Vec<usize> = operations.iter().map(|operation| operation.0 as usize).collect();
    symbols.extend([0, 1 + random.below(18)]);
    symbols.sort_unstable();
    symbols.dedup();
    code(random, &symbols, &mut code_lengths, 7);
    let needed = CODE_LENGTH_ORDER.iter().rposition(|symbol| code_lengths[*symbol] > 0).map_or(4, |last| last + 1);
    let code_length_count = if random.one_in(3) { 19 } else { needed.max(4) };
    DynamicHeader { literal_count, distance_count, code_length_count, code_lengths, operations, lengths }
}

fn tokens(random: &mut Random, out: &mut BitWriter, plain: &mut Vec<u8>, lengths: &[u8; 320]) {
    let mut literals = [(0, 0); DISTANCES];
    let mut distances = [(0, 0); 32];
    codes(&lengths[..DISTANCES], &mut literals).expect("the code is sound");
    codes(&lengths[DISTANCES..], &mut distances).expect("the code is sound");
    let bytes: Vec<usize> = (0..256).filter(|symbol| literals[*symbol].1 > 0).collect();
    let copies: Vec<usize> = (0..29).filter(|code| literals[257 + code].1 > 0).collect();
    let near = random.one_in(2);
    for _ in 0..random.below(3000) {
        if !copies.is_empty() && random.one_in(3) {
            let reachable: Vec<usize> =
                (0..30).filter(|code| distances[*code].1 > 0 && DISTANCE_BASE[*code] as usize <= plain.len()).collect();
            if !reachable.is_empty() {
                let symbol = copies[random.below(copies.len())];
                let extra = random.below(1 << LENGTH_EXTRA[symbol]);
                let extra = if symbol == LONG_FORM_CODE && random.one_in(2) { 31 } else { extra };
                let (code, bits) = literals[257 + symbol];
                out.put(code as u64 | (extra as u64) << bits, bits as u32 + LENGTH_EXTRA[symbol] as u32);
                let length = LENGTH_BASE[symbol] as usize + extra;
                let symbol = reachable[random.below(if near { 1 } else { reachable.len() })];
                let most = (plain.len() - DISTANCE_BASE[symbol] as usize + 1).min(1 << DISTANCE_EXTRA[symbol]);
                let extra = random.below(most);
                let (code, bits) = distances[symbol];
                out.put(code as u64 | (extra as u64) << bits, bits as u32 + DISTANCE_EXTRA[symbol] as u32);
                let from = plain.len() - DISTANCE_BASE[symbol] as usize - extra;
                (from..from + length).for_each(|at| plain.push(plain[at]));
                continue;
            }
        }
        if !bytes.is_empty() {
            let byte = bytes[random.below(bytes.len()) * random.below(4) / 4];
            let (code, bits) = literals[byte];
            out.put(code as u64, bits as u32);
            plain.push(byte as u8);
        }
    }
    let (code, bits) = literals[END_OF_BLOCK];
    out.put(code as u64, bits as u32);
}
