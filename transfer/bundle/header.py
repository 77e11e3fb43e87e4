"""The bundle's header (its OCI config) and manifest: JSON that tells everything a person may want to know at once."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from transfer.errors import FormatError, Unsupported
from transfer.model import OCI_INDEX, OCI_MANIFEST, Descriptor, Digest, Image, Platform
from transfer.streams import canonical_json, parse_object

FORMAT, VERSION = "transfer.bundle", 1
ARTIFACT_TYPE = "application/vnd.transfer.bundle.v1"
CONFIG_TYPE = "application/vnd.transfer.bundle.config.v1+json"
CATALOG_TYPE = "application/vnd.transfer.catalog.v1"
PACK_TYPE = "application/vnd.transfer.pack.v1"
HEADER_MAX = 64 << 20
STATE = ".transfer"
"""The folder of an unfinished export's notes."""
SIGNATURE = "index.json.sig"
PATCH = "patch"
"""The feature of a delta: frames with prefixes, and chunks that others carry."""
KNOWN_FEATURES = frozenset({PATCH})
OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}\n'


def blob_path(digest: Digest) -> str:
    """Where a file named by its digest lies in a bundle's folder."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


@dataclass(frozen=True, slots=True)
class Blob:
    """A pack or catalog file: digest, size, frames in it and their bytes uncompressed."""

    digest: Digest
    size: int
    frames: int
    raw_size: int

    @property
    def path(self) -> str:
        """Where it lies in the bundle folder."""
        return blob_path(self.digest)

    def as_json(self) -> dict[str, Any]:
        return {"digest": str(self.digest), "size": self.size, "frames": self.frames, "raw_size": self.raw_size}


@dataclass(frozen=True, slots=True)
class Header:
    """What a bundle says of itself. `needs` gives, image by image, the frames its layers are made of."""

    created: int
    tool: str
    level: int
    images: tuple[Image, ...]
    needs: tuple[tuple[int, ...], ...]
    catalog: tuple[Blob, ...]
    packs: tuple[Blob, ...]
    totals: dict[str, int]
    prerequisites: dict[str, Any] = field(default_factory=lambda: no_prerequisites())
    features: tuple[str, ...] = ()

    def encode(self) -> bytes:
        return canonical_json(
            {
                "format": FORMAT,
                "version": VERSION,
                "features": list(self.features),
                "created": self.created,
                "tool": self.tool,
                "level": self.level,
                "images": [_image_json(i, n) for i, n in zip(self.images, self.needs, strict=True)],
                "catalog": [blob.as_json() for blob in self.catalog],
                "packs": [blob.as_json() for blob in self.packs],
                "totals": self.totals,
                "prerequisites": self.prerequisites,
            }
        )

    def frames_in(self, pack: Blob) -> range:
        """The numbers of a pack's frames."""
        number = self.packs.index(pack)
        first = sum(each.frames for each in self.packs[:number])
        return range(first, first + pack.frames)

    def users(self, frames: Iterable[int]) -> tuple[str, ...]:
        """The images that any of these frames is needed for."""
        wanted = set(frames)
        pairs = zip(self.images, self.needs, strict=True)
        return tuple(image.label for image, needs in pairs if not wanted.isdisjoint(needs))

    def manifest(self, config: Descriptor) -> bytes:
        """The OCI manifest that lists every file of the bundle."""
        catalogs = [{"mediaType": CATALOG_TYPE, "digest": str(b.digest), "size": b.size} for b in self.catalog]
        packs = [{"mediaType": PACK_TYPE, "digest": str(b.digest), "size": b.size} for b in self.packs]
        return canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "artifactType": ARTIFACT_TYPE,
                "config": config.as_json(),
                "layers": catalogs + packs,
            }
        )


def encode_index(manifest: Descriptor) -> bytes:
    """The bundle's index.json: its commit point."""
    entry = {**manifest.as_json(), "artifactType": ARTIFACT_TYPE}
    return canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})


