"""The bundle's header (its OCI config) and manifest: JSON that tells everything a person may want to know at once."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from transfer.bundle.members import list_in, number_in, object_in, strings_in
from transfer.bundle.prerequisites import NONE, Prerequisites
from transfer.bundle.ranges import Ranges
from transfer.chunks.pack import BLOB_MAX, FRAMES_MAX
from transfer.errors import FormatError, Unsupported
from transfer.model import OCI_INDEX, OCI_MANIFEST, Descriptor, Digest, Image, Platform, blob_path
from transfer.streams import canonical_json, parse_object

FORMAT, VERSION = "transfer.bundle", 1
ARTIFACT_TYPE = "application/vnd.transfer.bundle.v1"
CONFIG_TYPE = "application/vnd.transfer.bundle.config.v1+json"
CATALOG_TYPE = "application/vnd.transfer.catalog.v1"
PACK_TYPE = "application/vnd.transfer.pack.v1"
HEADER_MAX = 64 << 20
USERS_MAX = 4_000_000
"""Pairs of an image and a stretch of frames that are compared for one answer."""
BLOBS_MAX = 4096
"""Documents and layers together of one image."""
STATE = ".transfer"
"""The folder of an unfinished export's notes."""
SIGNATURE = "index.json.sig"
PATCH = "patch"
"""The feature of a delta: frames with prefixes, and chunks that others carry."""
DEFLATE = "deflate"
"""The feature of a bundle that holds gzip layers taken apart."""
FOLDS = "folds"
"""The feature of a bundle whose layers have compressed files taken apart."""
DIFFERENCE = "difference"
"""The feature of a bundle with frames by subtraction."""
KNOWN_FEATURES = frozenset({PATCH, DEFLATE, FOLDS, DIFFERENCE})
OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}\n'


def own_digest(digest: Digest, where: str) -> Digest:
    """The digest of one of a bundle's own files; FormatError for one that is no sha256."""
    if digest.algorithm != "sha256":
        raise FormatError(f"{where}: a bundle's own files are named by sha256, not {digest.algorithm}")
    return digest


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


@dataclass(frozen=True)
class Header:
    """What a bundle says of itself. `needs` gives, image by image, the frames its layers are made of.

    `held`: why a layer is held as it is, in a few words, for people.
    """

    created: int
    tool: str
    level: int
    images: tuple[Image, ...]
    needs: tuple[Ranges, ...]
    catalog: tuple[Blob, ...]
    packs: tuple[Blob, ...]
    totals: dict[str, int]
    prerequisites: Prerequisites = NONE
    features: tuple[str, ...] = ()
    held: dict[Digest, str] = field(default_factory=dict)

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
                "prerequisites": self.prerequisites.as_json(),
                **({"held": {str(digest): why for digest, why in self.held.items()}} if self.held else {}),
            }
        )

    @cached_property
    def _spans(self) -> dict[Digest, range]:
        out: dict[Digest, range] = {}
        first = 0
        for each in self.packs:
            out.setdefault(each.digest, range(first, first + each.frames))
            first += each.frames
        return out

    def frames_in(self, pack: Blob) -> range:
        """The numbers of a pack's frames."""
        return self._spans[pack.digest]

    def users(self, *spans: range) -> tuple[str, ...]:
        """The images that any of these frames is needed for; all, where to look through them would take for ever."""
        joined: list[range] = []
        for span in sorted(spans, key=lambda each: each.start):
            if joined and span.start <= joined[-1].stop:
                joined[-1] = range(joined[-1].start, max(span.stop, joined[-1].stop))
            else:
                joined.append(span)
        pairs = zip(self.images, self.needs, strict=True)
        every = len(joined) * len(self.images) > USERS_MAX
        return tuple(image.label for image, needs in pairs if every or any(map(needs.meets, joined)))

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
        raise Unsupported(
            f"{where}: this is not the index of a bundle", hint="to read an OCI layout of images, use --from oci:DIR"
        )
    descriptor = Descriptor.parse(entries[0], where)
    if entries[0].get("artifactType", ARTIFACT_TYPE) != ARTIFACT_TYPE or not descriptor.is_manifest:
        raise Unsupported(
            f"{where}: this is not a bundle but {entries[0].get('artifactType') or 'an image'!s:.80}",
            hint="to read an OCI layout of images, use --from oci:DIR",
        )
    own_digest(descriptor.digest, where)
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
    own_digest(config.digest, where)
    catalogs = [each for each in found if each.media_type == CATALOG_TYPE]
    return config, catalogs, [each for each in found if each.media_type == PACK_TYPE]


def agreed(header: Header, catalogs: Sequence[Descriptor], packs: Sequence[Descriptor], where: str) -> None:
    """FormatError unless manifest and header list the same files, and no image needs a frame that no pack has."""
    for listed, blobs in ((catalogs, header.catalog), (packs, header.packs)):
        if [(d.digest, d.size) for d in listed] != [(b.digest, b.size) for b in blobs]:
            raise FormatError(f"{where}: manifest and header name different files")
    if max((each.end for each in header.needs), default=0) > sum(each.frames for each in header.packs):
        raise FormatError(f"{where}: header: an image needs a frame that no pack has")


