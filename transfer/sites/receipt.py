"""Receipts: what a site says it holds, small enough to carry by any way, also retyped from paper."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.errors import FormatError, UsageError
from transfer.model import Digest
from transfer.streams import parse_object

RECEIPT_MAX = 4 << 20
SHORT = 16
"""Bytes of a bundle's digest in the printed form: enough to tell apart any that were ever made."""
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_STANDARD = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_TO_PAPER = str.maketrans(_STANDARD, _ALPHABET)
_FROM_PAPER = str.maketrans(_ALPHABET + "OIL", _STANDARD + _STANDARD[0] + _STANDARD[1] * 2)
_LOOK_ALIKES = str.maketrans("OIL", "011")
NAME_MAX = 64


@dataclass(frozen=True, slots=True)
class Receipt:
    """A site's name, the number of this receipt, the bundles it holds (hex of their digests or the beginning of it), its images' roots.

    `serial` rises whenever what the site holds changes. `roots` is empty in one that was typed in.
    """

    site: str
    serial: int
    bundles: tuple[str, ...]
    roots: tuple[str, ...] = ()

    def encode(self) -> bytes:
        value = {
            "format": "transfer.receipt",
            "version": 1,
            "site": self.site,
            "serial": self.serial,
            "bundles": [f"sha256:{each}" for each in self.bundles],
            "roots": list(self.roots),
        }
        return json.dumps(value, indent=1).encode() + b"\n"

    def text(self) -> str:
        """Lines for paper: each ends with four characters that tell whether it was typed right."""
        lines = [f"RECEIPT {self.site} {self.serial} {len(self.bundles)}"]
        for number, each in enumerate(self.bundles, 1):
            code = base64.b32encode(bytes.fromhex(each)[:SHORT]).decode().rstrip("=").translate(_TO_PAPER)
            groups = [code[at : at + 5] for at in range(0, 20, 5)]
            lines.append(f"{number} {' '.join(groups)} {code[20:]}")
        return "".join(f"{line} {_check(line.split())}\n" for line in lines)


def site_name(text: str) -> str:
    """A site's name: UsageError unless letters, digits, dot, dash and underscore, at most 64."""
    if not text or len(text) > NAME_MAX or not all(c.isascii() and (c.isalnum() or c in "._-") for c in text):
        raise UsageError(
            f"{text!r:.100} is not a site's name", hint="use letters, digits, dots, dashes and underscores, at most 64"
        )
    if text.startswith((".", "-")):
        raise UsageError(f"{text!r} is not a site's name", hint="begin with a letter or a digit")
    return text


def parse_receipt(data: bytes, where: str) -> Receipt:
    """Either form. FormatError says which line was mistyped."""
    if len(data) > RECEIPT_MAX:
        raise FormatError(f"{where}: too large for a receipt")
    if data.lstrip().startswith(b"{"):
        return _parse_json(data, where)
    return _parse_text(data, where)


def _parse_json(data: bytes, where: str) -> Receipt:
    value = parse_object(data, where, RECEIPT_MAX)
    if value.get("format") != "transfer.receipt" or value.get("version") != 1:
        raise FormatError(f"{where}: not a receipt of version 1")
    if not isinstance(value.get("site"), str):
        raise FormatError(f"{where}: a malformed receipt")
    serial, bundles, roots = value.get("serial"), value.get("bundles"), value.get("roots")
    if (
        type(serial) is not int
        or not 0 <= serial < 1 << 53
        or not isinstance(bundles, list)
        or not isinstance(roots, list)
    ):
        raise FormatError(f"{where}: a malformed receipt")
    return Receipt(
        _site(value["site"], where),
        serial,
        tuple(Digest.parse(each, where).hex for each in bundles),
        tuple(str(Digest.parse(each, where)) for each in roots),
    )


def _parse_text(data: bytes, where: str) -> Receipt:
    try:
        lines = [" ".join(line.split()) for line in data.decode("ascii").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: neither form of a receipt", hint="type letters, digits and spaces only") from error
    bodies = []
    for number, line in enumerate(lines, 1):
        body, _, check = line.rpartition(" ")
        if not body or check.upper().translate(_LOOK_ALIKES) != _check(body.split(" ")):
            raise FormatError(f"{where}: line {number} does not match its last four characters", hint="type it again")
        bodies.append(body.split(" "))
    head = bodies[0] if bodies else []
    for each in bodies[1:]:
        each[0] = each[0].upper().translate(_LOOK_ALIKES)
    head[2:] = [number.upper().translate(_LOOK_ALIKES) for number in head[2:]]
    if any(len(each) > 15 for each in head[2:]):
        raise FormatError(f"{where}: a number that is too long")
    if len(head) != 4 or head[0].upper() != "RECEIPT" or not head[2].isdecimal() or not head[3].isdecimal():
        raise FormatError(f"{where}: not a receipt: its first line is RECEIPT, site, number, count and four characters")
    if int(head[3]) != len(bodies) - 1 or [b[0] for b in bodies[1:]] != [str(n) for n in range(1, len(bodies))]:
        raise FormatError(f"{where}: lines are missing or in the wrong order", hint="type all lines in their order")
    return Receipt(_site(head[1], where), int(head[2]), tuple(_unpaper(body[1:], where) for body in bodies[1:]))


def _unpaper(groups: Sequence[str], where: str) -> str:
    code = "".join(groups).upper().translate(_FROM_PAPER)
    try:
        found = base64.b32decode(code + "=" * (-len(code) % 8))
    except ValueError as error:
        raise FormatError(f"{where}: {' '.join(groups)!r:.60} is not a bundle's number") from error
    if len(found) != SHORT:
        raise FormatError(f"{where}: {' '.join(groups)!r:.60} is not a bundle's number")
    return found.hex()


def _check(words: Sequence[str]) -> str:
    """Four characters over a line. Case and look-alikes do not count, but in a site's name they do."""
    named = words[0].upper() == "RECEIPT"
    plain = [each if named and n == 1 else each.upper().translate(_LOOK_ALIKES) for n, each in enumerate(words)]
    text = " ".join(plain) if named else " ".join((plain[0], "".join(plain[1:])))
    crc = zlib.crc32(text.encode()) & 0xFFFFF
    return "".join(_ALPHABET[crc >> shift & 31] for shift in (15, 10, 5, 0))


def _site(text: str, where: str) -> str:
    try:
        return site_name(text)
    except UsageError as error:
        raise FormatError(f"{where}: {error.message}") from error


def matching(receipt: Receipt, known: Iterable[Digest]) -> tuple[list[Digest], list[str]]:
    """The bundles a receipt means, of those that are known, and what it names beside them."""
    digests = list(known)
    found, unknown = [], []
    for each in receipt.bundles:
        hit = next((digest for digest in digests if digest.hex.startswith(each)), None)
        if hit:
            found.append(hit)
        else:
            unknown.append(each)
    return found, unknown


def receipt_file(folder: Path) -> Path:
    """Where a store remembers its own name and the last receipt it gave."""
    return folder / "site.json"
