"""Which images are meant: transports as skopeo writes them, names, IDs and globs."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from transfer.engines.base import ImageSource, Listed, Referred, RegistryOptions, ResolvedImage, SourceOptions
from transfer.engines.transports import REGISTRIES, TRANSPORTS, locate
from transfer.errors import NotFound, TransferError, UsageError, one_failure
from transfer.events import Noted, Observer, silent
from transfer.model import Image, Platform, Reference, familiar, is_name


def open_source(
    text: str,
    *,
    via: str = "auto",
    observer: Observer = silent,
    registry: RegistryOptions = RegistryOptions(),  # noqa: B008 - frozen
) -> tuple[ImageSource, list[str]]:
    """The source a --from means (empty: the Docker found here), and the image it names, if any. `via`: how it is to be read."""
    options = SourceOptions(via, observer, registry)
    if text == REGISTRIES:
        return TRANSPORTS[REGISTRIES].open_source("", options), []
    location = locate(text)
    return location.open_source(options), [location.name] if location.name else []


def split_names(text: str, names: Sequence[str]) -> tuple[str, list[str]]:
    """A --from and names, where the names say themselves that they are in registries: `docker://host/app:1`.

    UsageError for some that do and some that do not: they would be in two places.
    """
    mark = f"{REGISTRIES}://"
    marked = [name for name in names if name.startswith(mark)]
    if not marked:
        return text, list(names)
    if text or len(marked) < len(names):
        raise UsageError(
            f"{marked[0]:.100} is in a registry, and other images are not",
            hint="export what is in registries in a run of its own, without --from",
        )
    return REGISTRIES, [name.removeprefix(mark) for name in marked]


def wanted_platform(text: str, source: ImageSource, observer: Observer) -> Platform | None:
    """What --platform means: "all", or one; where nothing is said, this host's for a source whose bytes come over a network."""
    if text == "all":
        return None
    if text:
        return Platform.parse(text)
    if not source.traits.remote:
        return None
    own = Platform.here()
    observer(Noted(f"taking {own} of each image; --platform all takes every platform"))
    return own


def by_digest(rules: Sequence[str], images: Sequence[Image]) -> tuple[list[Image], list[str]]:
    """The images, those renamed that a rule OLD=NEW means by a digest (or its first six digits or more); and the other rules."""
    out, rest = list(images), []
    for rule in rules:
        old, _, new = rule.partition("=")
        text = old.removeprefix("sha256:")
        called = any(familiar(old) in _forms(image.names) for image in images)
        hits = [
            number
            for number, image in enumerate(images)
            if not called and new and re.fullmatch(r"[0-9a-f]{6,64}", text) and _has_digest(image, text)
        ]
        if len(hits) == 1:
            out[hits[0]] = replace(images[hits[0]], names=(Reference.parse(new).familiar,))
        else:
            rest.append(rule)
    return out, rest


def _has_digest(image: Image, beginning: str) -> bool:
    return any(each.hex.startswith(beginning) for each in (image.root.digest, image.config_digest) if each)


def select(
    source: ImageSource,
    patterns: Sequence[str],
    platform: Platform | None,
    observer: Observer,
    failed: list[NotTaken] | None = None,
) -> list[ResolvedImage]:
    """The images that names, IDs and globs pick, each once, in the order of `merge`. NotFound if one picks nothing.

    What cannot be had comes into `failed`, and the others are taken; without it the first failure is raised.
    """
    found: list[ResolvedImage] = []

    def take(reference: str, names: tuple[str, ...] | None = None) -> None:
        try:
            each = _resolved(source, reference, platform)
        except Exception as error:
            if failed is None:
                raise
            failed.append(NotTaken(names[0] if names else reference, one_failure(error, reference)))
            return
        found.append(each if names is None else replace(each, names=names))

    if not patterns and source.traits.host:
        raise UsageError(
            "name the images to export", hint="`transfer images` lists them; 'app/*' chooses all images of app"
        )
    for pattern in patterns or ["*"]:
        if not any(mark in pattern for mark in "*?["):
            take(pattern)
            continue
        listed = source.names(pattern)
        hits = _all(listed) if source.traits.remote else _matching(listed, pattern)
        if not hits:
            raise NotFound(f"{source.where} has no image that {pattern!r} matches")
        count = len({each.id for each, _ in hits})
        observer(Noted(f"{pattern} matches {count} image{'s' * (count != 1)}"))
        shared = Counter(familiar(name) for each in listed for name in each.names)
        for each, name in hits:
            if name and shared[familiar(name)] == 1:
                take(name)
            else:
                take(str(each.id), (name,) if name else ())
    if failed and not found:
        raise failed[0].error
    for note in dict.fromkeys(note for each in found for note in each.notes):
        observer(Noted(note))
    return merge(found)


def with_referrers(
    source: ImageSource, found: Sequence[ResolvedImage], observer: Observer, failed: list[NotTaken] | None = None
) -> list[ResolvedImage]:
    """The images, and what refers to them. UsageError for a source that does not know."""
    if not isinstance(source, Referred):
        raise UsageError(f"{source.where} does not say what refers to an image", hint="--referrers is for docker://")
    out = list(found)
    for each in found:
        try:
            more = source.referrers(each)
        except Exception as error:
            if failed is None:
                raise
            label = each.names[0] if each.names else str(each.id)
            failed.append(NotTaken(f"the referrers of {label}", one_failure(error, label)))
            continue
        if more:
            observer(Noted(f"{each.names[0]}: {len(more)} referrer{'s' * (len(more) != 1)}"))
        out += more
    return merge(out)