def parse_index(data: bytes, where: str) -> Descriptor:
    """The descriptor of the bundle's manifest. Unsupported if the folder is another kind of OCI layout."""
    entries = parse_object(data, where).get("manifests")
    if not isinstance(entries, list) or len(entries) != 1 or not isinstance(entries[0], dict):
        raise Unsupported(f"{where}: not a bundle's index", hint="an OCI layout of images is read with --from oci:DIR")
    descriptor = Descriptor.parse(entries[0], where)
    if entries[0].get("artifactType", ARTIFACT_TYPE) != ARTIFACT_TYPE or not descriptor.is_manifest:
        raise Unsupported(
            f"{where}: not a bundle but {entries[0].get('artifactType') or 'an image'!s:.80}",
            hint="an OCI layout of images is read with --from oci:DIR",
        )
    return descriptor


def parse_manifest(data: bytes, where: str) -> tuple[Descriptor, list[Descriptor], list[Descriptor]]:
    """The config's descriptor, the catalogs' and the packs'."""
    value = parse_object(data, where, HEADER_MAX)
    if value.get("artifactType") != ARTIFACT_TYPE:
        raise Unsupported(f"{where}: artifactType {value.get('artifactType')!r:.80} is not a bundle of version 1")
    layers = value.get("layers")
    if not isinstance(layers, list):
        raise FormatError(f"{where}: layers is not a list")
    found = [Descriptor.parse(each, where) for each in layers]
    for each in found:
        if each.media_type not in (CATALOG_TYPE, PACK_TYPE):
            raise Unsupported(f"{where}: a file of type {each.media_type}, which this version does not know")
    config = Descriptor.parse(value.get("config"), where)
    catalogs = [each for each in found if each.media_type == CATALOG_TYPE]
    return config, catalogs, [each for each in found if each.media_type == PACK_TYPE]


def parse_header(data: bytes, where: str) -> Header:
    """FormatError for anything malformed; Unsupported names the version or feature that is not known."""
    value = parse_object(data, where, HEADER_MAX)
    if value.get("format") != FORMAT or value.get("version") != VERSION:
        raise Unsupported(
            f"{where}: format {value.get('format')!r:.40} version {value.get('version')!r:.40}; this program reads {FORMAT} {VERSION}",
            hint="use the version of transfer that made it, or a newer one",
        )
    features = _strings(value, "features", where)
    unknown = sorted(set(features) - KNOWN_FEATURES)
    if unknown:
        raise Unsupported(
            f"{where}: the bundle needs the feature {', '.join(unknown)!r:.100}, which this version does not know",
            hint="use a newer version of transfer",
        )
    images = _list(value, "images", where)
    return Header(
        _number(value, "created", where),
        str(value.get("tool", ""))[:100],
        _number(value, "level", where),
        tuple(_parse_image(each, where) for each in images),
        tuple(parse_ranges(each.get("frames"), where) for each in images),
        tuple(_parse_blob(each, where) for each in _list(value, "catalog", where)),
        tuple(_parse_blob(each, where) for each in _list(value, "packs", where)),
        {key: _number(value["totals"], key, where) for key in _object(value, "totals", where)},
        _prerequisites(_object(value, "prerequisites", where), where),
        tuple(features),
    )


def _prerequisites(value: dict[str, Any], where: str) -> dict[str, Any]:
    bundles = [str(Digest.parse(each, where)) for each in _list(value, "bundles", where)]
    about = _object({"about": {}, **value}, "about", where)
    if not all(isinstance(text, str) and text.isprintable() and len(text) <= 1000 for text in about.values()):
        raise FormatError(f"{where}: prerequisites in words that are none")
    out = {
        "chunks": _number(value, "chunks", where),
        "bytes": _number({"bytes": 0, **value}, "bytes", where),
        "bundles": bundles,
    }
    if about:
        out["about"] = about
    if "layers" in value:
        out["layers"] = [str(Digest.parse(each, where)) for each in _list(value, "layers", where)]
    return out


def no_prerequisites() -> dict[str, Any]:
    """What a bundle needs that is complete in itself."""
    return {"chunks": 0, "bytes": 0, "bundles": []}


