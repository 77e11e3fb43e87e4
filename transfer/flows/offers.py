"""The list of a folder's bundles for sites that pull: `offers.json`, beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.bundle.reader import Bundle
from transfer.errors import FormatError, TransferError
from transfer.flows.reassemble import bundles_in
from transfer.model import Digest
from transfer.ship.base import split_name
from transfer.streams import parse_object, publish

FILE = "offers.json"
FILE_MAX = 4 << 20
OFFERS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Offer:
    """A bundle that can be taken: its folder, its digest, and its size (bytes)."""

    folder: str
    digest: Digest
    size: int


def offers(folder: Path) -> list[Offer]:
    """The bundles of a folder that are whole, in the order of their names. What is damaged or not whole is not offered."""
    out = []
    for each in bundles_in(folder):
        try:
            with Bundle(each) as bundle:
                if bundle.missing_packs():
                    continue
                size = bundle.manifest.size + bundle.config.size + len(bundle.index)
                size += sum(blob.size for blob in (*bundle.header.catalog, *bundle.header.packs))
                out.append(Offer(each.name, bundle.manifest.digest, size))
        except TransferError:
            continue
    return sorted(out, key=lambda offer: offer.folder)


def encoded(found: list[Offer]) -> list[dict[str, Any]]:
    return [{"folder": each.folder, "digest": str(each.digest), "bytes": each.size} for each in found]


def write_offers(folder: Path) -> None:
    """The list of a folder, for whoever reaches it over a web server."""
    value = {"format": "transfer.offers", "version": 1, "offers": encoded(offers(folder))}
    publish(folder / FILE, json.dumps(value, indent=1).encode() + b"\n")


def parse_offers(data: bytes, where: str) -> list[Offer]:
    """FormatError for what is no list of offers, or names a folder that could lead elsewhere."""
    value = parse_object(data, where, FILE_MAX)
    listed = value.get("offers")
    if value.get("format") != "transfer.offers" or value.get("version") != 1 or not isinstance(listed, list):
        raise FormatError(f"{where}: not a list of bundles of version 1")
    return sound_offers(listed, where)


def sound_offers(listed: list[Any], where: str) -> list[Offer]:
    """FormatError for an offer that is malformed."""
    out = []
    for each in listed[:OFFERS_MAX]:
        folder, size = (each.get("folder"), each.get("bytes")) if isinstance(each, dict) else (None, None)
        if not isinstance(folder, str) or folder.startswith(".") or len(split_name(folder)) != 1:
            raise FormatError(f"{where}: {folder!r:.100} is not a folder name for a bundle")
        if type(size) is not int or not 0 <= size < 1 << 50:
            raise FormatError(f"{where}: a malformed list of bundles")
        out.append(Offer(folder, Digest.parse(each.get("digest"), where), size))
    return out