def _resolved(source: ImageSource, reference: str, platform: Platform | None) -> ResolvedImage:
    """The image. NotFound names those of the same repository, where the tag alone is wrong or was left out."""
    try:
        return source.resolve(reference, platform)
    except NotFound as error:
        if source.traits.remote:
            raise
        hint = did_you_mean(reference, [name for each in source.names() for name in each.names])
        if not hint:
            raise
        raise NotFound(error.message, hint=hint) from error


def did_you_mean(wanted: str, names: Sequence[str]) -> str:
    """Names of the same repository, or those that are nearly the same; "" for none."""
    if not is_name(wanted) or familiar(wanted) in map(familiar, names):
        return ""
    repository = Reference.parse(wanted).repository
    known = {name: Reference.parse(name) for name in names if is_name(name)}
    near = sorted(name for name, each in known.items() if each.repository == repository and name != wanted)
    near = near or difflib.get_close_matches(familiar(wanted), list(known), 3, 0.8)
    return f"did you mean {', '.join(near[:5])}{' ...' if len(near) > 5 else ''}?" if near else ""


@dataclass(frozen=True, slots=True)
class NotTaken:
    """An image that an export leaves out, and why."""

    label: str
    error: TransferError


def _all(listed: Sequence[Listed]) -> list[tuple[Listed, str]]:
    """What a registry lists is what matched."""
    return [(image, name) for image in listed for name in image.names]


def _matching(listed: Sequence[Listed], pattern: str) -> list[tuple[Listed, str]]:
    """Names that match the pattern, with or without their tag, and whose they are; nameless images ("") match only `*`."""
    hits = []
    for image in listed:
        hits += [(image, name) for name in image.names if name_matches(name, pattern)]
        if not image.names and pattern == "*":
            hits.append((image, ""))
    return hits


def listed_by(patterns: Sequence[str], listed: Sequence[Listed], where: str) -> list[Listed]:
    """Those that names, globs or the beginnings of IDs pick; all without patterns. NotFound for one that picks none."""
    chosen: dict[int, Listed] = {}
    for pattern in patterns:
        hits = {
            n: each
            for n, each in enumerate(listed)
            if any(name_matches(name, pattern) for name in each.names)
            or (len(pattern) >= 6 and each.id.hex.startswith(pattern.removeprefix("sha256:")))
        }
        if not hits:
            raise NotFound(f"{where} has no image that {pattern!r:.200} matches", hint="`transfer images` lists all")
        chosen |= hits
    return [chosen[n] for n in sorted(chosen)] if patterns else list(listed)


def name_matches(name: str, pattern: str) -> bool:
    """A glob against a whole name, its repository alone, or its full form."""
    forms = {name}
    if is_name(name):
        reference = Reference.parse(name)
        forms |= {reference.familiar, reference.repository, str(reference)}
    return any(fnmatch.fnmatchcase(form, pattern) for form in forms)


def merge(found: Sequence[ResolvedImage]) -> list[ResolvedImage]:
    """One entry an image, with all the names it was picked by; those with few layers first, as an import takes them.

    What is packed in the order in which it will be unpacked is decoded once.
    """
    by_id: dict[str, ResolvedImage] = {}
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
            meant = did_you_mean(pattern, [name for image in images for name in image.names])
            raise NotFound(
                f"no image in this bundle is called {pattern!r:.200}", hint=meant or f"the bundle holds {have:.600}"
            )
        chosen |= {str(image.root.digest): image for image in hits}
    return [image for image in images if not patterns or str(image.root.digest) in chosen]


def _means(image: Image, pattern: str) -> bool:
    names = {*image.names, *(Reference.parse(name).familiar for name in image.names if is_name(name))}
    wanted = familiar(pattern)
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
        key = familiar(old)
        if key in table:
            raise UsageError(f"--retag {rule!r:.200}: {old} is renamed twice", hint="give each name only one new name")
        if images is not None and not any(key in _forms(image.names) for image in images):
            raise UsageError(f"--retag {rule!r:.200}: no image is called {old}", hint="`transfer inspect` lists them")
        table[key] = Reference.parse(new).familiar
    places: dict[str, list[Reference]] = {}
    for key, new in table.items():
        if is_name(key) and is_name(new):
            places.setdefault(Reference.parse(key).repository, []).append(Reference.parse(new))

    def names(given: Sequence[str]) -> tuple[str, ...]:
        out: list[str] = []
        for name in given:
            form = familiar(name)
            if form in table or name in table:
                out.append(table.get(form, table.get(name, name)))
            else:
                out += _following(name, places)
        return tuple(dict.fromkeys(out))

    return names


def _following(name: str, places: Mapping[str, Sequence[Reference]]) -> list[str]:
    """What refers to an image by its digest goes where the image goes."""
    own = Reference.parse(name) if is_name(name) else None
    if own is None or not (own.digest or re.match(r"sha(256|512)-[0-9a-f]{64}", own.tag)):
        return [name]
    found = [replace(own, domain=each.domain, path=each.path).familiar for each in places.get(own.repository, ())]
    return found or [name]
