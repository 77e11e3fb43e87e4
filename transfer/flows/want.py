"""What a site should have: its file's patterns looked up where the images are, each name with the digest it means now."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from transfer.engines.base import BlobStream, ImageSource, Listed, RegistryOptions, ResolvedImage, SourceTraits
from transfer.engines.transports import REGISTRIES
from transfer.errors import NotFound
from transfer.events import Noted, Observer
from transfer.flows.picks import picks
from transfer.flows.select import (
    NotTaken,
    merge,
    name_matches,
    open_source,
    select,
    split_names,
    wanted_platform,
    with_referrers,
)
from transfer.model import Digest, Image, Platform, Reference, familiar, is_name
from transfer.sites.site_file import Pick

_GLOB = "*?["


@dataclass(frozen=True, slots=True)
class Wanted:
    """Names with what they mean (a root's digest, or a config's where the engine knows no other), and the images, to be read from `source`."""

    names: Mapping[str, str]
    images: tuple[ResolvedImage, ...]
    source: ImageSource
    missing: tuple[NotTaken, ...] = ()


class Several:
    """The images of several places as one source. Each is read where it was found."""

    def __init__(self, sources: Sequence[ImageSource], home: Mapping[Digest, ImageSource]) -> None:
        self._sources, self._home = sources, home
        every = [each.traits for each in sources]
        self.traits = SourceTraits(
            all(each.random_access for each in every),
            all(each.keeps_digest for each in every),
            lists=all(each.lists for each in every),
            ranges=all(each.ranges for each in every),
            remote=any(each.remote for each in every),
        )
        self.where = ", ".join(dict.fromkeys(each.where for each in sources))

    def names(self, pattern: str = "") -> list[Listed]:
        return [image for each in self._sources for image in each.names(pattern)]

    def resolve(self, reference: str, platform: Platform | None) -> ResolvedImage:
        for each in self._sources[:-1]:
            try:
                return each.resolve(reference, platform)
            except NotFound:
                continue
        return self._sources[-1].resolve(reference, platform)

    def read(self, images: Sequence[ResolvedImage]) -> Iterator[BlobStream]:
        for source in self._sources:
            own = [each for each in images if self._home[each.id] is source]
            if own:
                yield from source.read(own)

    def images(
        self, found: Sequence[ResolvedImage], documents: dict[Digest, bytes], sizes: Mapping[Digest, int]
    ) -> list[Image]:
        return [image for each in found for image in self._home[each.id].images([each], documents, sizes)]

    def close(self) -> None:
        for each in self._sources:
            each.close()


def look_up(chosen: Sequence[Pick], observer: Observer) -> Wanted:
    """Every pick of a site file. NotFound for a name that is missing, unless its pick says that it may be."""
    sources: list[ImageSource] = []
    home: dict[Digest, ImageSource] = {}
    images: list[ResolvedImage] = []
    missing: list[NotTaken] = []
    try:
        for pick in chosen:
            source, found = _one(pick, observer, missing)
            sources.append(source)
            for each in found:
                home.setdefault(each.id, source)
            images += found
    except BaseException:
        for source in sources:
            source.close()
        raise
    every = merge(images)
    names = {familiar(name): str(each.root.digest if each.root else each.id) for each in every for name in each.names}
    one = sources[0] if len(sources) == 1 else Several(sources, home)
    return Wanted(names, tuple(every), one, tuple(missing))


def _one(pick: Pick, observer: Observer, missing: list[NotTaken]) -> tuple[ImageSource, list[ResolvedImage]]:
    listed = list(pick.select)
    if pick.files:
        found = picks(list(pick.files), ())
        mark = "" if pick.source else f"{REGISTRIES}://"
        listed += [f"{mark}{name}" for name in found.names]
    text, names = split_names(pick.source, listed)
    source, named = open_source(text, observer=observer, registry=RegistryOptions(plain_http=pick.plain_http))
    try:
        exact = _expanded(source, [*named, *names], pick, observer, missing)
        platform = wanted_platform(pick.platform, source, observer)
        gone: list[NotTaken] | None = [] if pick.skip else None
        images = select(source, exact, platform, observer, gone) if exact else []
        images = with_referrers(source, images, observer, gone) if pick.referrers else images
        missing += gone or ()
        return source, images
    except NotFound as error:
        if not pick.skip:
            source.close()
            raise
        missing.append(NotTaken(", ".join(pick.select)[:200], error))  # all of them are missing
        return source, []
    except BaseException:
        source.close()
        raise


def _expanded(
    source: ImageSource, patterns: Sequence[str], pick: Pick, observer: Observer, missing: list[NotTaken]
) -> list[str]:
    """The names that are meant: of a pattern those that match, the newest of each repository, and none that is excluded."""
    out: dict[str, None] = {}
    for pattern in patterns:
        if not any(mark in pattern for mark in _GLOB):
            if not _excluded(pattern, pick):
                out[pattern] = None
            continue
        hits = {
            name: each
            for each in source.names(pattern)
            for name in each.names
            if name_matches(name, pattern) and not _excluded(name, pick)
        }
        if not hits:
            error = NotFound(f"{source.where} has no image that {pattern!r} matches")
            if not pick.skip:
                raise error
            missing.append(NotTaken(pattern, error))
            observer(Noted(error.message))
        out |= dict.fromkeys(_newest(hits, pick.newest))
    return list(out)


def _excluded(name: str, pick: Pick) -> bool:
    return any(name_matches(name, pattern) for pattern in pick.exclude)


def _newest(hits: Mapping[str, Listed], most: int) -> list[str]:
    """So many of each repository: the youngest images, where their age is known, else the highest tags, numbers read as such."""
    if not most:
        return list(hits)
    groups: dict[str, list[str]] = {}
    for name in hits:
        groups.setdefault(Reference.parse(name).repository if is_name(name) else name, []).append(name)
    kept = [
        name
        for group in groups.values()
        for name in sorted(group, key=lambda name: (hits[name].created, _natural(name)), reverse=True)[:most]
    ]
    return [name for name in hits if name in set(kept)]


def _natural(name: str) -> list[tuple[int, int, str]]:
    """1.10 is after 1.9, and 1.9 after 1.9-rc1."""
    tag = name.rpartition(":")[2]
    parts = re.findall(r"\d+|[^\d]+", tag)
    key = [(1, int(part), "") if part.isdecimal() else (0 if part[0] in "-~" else 2, 0, part) for part in parts]
    return [*key, (1, -1, "")]


def satisfied(want: Mapping[str, str], have: Mapping[str, frozenset[str]]) -> bool:
    """Whether every name is there, and means what it should."""
    return all(digest in have.get(name, frozenset()) for name, digest in want.items())


def digests_of(image: Image) -> frozenset[str]:
    """What an image may be called by: the digest of its root, and of its config."""
    return frozenset(str(each) for each in (image.root.digest, image.config_digest) if each)
