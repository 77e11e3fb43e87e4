//! CRC-32 as gzip has it, sixteen bytes at a time.

const TABLES: [[u32; 256]; 16] = {
    let mut tables = [[0u32; 256]; 16];
    let mut i = 0;
    while i < 256 {
        let mut c = i as u32;
        let mut k = 0;
        while k < 8 {
            c = if c & 1 != 0 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 };
            k += 1;
        }
        tables[0][i] = c;
        i += 1;
    }
    let mut j = 1;
    while j < 16 {
        let mut i = 0;
        while i < 256 {
            let before = tables[j - 1][i];
            tables[j][i] = (before >> 8) ^ tables[0][(before & 255) as usize];
            i += 1;
        }
        j += 1;
    }
    tables
};

/// The checksum of what `crc` is the checksum of, followed by `data`; 0 is that of nothing.
pub fn crc32(crc: u32, data: &[u8]) -> u32 {
    let mut c = !crc;
    let mut chunks = data.chunks_exact(16);
    for chunk in &mut chunks {
        let first = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]) ^ c;
        c = 0;
        for (k, byte) in first.to_le_bytes().iter().chain(&chunk[4..]).enumerate() {
            c ^= TABLES[15 - k][*byte as usize];
        }
    }
    for byte in chunks.remainder() {
        c = (c >> 8) ^ TABLES[0][((c ^ *byte as u32) & 255) as usize];
    }
    !c
}

/// The eight bytes that end a gzip member: checksum and length modulo 2^32.
pub fn trailer(crc: u32, length: u64) -> [u8; 8] {
    let mut trailer = [0; 8];
    trailer[..4].copy_from_slice(&crc.to_le_bytes());
    trailer[4..].copy_from_slice(&(length as u32).to_le_bytes());
    trailer
}
