//! Whatever comes in, functions end, with a value or an error. `DEFLATE_FUZZ_SECONDS` makes these go on for so long.

use std::time::{Duration, Instant};

use super::odd::stored;
use super::random::{gzip, plain, Random};
use super::{put_together, take_apart};
use crate::code::{self, Parameters, Tables};
use crate::predict::Choice;
use crate::segment::{Place, MAX_PLAIN};
use crate::{decode, Head};

/// Calls with rising seeds for as long as was asked for, and `least` times.
fn go_on(least: u64, mut call: impl FnMut(u64)) {
    let seconds = std::env::var("DEFLATE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let first = std::env::var("DEFLATE_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0u64) << 32;
    let begin = Instant::now();
    let mut count = 0;
    while count < least || begin.elapsed() < Duration::from_secs(seconds) {
        call(first + count);
        count += 1;
    }
    println!("{count} rounds, {:.0} s", begin.elapsed().as_secs_f64());
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            _ if bytes.is_empty() => bytes.push(random.next() as u8),
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.next() as u8),
            4 => drop(bytes.remove(at)),
            _ => {
                let end = (at + random.below(40)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
}

/// A changed gzip file comes back as it is.
#[test]
fn changed_files_come_back() {
    go_on(400, |seed| {
        let mut random = Random::new(seed);
        let mut file = gzip(&mut random);
        mutate(&mut random, &mut file);
        let segment = 1 + random.below(6000);
        let piece = 1 + random.below(5000);
        let trip = take_apart(&file, segment, piece);
        let back = put_together(&trip.plain, &trip.records);
        assert!(back.as_deref() == Ok(&file[..]), "seed {seed}");
    });
}

/// Changed records, and changed plain bytes, make an error or other bytes.
#[test]
fn changed_records_do_no_harm() {
    go_on(400, |seed| {
        let mut random = Random::new(seed);
        let file = if random.one_in(2) { gzip(&mut random) } else { stored(&plain(seed, 3000)) };
        let mut trip = take_apart(&file, 1 + random.below(20_000), 5000);
        for _ in 0..20 {
            let kept = trip.records.clone();
            let at = random.below(trip.records.len());
            if random.one_in(8) {
                mutate(&mut random, &mut trip.plain);
            }
            mutate(&mut random, &mut trip.records[at]);
            let _ = put_together(&trip.plain, &trip.records);
            trip.records = kept;
        }
    });
}

/// Payloads of noise, for every encoder and any place: the head is right, and what follows is not.
#[test]
fn noise_does_no_harm() {
    let mut tables = Tables::new();
    let encoders: Vec<u8> = (0..=255).filter(|encoder| Choice { encoder: *encoder, unit: 0 }.is_known()).collect();
    go_on(600, |seed| {
        let mut random = Random::new(seed);
        let data = if random.one_in(3) { vec![0; random.below(20_000)] } else { plain(seed, random.below(20_000)) };
        let history = random.below(data.len().min(32768) + 1) * random.below(2);
        let in_member = history > 0 || random.one_in(2);
        let place = Place {
            history,
            in_member,
            member_offset: if in_member { (random.next() >> (20 + random.below(40))).min(1 << 46) } else { 0 },
            start_bit: random.below(8) as u8,
            bits: random.below(400_000) as u64,
        };
        let encoder = encoders[random.below(encoders.len())];
        let unit = if random.one_in(2) { 0 } else { 1024 + random.below(200_000) as u32 };
        let choice = Choice { encoder, unit };
        let parameters = Parameters { shortest: 3 + random.below(2) as u8, choice };
        let dense = random.below(256) as u8;
        let payload: Vec<u8> = (0..random.below(300)).map(|_| random.next() as u8 & dense).collect();
        let _ = code::decode(&mut tables, &data, place, parameters, &payload);
    });
}

#[test]
fn heads_of_noise_do_no_harm() {
    go_on(20_000, |seed| {
        let mut random = Random::new(seed);
        let bytes: Vec<u8> =
            (0..random.below(80)).map(|_| if random.one_in(3) { 255 } else { random.next() as u8 & 131 }).collect();
        if let Ok(Some(head)) = Head::read(&bytes) {
            assert!(head.plain <= MAX_PLAIN);
            assert!(head.history <= crate::HISTORY);
        }
        let _ = decode(&bytes, random.below(9) as u8, &[]);
    });
}

/// Text of two letters, over which a level of long chains would search for minutes: work stops at the budget, and the record still fits.
#[test]
fn text_made_to_be_slow_is_bounded() {
    let mut random = Random::new(1);
    let text: Vec<u8> = (0..1 << 18).map(|_| b'a' + random.below(2) as u8).collect();
    let mut tables = Tables::new();
    let place = Place { in_member: true, bits: 1 << 20, ..Place::default() };
    for encoder in [0x19, 0x29, 0x39, 0x41, 0x45, 0x46, 0x11, 0] {
        let parameters = Parameters { shortest: 3, choice: Choice { encoder, unit: 0 } };
        let begin = Instant::now();
        let _ = code::decode(&mut tables, &text, place, parameters, &[0; 40]);
        assert!(begin.elapsed() < Duration::from_secs(120), "encoder {encoder:x}");
    }
}
