//! Makes a gzip file of plain bytes as Go's encoder would: `remake LEVEL < PLAIN > FILE`.

use std::io::{Read, Write};

use deflate_recipe::Remaker;

fn main() {
    let level: u8 = std::env::args().nth(1).and_then(|word| word.parse().ok()).expect("a level from 4 to 9");
    let mut remaker = Remaker::new(0x10 + level).expect("a level from 4 to 9");
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut block = vec![0; 1 << 20];
    loop {
        let count = input.read(&mut block).expect("plain bytes");
        if count == 0 {
            break;
        }
        output.write_all(&remaker.feed(&block[..count]).expect("no fault")).expect("a place to write to");
    }
    output.write_all(&remaker.finish().expect("no fault")).expect("a place to write to");
}
