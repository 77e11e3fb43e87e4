//! Records that were made by a released version: they are made again as they are, and make the same file.
//!
//! `golden/NAME.recipe` was made of a file by the encoder NAME out of `random::plain(7, 300_000)`, in segments of 64 KiB; `golden/SUMS` has
//! the length and FNV-1a of that file. `DEFLATE_GOLDEN=FOLDER cargo test golden` makes them anew from FOLDER/NAME.gz; `plain` is written there.

use std::path::Path;

use super::random::plain;
use super::{put_together, take_apart};
use crate::{Head, Remaker};

const SEGMENT: usize = 64 << 10;

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ *byte as u64).wrapping_mul(0x100_0000_01b3))
}

fn split(recipe: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let mut rest = recipe;
    while !rest.is_empty() {
        let head = Head::read(rest).expect("the head is sound").expect("the head is whole");
        records.push(rest[..head.length].to_vec());
        rest = &rest[head.length..];
    }
    records
}

#[test]
fn golden_records_stand() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let bytes = plain(7, 300_000);
    assert_eq!(
        fnv(&bytes),
        0x034b_da55_de1d_38e8,
        "{:x}: the plain bytes are others than the records were made for",
        fnv(&bytes)
    );
    if let Ok(source) = std::env::var("DEFLATE_GOLDEN") {
        return make(&folder, Path::new(&source), &bytes);
    }
    let sums = std::fs::read_to_string(folder.join("SUMS")).expect("golden/SUMS is there");
    let mut count = 0;
    for line in sums.lines() {
        let mut words = line.split(' ');
        let name = words.next().expect("a name");
        let length: usize = words.next().and_then(|text| text.parse().ok()).expect("a length");
        let hash = u64::from_str_radix(words.next().expect("a hash"), 16).expect("a hash");
        let recipe = std::fs::read(folder.join(format!("{name}.recipe"))).expect("a recipe");
        let file = put_together(&bytes, &split(&recipe)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((file.len(), fnv(&file)), (length, hash), "{name}");
        let trip = take_apart(&file, SEGMENT, 10_000);
        assert!(trip.records.concat() == recipe, "{name}: another recipe is made of the same file");
        count += 1;
    }
    assert!(count >= 20, "{count} golden records");
}

#[test]
fn golden_files_of_go_are_made_of_their_plain_bytes_alone() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let bytes = plain(7, 300_000);
    for (name, encoder) in [("-1", 0x16), ("4", 0x14), ("5", 0x15), ("7", 0x17), ("8", 0x18), ("9", 0x19)] {
        let recipe = std::fs::read(folder.join(format!("go1.26-{name}.recipe"))).expect("a recipe");
        let file = put_together(&bytes, &split(&recipe)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut remaker = Remaker::new(encoder).expect("a level that is known");
        let mut made = Vec::new();
        for piece in bytes.chunks(70_001) {
            made.extend(remaker.feed(piece).expect("no fault"));
        }
        made.extend(remaker.finish().expect("no fault"));
        assert!(made == file, "go1.26-{name}");
    }
    assert!(Remaker::new(0x11).is_err());
}

fn make(folder: &Path, source: &Path, bytes: &[u8]) {
    std::fs::write(source.join("plain"), bytes).expect("the plain bytes can be written");
    let mut sums = String::new();
    let mut names: Vec<_> =
        source.read_dir().expect("the folder is there").flatten().map(|entry| entry.path()).collect();
    names.sort();
    for path in names.iter().filter(|path| path.extension().is_some_and(|end| end == "gz")) {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let file = std::fs::read(path).expect("the file can be read");
        let trip = take_apart(&file, SEGMENT, 10_000);
        assert!(trip.fault.is_none() && trip.plain == bytes, "{name}: not a gzip file of the plain bytes");
        let recipe = trip.records.concat();
        println!("{name}: {} of {} bytes, encoders {:x?}", recipe.len(), file.len(), trip.encoders);
        std::fs::write(folder.join(format!("{name}.recipe")), &recipe).expect("the recipe can be written");
        sums += &format!("{name} {} {:016x}\n", file.len(), fnv(&file));
    }
    std::fs::write(folder.join("SUMS"), sums).expect("the sums can be written");
}