def parse_header(data: bytes, where: str) -> Header:
    """FormatError for anything malformed; Unsupported names the version or feature that is not known."""
    value = parse_object(data, where, HEADER_MAX)
    if value.get("format") != FORMAT or value.get("version") != VERSION:
        raise Unsupported(
            f"{where}: format {value.get('format')!r:.40} version {value.get('version')!r:.40}; this program reads {FORMAT} {VERSION}",
            hint="use the version of transfer that made it, or a newer one",
        )
    features = strings_in(value, "features", where)
    unknown = sorted(set(features) - KNOWN_FEATURES)
    if unknown:
        raise Unsupported(
            f"{where}: the bundle needs the feature {', '.join(unknown)!r:.100}, which this version does not know",
            hint="use a newer version of transfer",
        )
    images = list_in(value, "images", where)
    packs = tuple(_parse_blob(each, where) for each in list_in(value, "packs", where))
    roots = [
        each["root"].get("digest") for each in images if isinstance(each, dict) and isinstance(each.get("root"), dict)
    ]
    if len(set(map(str, roots))) < len(roots):
        raise FormatError(f"{where}: one image is listed twice")
    frames = sum(each.frames for each in packs)
    if frames > FRAMES_MAX or len({each.digest for each in packs}) < len(packs):
        raise FormatError(f"{where}: {frames} frames in all packs (limit {FRAMES_MAX}), or a pack that is listed twice")
    return Header(
        number_in(value, "created", where),
        str(value.get("tool", ""))[:100],
        number_in(value, "level", where),
        tuple(_parse_image(each, where) for each in images),
        tuple(Ranges.parse(each.get("frames"), where) for each in images),
        tuple(_parse_blob(each, where) for each in list_in(value, "catalog", where)),
        packs,
        {key: number_in(value["totals"], key, where) for key in object_in(value, "totals", where)},
        Prerequisites.parse(object_in(value, "prerequisites", where), where),
        tuple(features),
        _parse_held(value, where),
    )


def _parse_held(value: dict[str, Any], where: str) -> dict[Digest, str]:
    held = object_in(value, "held", where) if "held" in value else {}
    return {Digest.parse(digest, where): str(why)[:200] for digest, why in held.items()}


def in_words(header: Header) -> str:
    """A bundle in a few words: its images, and the day it was made for."""
    labels = [image.label for image in sorted(header.images, key=lambda image: image.names)]
    more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
    day = datetime.datetime.fromtimestamp(min(header.created, 1 << 36), datetime.UTC).date()
    return f"{', '.join(labels[:3])[:300]}{more}; {day}"


def _image_json(image: Image, needs: Ranges) -> dict[str, Any]:
    return {
        "names": list(image.names),
        "root": image.root.as_json(),
        "config_digest": str(image.config_digest) if image.config_digest else None,
        "documents": [str(each) for each in image.documents],
        "layers": [each.as_json() for each in image.layers],
        "platforms": [str(each) for each in image.platforms],
        "absent": [str(each) for each in image.absent],
        "frames": str(needs),
    }


def _parse_image(value: object, where: str) -> Image:
    if not isinstance(value, dict):
        raise FormatError(f"{where}: an image is an object")
    names = strings_in(value, "names", where)
    if any(len(name) > 1000 or not name.isprintable() or not name.strip() for name in names):
        raise FormatError(f"{where}: an image name has characters that are not allowed")
    config = value.get("config_digest")
    if len(list_in(value, "documents", where)) + len(list_in(value, "layers", where)) > BLOBS_MAX:
        raise FormatError(f"{where}: an image with more than {BLOBS_MAX} documents and layers")
    platforms = [each.split("/") for each in strings_in(value, "platforms", where)]
    if any(not 2 <= len(each) <= 3 for each in platforms):
        raise FormatError(f"{where}: malformed platform")
    return Image(
        tuple(names),
        Descriptor.parse(value.get("root"), where),
        None if config is None else Digest.parse(config, where),
        tuple(Digest.parse(each, where) for each in list_in(value, "documents", where)),
        tuple(Descriptor.parse(each, where) for each in list_in(value, "layers", where)),
        tuple(Platform(*each) for each in platforms),
        tuple(Digest.parse(each, where) for each in list_in(value, "absent", where)),
    )


def _parse_blob(value: object, where: str) -> Blob:
    if not isinstance(value, dict):
        raise FormatError(f"{where}: a pack's entry is an object")
    digest = own_digest(Digest.parse(value.get("digest"), where), where)
    size = number_in(value, "size", where)
    if size > BLOB_MAX:
        raise FormatError(f"{where}: {digest} has {size} bytes; no file of a bundle has more than {BLOB_MAX}")
    return Blob(digest, size, *(number_in(value, key, where) for key in ("frames", "raw_size")))
