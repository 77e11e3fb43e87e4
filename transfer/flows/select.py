"""Which images are meant: transports as skopeo writes them, names, IDs and globs."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from transfer.engines.base import Found, ImageSink, ImageSource, Listed, ReadWay
from transfer.errors import NotFound, UsageError
from transfer.events import Noted, Observer, silent
from transfer.model import Image, Platform, Reference, is_name

TRANSPORTS = "docker-daemon:, oci:DIR, docker-archive:FILE, oci-archive:FILE"


def split_transport(text: str) -> tuple[str, str]:
    """`oci:./x` is ("oci", "./x"); UsageError for a transport that is not known."""
    name, colon, rest = text.partition(":")
    if not colon or name not in ("docker-daemon", "oci", "docker-archive", "oci-archive"):
        raise UsageError(f"{text!r:.200} is not a place for images", hint=f"known are {TRANSPORTS}")
    if name != "docker-daemon" and not rest:
        raise UsageError(f"{text!r}: the path is missing", hint=f"known are {TRANSPORTS}")
    return name, rest


def split_path(rest: str) -> tuple[Path, str]:
    """`dir:ref` as skopeo writes it; a path that exists with the colon in it is taken whole."""
    path, colon, reference = rest.partition(":")
    if not colon or Path(rest).exists():
        return Path(rest), ""
    return Path(path), reference


def open_source(text: str, *, via: str = "auto", observer: Observer = silent) -> tuple[ImageSource, list[str]]:
    """The source a --from means (empty: the Docker found here), and the reference it names, if any. `via`: how a Docker's images are read."""
    if via not in get_args(ReadWay):
        raise UsageError(f"--via {via!r:.40}: auto, files or api")
    transport, rest = split_transport(text or "docker-daemon:")
    if transport == "docker-daemon":
        from transfer.engines.daemon import DockerClient
        from transfer.engines.docker import DockerSource

        return DockerSource(DockerClient(), way=cast(ReadWay, via), observer=observer), [rest] if rest else []
    if via != "auto":
        raise UsageError(f"--via {via} is how a Docker daemon's images are read, and {text!r:.200} is none")
    path, reference = split_path(rest)
    return _open_file(path, transport), [reference] if reference else []


def _open_file(path: Path, transport: str) -> ImageSource:
    if transport == "oci":
        from transfer.engines.ocilayout import LayoutSource

        return LayoutSource(path)
    from transfer.engines.archive import open_archive

    return open_archive(path)


def open_file_sink(text: str, platform: Platform | None = None) -> ImageSink | None:
    """The sink a --to means, or None for the Docker daemon, which the load flow opens itself."""
    transport, rest = split_transport(text or "docker-daemon:")
    if transport == "docker-daemon":
        return None
    if transport == "oci":
        from transfer.engines.ocilayout import LayoutSink

        return LayoutSink(Path(rest))
    from transfer.engines.archive import ArchiveSink

    return ArchiveSink(Path(rest), docker=transport == "docker-archive", platform=platform)


def select(source: ImageSource, patterns: Sequence[str], platform: Platform | None, observer: Observer) -> list[Found]:
    """The images that names, IDs and globs pick, each once, in the order of `merge`. NotFound if one picks nothing."""
    listed: list[Listed] | None = None
    found: list[Found] = []
    if not patterns and source.traits.host:
        raise UsageError("name the images to export", hint="`transfer images` lists them; 'app/*' takes all of app")
    for pattern in patterns or ["*"]:
        if not any(mark in pattern for mark in "*?["):
            found.append(source.resolve(pattern, platform))
            continue
        listed = source.names() if listed is None else listed
        hits = _matching(listed, pattern)
        if not hits:
            raise NotFound(f"{source.where} has no image that {pattern!r} matches")
        observer(Noted(f"{pattern} matches {len(hits)} image{'s' * (len(hits) != 1)}"))
        found.extend(source.resolve(each, platform) for each in hits)
    return merge(found)


def _matching(listed: Sequence[Listed], pattern: str) -> list[str]:
    """Names that match the pattern, with or without their tag; nameless images match only `*`, by ID."""
    hits = []
    for image in listed:
        hits += [name for name in image.names if name_matches(name, pattern)]
        if not image.names and pattern == "*":
            hits.append(str(image.id))
    return hits


def name_matches(name: str, pattern: str) -> bool:
    """A glob against a whole name, its repository alone, or its full form."""
    forms = {name}
    if is_name(name):
        reference = Reference.parse(name)
        forms |= {reference.familiar, reference.repository, str(reference)}
    return any(fnmatch.fnmatchcase(form, pattern) for form in forms)


def merge(found: Sequence[Found]) -> list[Found]:
    """One entry an image, with all the names it was picked by; those with few layers first, as an import takes them.

    What is packed in the order in which it will be unpacked is decoded once.
    """
    by_id: dict[str, Found] = {}
    for each in found:
        key = str(each.id)
        known = by_id.get(key)
        names = tuple(sorted({*known.names, *each.names})) if known else tuple(sorted(each.names))
        by_id[key] = replace(each, names=names)
    return sorted(by_id.values(), key=lambda each: (len(each.layers), each.names, str(each.id)))


def choose(images: Sequence[Image], patterns: Sequence[str]) -> list[Image]:
    """The bundle's images that names, globs or digests pick; all without patterns. NotFound for one that picks none."""
    chosen: dict[str, Image] = {}
    for pattern in patterns:
        hits = [image for image in images if _means(image, pattern)]
        if not hits:
            have = ", ".join(image.label for image in images)
            raise NotFound(f"no image in this bundle is called {pattern!r:.200}", hint=f"it holds {have:.600}")
        chosen |= {str(image.root.digest): image for image in hits}
    return [image for image in images if not patterns or str(image.root.digest) in chosen]


def _means(image: Image, pattern: str) -> bool:
    names = {*image.names, *(Reference.parse(name).familiar for name in image.names if is_name(name))}
    wanted = Reference.parse(pattern).familiar if is_name(pattern) else pattern
    digests = [str(each) for each in (image.root.digest, image.config_digest) if each]
    by_digest = any(
        d == pattern or (len(pattern) >= 6 and d.removeprefix("sha256:").startswith(pattern)) for d in digests
    )
    return wanted in names or by_digest or any(name_matches(name, pattern) for name in names)


def _forms(names: Sequence[str]) -> set[str]:
    return {*names, *(Reference.parse(name).familiar for name in names if is_name(name))}


def retagging(
    rules: Sequence[str], images: Sequence[Image] | None = None
) -> Callable[[Sequence[str]], tuple[str, ...]]:
    """What --retag OLD=NEW does to an image's names. UsageError for a rule that is none, or that none of these images is meant by."""
    table: dict[str, str] = {}
    for rule in rules:
        old, equals, new = rule.partition("=")
        if not equals or not old:
            raise UsageError(f"--retag {rule!r:.200}: write it as OLD=NEW")
        key = Reference.parse(old).familiar if is_name(old) else old
        if key in table:
            raise UsageError(f"--retag {rule!r:.200}: {old} is renamed twice", hint="give each name one new one")
        if images is not None and not any(key in _forms(image.names) for image in images):
            raise UsageError(
                f"--retag {rule!r:.200}: none of the images is called {old}", hint="`transfer inspect` lists them"
            )
        table[key] = Reference.parse(new).familiar

    def names(given: Sequence[str]) -> tuple[str, ...]:
        forms = [(name, Reference.parse(name).familiar if is_name(name) else name) for name in given]
        return tuple(dict.fromkeys(table.get(form, table.get(name, name)) for name, form in forms))

    return names
