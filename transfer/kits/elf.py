"""What a program or library for Linux says of itself (ELF, 64 bits, little-endian; man 5 elf): its machine and the libraries it needs."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

MACHINES = {62: "x86_64", 183: "aarch64"}
"""`e_machine`, by the kernel's names."""
_DYNAMIC, _LOAD = 2, 1
_NEEDED, _STRTAB, _STRSZ, _SONAME = 1, 5, 10, 14
_ENTRIES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Elf:
    """`machine` as `uname -m` calls it ("" for one that is not in the table); `needed`: names of libraries, such as libz.so.1."""

    machine: str
    needed: tuple[str, ...]
    soname: str


def read_elf(path: Path) -> Elf | None:
    """None for a file that is no ELF file of 64 bits, or whose tables are broken."""
    with path.open("rb") as file:
        if file.read(6) != b"\x7fELF\x02\x01":
            return None
        file.seek(0)
        data = file.read()
    try:
        return _parse(data)
    except (struct.error, IndexError, ValueError, OverflowError, StopIteration):
        return None


def _parse(data: bytes) -> Elf:
    machine = MACHINES.get(struct.unpack_from("<H", data, 18)[0], "")
    start, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    loads, dynamic = [], (0, 0)
    for number in range(count):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, start + number * size)
        if kind == _LOAD:
            loads.append((address, offset, length))
        elif kind == _DYNAMIC:
            dynamic = (offset, length)
    entries = [
        struct.unpack_from("<QQ", data, dynamic[0] + at) for at in range(0, min(dynamic[1], _ENTRIES_MAX * 16), 16)
    ]
    values = {tag: value for tag, value in entries if tag in (_STRTAB, _STRSZ)}
    if _STRTAB not in values:
        return Elf(machine, (), "")
    table = next(
        offset + values[_STRTAB] - address
        for address, offset, length in loads
        if 0 <= values[_STRTAB] - address < length
    )

    def text(at: int) -> str:
        begin = table + at
        return data[begin : data.index(b"\0", begin)].decode("ascii")

    names = tuple(text(value) for tag, value in entries if tag == _NEEDED)
    return Elf(machine, names, next((text(value) for tag, value in entries if tag == _SONAME), ""))
