//! The tables of RFC 1951, section 3.2.5 to 3.2.7.

/// The shortest length of each length code, 257 being the first.
pub const LENGTH_BASE: [u16; 29] =
    [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
/// How many bits follow each length code.
pub const LENGTH_EXTRA: [u8; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
/// The shortest distance of each distance code.
pub const DISTANCE_BASE: [u16; 30] = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
    8193, 12289, 16385, 24577,
];
/// How many bits follow each distance code.
pub const DISTANCE_EXTRA: [u8; 30] =
    [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];
/// In which order the lengths of the code-length code stand in a dynamic header.
pub const CODE_LENGTH_ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// The symbol that ends a block.
pub const END_OF_BLOCK: usize = 256;
/// The length code that writes 258 as 227 + 31, as no encoder at hand does and RFC 1951 allows.
pub const LONG_FORM_CODE: usize = 27;

/// Length 3 to 258 -> its usual length code, 0 to 28.
const LENGTH_CODE: [u8; 259] = {
    let mut table = [0u8; 259];
    let mut code = 0;
    while code < 28 {
        let mut k = 0;
        while k < 1usize << LENGTH_EXTRA[code] {
            table[LENGTH_BASE[code] as usize + k] = code as u8;
            k += 1;
        }
        code += 1;
    }
    table[258] = 28;
    table
};

/// Distance - 1 below 256 -> its code; 256 + (distance - 1) / 128 for the others.
const DISTANCE_CODE: [u8; 512] = {
    let mut table = [0u8; 512];
    let mut code = 0;
    while code < 30 {
        let mut k = 0;
        while k < 1usize << DISTANCE_EXTRA[code] {
            let less = DISTANCE_BASE[code] as usize - 1 + k;
            if less < 256 {
                table[less] = code as u8;
            } else {
                table[256 + (less >> 7)] = code as u8;
            }
            k += 1;
        }
        code += 1;
    }
    table
};

/// The usual code of a length of 3 to 258.
#[inline(always)]
pub fn length_code(length: usize) -> usize {
    LENGTH_CODE[length] as usize
}

/// The code of a distance of 1 to 32768.
#[inline(always)]
pub fn distance_code(distance: usize) -> usize {
    let less = (distance - 1) & 0x7fff;
    (if less < 256 { DISTANCE_CODE[less] } else { DISTANCE_CODE[256 + (less >> 7)] }) as usize
}

/// The code lengths of fixed blocks: 288 of literals and lengths, then 32 of distances.
pub fn fixed_lengths() -> [u8; 320] {
    let mut lengths = [8u8; 320];
    lengths[144..256].fill(9);
    lengths[256..280].fill(7);
    lengths[288..].fill(5);
    lengths
}
