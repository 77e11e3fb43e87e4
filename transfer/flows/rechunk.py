"""A base where there is no store: the engine's own images are cut again, which gives the very same chunks and recipes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from transfer.bundle.header import FOLDS
from transfer.bundle.reader import Bundle
from transfer.engines.base import ImageSource, ResolvedImage
from transfer.errors import TransferError
from transfer.events import Event, Noted, Observer, Planned
from transfer.flows.export import export
from transfer.folders import scratch
from transfer.model import Digest, GzipWay

_LEVEL = 1
SCRATCH = ".transfer-base-"


@contextlib.contextmanager
def rechunk(
    source: ImageSource, layers: Sequence[Digest], place: Path, *, jobs: int | None, observer: Observer
) -> Iterator[list[Bundle]]:
    """The images of `source` that hold any of these layers, as a bundle in a temporary folder in `place`; none if there are none.

    Where files in them were taken apart, a second one holds them as they are: what the delta was made with is not known.
    """
    found = holding(source, set(layers))
    if not found:
        yield []
        return
    observer(Noted(f"reading {len(found)} images of {source.where} again: the delta depends on their layers"))
    with scratch(place, SCRATCH) as folder:

        def made(name: str, gzip: GzipWay) -> Bundle:
            quiet = _quieter(observer)
            made = export(source, found, folder / name, level=_LEVEL, jobs=jobs, observer=quiet, gzip=gzip)
            return Bundle(made.bundle)

        first = made("exact", "exact")
        yield [first, made("layers", "layers")] if FOLDS in first.header.features else [first]


def holding(source: ImageSource, layers: set[Digest]) -> list[ResolvedImage]:
    """Images that have any of these layers, fewest first that together hold as many of them as can be had."""
    candidates: list[ResolvedImage] = []
    for listed in source.names():
        with contextlib.suppress(TransferError):
            candidates.append(source.resolve(listed.names[0] if listed.names else str(listed.id), None))
    chosen: list[ResolvedImage] = []
    wanted = set(layers)
    while wanted:
        best = max(candidates, key=lambda f: (len(wanted & {d for d, _ in f.layers}), -f.size), default=None)
        hits = wanted & {digest for digest, _ in best.layers} if best else set()
        if best is None or not hits:
            break
        chosen.append(best)
        wanted -= hits
    return chosen


def _quieter(observer: Observer) -> Observer:
    def tell(event: Event) -> None:
        if isinstance(event, Planned):
            observer(event)

    return tell
