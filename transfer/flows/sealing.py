"""The end of an export: each image once, when the newest was made, and a last look as an importer would take it."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Sequence

from transfer.bundle.library import EMPTY, BundleList
from transfer.bundle.reader import Bundle
from transfer.bundle.seal import Sealed
from transfer.errors import FormatError, UsageError
from transfer.flows.vouching import vouch
from transfer.model import Digest, Image
from transfer.streams import parse_object


def look_at(sealed: Sealed, base: Sequence[Bundle]) -> None:
    """Open the bundle as an importer would, before it is one. What cannot be imported is no finished export.

    FormatError if it is not sound: that is a bug of this program, told here and not on the far side.
    """
    library = base[0].library if base else EMPTY
    with Bundle(sealed.folder, index=sealed.index, library=BundleList(base, [library])) as bundle:
        bundle.catalog()
        for image in bundle.images:
            vouch(bundle, image)


def merged(images: Sequence[Image]) -> list[Image]:
    """Two picks may turn out to be one image under two names."""
    out: dict[Digest, Image] = {}
    for image in images:
        known = out.get(image.root.digest)
        names = tuple(sorted({*known.names, *image.names})) if known else image.names
        out[image.root.digest] = Image(
            names,
            image.root,
            image.config_digest,
            image.documents,
            image.layers,
            image.platforms,
            image.absent,
        )
    return list(out.values())


def given_time() -> int | None:
    """What SOURCE_DATE_EPOCH says (seconds since 1970); None if it says nothing. UsageError for what is not such a number."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if given and (not given.isdecimal() or len(given) > 12):
        raise UsageError(f"SOURCE_DATE_EPOCH {given!r:.40} is not a number of seconds")
    return int(given) if given else None


def created(images: Sequence[Image], documents: dict[Digest, bytes]) -> int:
    """SOURCE_DATE_EPOCH, or when the newest image was made: the same input gives the same bytes. Seconds since 1970."""
    given = given_time()
    if given is not None:
        return given
    newest = 0
    for image in images:
        with contextlib.suppress(ValueError, TypeError, OverflowError, FormatError):
            if image.config_digest in documents:
                text = parse_object(documents[image.config_digest], "config").get("created")
                newest = max(newest, int(datetime.datetime.fromisoformat(str(text)[:19] + "+00:00").timestamp()))
    return newest