def in_words(header: Header) -> str:
    """A bundle in a few words: its images, and the day it was made for."""
    labels = [image.label for image in sorted(header.images, key=lambda image: image.names)]
    more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
    day = datetime.datetime.fromtimestamp(min(header.created, 1 << 36), datetime.UTC).date()
    return f"{', '.join(labels[:3])[:300]}{more}; {day}"


def _image_json(image: Image, needs: Sequence[int]) -> dict[str, Any]:
    return {
        "names": list(image.names),
        "root": image.root.as_json(),
        "config_digest": str(image.config_digest) if image.config_digest else None,
        "documents": [str(each) for each in image.documents],
        "layers": [each.as_json() for each in image.layers],
        "platforms": [str(each) for each in image.platforms],
        "absent": [str(each) for each in image.absent],
        "frames": format_ranges(needs),
    }


def _parse_image(value: object, where: str) -> Image:
    if not isinstance(value, dict):
        raise FormatError(f"{where}: an image is an object")
    names = _strings(value, "names", where)
    if any(len(name) > 1000 or not name.isprintable() or not name.strip() for name in names):
        raise FormatError(f"{where}: an image name with characters that do not belong there")
    config = value.get("config_digest")
    platforms = [each.split("/") for each in _strings(value, "platforms", where)]
    if any(not 2 <= len(each) <= 3 for each in platforms):
        raise FormatError(f"{where}: malformed platform")
    return Image(
        tuple(names),
        Descriptor.parse(value.get("root"), where),
        None if config is None else Digest.parse(config, where),
        tuple(Digest.parse(each, where) for each in _list(value, "documents", where)),
        tuple(Descriptor.parse(each, where) for each in _list(value, "layers", where)),
        tuple(Platform(*each) for each in platforms),
        tuple(Digest.parse(each, where) for each in _list(value, "absent", where)),
    )


def _parse_blob(value: object, where: str) -> Blob:
    if not isinstance(value, dict):
        raise FormatError(f"{where}: a pack's entry is an object")
    digest = Digest.parse(value.get("digest"), where)
    return Blob(digest, *(_number(value, key, where) for key in ("size", "frames", "raw_size")))


def format_ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers as `0-3,7,9-12`."""
    out: list[list[int]] = []
    for number in sorted(set(numbers)):
        if out and number == out[-1][1] + 1:
            out[-1][1] = number
        else:
            out.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in out)


def parse_ranges(text: object, where: str, limit: int = 1 << 22) -> tuple[int, ...]:
    """The numbers `format_ranges` wrote; FormatError if malformed or more than `limit`."""
    if not isinstance(text, str):
        raise FormatError(f"{where}: a list of frames is a string")
    out: list[int] = []
    for part in text.split(",") if text else []:
        first, dash, last = part.partition("-")
        if not first.isdecimal() or len(first) > 9 or (dash and (not last.isdecimal() or len(last) > 9)):
            raise FormatError(f"{where}: malformed frame list {part!r:.40}")
        low, high = int(first), int(last or first)
        if high < low or high - low + len(out) >= limit:
            raise FormatError(f"{where}: malformed frame list {part!r:.40}")
        out.extend(range(low, high + 1))
    return tuple(out)


def _list(value: dict[str, Any], key: str, where: str) -> list[Any]:
    found = value.get(key)
    if not isinstance(found, list):
        raise FormatError(f"{where}: {key} is not a list")
    return found


def _object(value: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    found = value.get(key)
    if not isinstance(found, dict):
        raise FormatError(f"{where}: {key} is not an object")
    return found


def _strings(value: dict[str, Any], key: str, where: str) -> list[str]:
    found = _list(value, key, where)
    if not all(isinstance(each, str) for each in found):
        raise FormatError(f"{where}: {key} are strings")
    return found


def _number(value: dict[str, Any], key: str, where: str) -> int:
    found = value.get(key)
    if type(found) is not int or not 0 <= found < 1 << 60:
        raise FormatError(f"{where}: {key} is not a number in range")
    return found
