"""SHA256SUMS beside a bundle: what `sha256sum -c SHA256SUMS` checks at any gate. No part of the bundle."""

from __future__ import annotations

from collections.abc import Iterable

from transfer.model import Digest

SUMS = "SHA256SUMS"


def sums(files: Iterable[tuple[str, Digest]]) -> bytes:
    """A line for each file, by its path in the folder, as sha256sum writes them."""
    return "".join(f"{digest.hex}  {name}\n" for name, digest in sorted(files)).encode()
