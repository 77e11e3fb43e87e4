//! Takes gzip files apart and puts them together again: what a recipe costs, and how long both take on one core.
//!
//!     cargo run --release --example roundtrip -- [--general] FILE...

use std::error::Error;
use std::time::{Duration, Instant};

use deflate_recipe::{decode, encode, Assembler, Chooser, Head, Limits, Parser, Step};

struct Figures {
    plain: u64,
    recipe: usize,
    records: usize,
    raw: usize,
    tokens: usize,
    missed: usize,
    parsing: Duration,
    choosing: Duration,
    coding: Duration,
    decoding: Duration,
    first: String,
}

fn round_trip(file: &[u8], enabled: bool) -> Result<Figures, Box<dyn Error>> {
    let mut parser = Parser::new(Limits::default());
    let mut chooser = Chooser::new(enabled);
    let mut assembler = Assembler::new();
    let mut figures = Figures {
        plain: 0,
        recipe: 0,
        records: 0,
        raw: 0,
        tokens: 0,
        missed: 0,
        parsing: Duration::ZERO,
        choosing: Duration::ZERO,
        coding: Duration::ZERO,
        decoding: Duration::ZERO,
        first: String::new(),
    };
    let mut pieces = file.chunks(256 << 10);
    let mut at = 0;
    loop {
        let begin = Instant::now();
        let step = parser.step();
        figures.parsing += begin.elapsed();
        let segment = match step {
            Step::End => break,
            Step::NeedInput => {
                match pieces.next() {
                    Some(piece) => parser.feed(piece),
                    None => parser.finish(),
                }
                continue;
            }
            Step::Segment(segment) => segment,
        };
        let begin = Instant::now();
        let plan = chooser.choose(&segment);
        figures.choosing += begin.elapsed();
        if figures.records == 0 {
            figures.first = format!("{:x?}", plan.starts.first().unwrap_or(&plan.first));
        }
        let begin = Instant::now();
        let made = encode(&segment, &plan);
        figures.coding += begin.elapsed();
        figures.recipe += made.record.len();
        figures.records += 1;
        figures.raw += made.is_raw as usize;
        figures.tokens += made.tokens;
        figures.missed += made.missed;
        let head = Head::read(&made.record)?.ok_or("a head is short")?;
        let data = [segment.history(), segment.plain()].concat();
        let data = if made.is_raw { segment.plain() } else { &data };
        let begin = Instant::now();
        let bits = decode(&made.record, assembler.start_bit(), data)?;
        figures.decoding += begin.elapsed();
        let bytes = assembler.join(bits, head.bits)?;
        if file.get(at..at + bytes.len()) != Some(&bytes) {
            return Err(format!("differs in the {} bytes from {at} on", bytes.len()).into());
        }
        at += bytes.len();
    }
    if assembler.finish()? != file.len() as u64 || at != file.len() {
        return Err("has another length".into());
    }
    figures.plain = parser.plain();
    Ok(figures)
}

fn main() {
    let (options, files): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|name| name.starts_with("--"));
    for name in files {
        let file = std::fs::read(&name).expect("the file can be read");
        let short = name.rsplit('/').next().unwrap_or(&name);
        match round_trip(&file, options.is_empty()) {
            Err(error) => println!("{short:<28} {error}"),
            Ok(figures) => {
                let rate = |time: Duration| figures.plain as f64 / 1e6 / time.as_secs_f64().max(1e-9);
                println!(
                    "{short:<28} {:>10} B, recipe {:>8} B = {:.4} %, {} records ({} raw), missed {} of {}, {}; MB/s: parse {:.0} choose {:.0} encode+proof {:.0} all {:.1} decode {:.1}",
                    file.len(),
                    figures.recipe,
                    100.0 * figures.recipe as f64 / file.len() as f64,
                    figures.records,
                    figures.raw,
                    figures.missed,
                    figures.tokens,
                    figures.first,
                    rate(figures.parsing),
                    rate(figures.choosing),
                    rate(figures.coding),
                    rate(figures.parsing + figures.choosing + figures.coding),
                    rate(figures.decoding),
                );
            }
        }
    }
}
