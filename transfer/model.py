"""The nouns: digests, descriptors, platforms, references and recipes. Frozen values, no input or output."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NewType, Protocol

from transfer.errors import FormatError, UsageError

ChunkId = NewType("ChunkId", bytes)
"""BLAKE3-256 of a chunk's bytes, 32 bytes."""

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIG_TYPES = frozenset({OCI_CONFIG, "application/vnd.docker.container.image.v1+json"})

_DIGEST = re.compile(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})", re.ASCII)
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}", re.ASCII)
_MAX_BLOB = 1 << 50

HUB = "docker.io"
"""Docker Hub, as names have it."""
TEMPORARY = "transfer-import"
"""First part of the repository name that images have while an engine pulls them from this process."""
SITE = "site:"
"""What a base begins with that is what a site has confirmed."""


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A content digest as OCI writes it: `sha256:<64 hex>` (or sha512). Safe in a path by construction."""

    text: str

    @staticmethod
    def parse(text: object, where: str = "digest") -> Digest:
        """The digest, or FormatError: an unchecked digest string must never become a path."""
        if not isinstance(text, str) or not _DIGEST.fullmatch(text):
            raise FormatError(f"{where}: {text!r:.100} is not a sha256 or sha512 digest")
        return Digest(text)

    @property
    def algorithm(self) -> str:
        return self.text.partition(":")[0]

    @property
    def hex(self) -> str:
        return self.text.partition(":")[2]

    @property
    def short(self) -> str:
        return self.hex[:12]

    def __str__(self) -> str:
        return self.text


def blob_path(digest: Digest) -> str:
    """Where a file named by its digest lies in a bundle, a layout or an archive."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


@dataclass(frozen=True, slots=True)
class Platform:
    """Operating system, architecture and variant, as in an OCI index."""

    os: str
    architecture: str
    variant: str = ""

    @staticmethod
    def parse(text: str) -> Platform:
        """`linux/arm64` or `linux/arm/v7`; UsageError otherwise."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(re.fullmatch(r"[A-Za-z0-9_.-]+", part) for part in parts):
            raise UsageError(f"--platform {text!r}: write it as os/architecture or os/architecture/variant")
        return Platform(*parts)

    @staticmethod
    def here() -> Platform:
        """What this host runs."""
        machine = os.uname().machine
        known = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
        return Platform("linux", known.get(machine, machine), "v7" if machine == "armv7l" else "")

    def accepts(self, other: Platform | None) -> bool:
        """Whether an entry of `other` serves a request for this platform."""
        if other is None or (self.os, self.architecture) != (other.os, other.architecture):
            return False
        return not self.variant or not other.variant or self.variant == other.variant

    def rank(self, other: Platform) -> int:
        """How well an image for `other` suits this platform: 0 not at all, the more the better. Variants as containerd takes them."""
        if (self.os, self.architecture) != (other.os, other.architecture):
            return 0
        mine, theirs = (_VARIANTS.get((each.architecture, each.variant), each.variant) for each in (self, other))
        if mine == theirs:
            return 1000
        if self.architecture == "arm" and re.fullmatch(r"v[5-8]", mine) and re.fullmatch(r"v[5-8]", theirs):
            return int(theirs[1]) if theirs < mine else 0
        if not self.variant:
            return 1
        return 2 if not theirs else 0

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


_VARIANTS = {("arm64", "v8"): "", ("amd64", "v1"): "", ("arm", ""): "v7"}
"""Variants that mean what no variant means, or the other way round."""


class Addressed(Protocol):
    """What is named by its digest, and its size (bytes): descriptors, packs, recovery files."""

    @property
    def digest(self) -> Digest: ...

    @property
    def size(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a blob is, how large, and its digest (OCI image-spec, descriptor.md). Sizes in bytes."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    @staticmethod
    def parse(value: object, where: str) -> Descriptor:
        """From parsed JSON; FormatError for anything that is not a well-formed descriptor."""
        if not isinstance(value, dict):
            raise FormatError(f"{where}: a descriptor is an object")
        media_type, size = value.get("mediaType", ""), value.get("size")
        if not isinstance(media_type, str) or not _MEDIA_TYPE.fullmatch(media_type):
            raise FormatError(f"{where}: bad mediaType {media_type!r:.100}")
        if type(size) is not int or not 0 <= size <= _MAX_BLOB:
            raise FormatError(f"{where}: bad size {size!r:.40}")
        annotations = value.get("annotations") or {}
        if not isinstance(annotations, dict) or not all(isinstance(v, str) for v in annotations.values()):
            raise FormatError(f"{where}: annotations are strings")
        return Descriptor(
            media_type,
            Digest.parse(value.get("digest"), where),
            size,
            _platform(value.get("platform"), where),
            annotations,
        )

    def as_json(self) -> dict[str, Any]:
        """The three required members, in the order Go's tools write them."""
        return {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEX_TYPES

    @property
    def is_manifest(self) -> bool:
        return self.media_type in MANIFEST_TYPES


def _platform(value: object, where: str) -> Platform | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise FormatError(f"{where}: a platform is an object")
    parts = [value.get(name, "") for name in ("os", "architecture", "variant")]
    if not all(isinstance(part, str) and len(part) < 100 for part in parts):
        raise FormatError(f"{where}: a platform's members are strings")
    return Platform(*parts)


GzipWay = Literal["exact", "layers", "opaque"]
"""What is taken apart, so that it can be put together again bit for bit: gzip layers and the files in them that are compressed inside, the layers alone, or nothing."""


@dataclass(frozen=True, slots=True)
class Part:
    """How to rebuild a stretch of a blob: skeleton and payload chunks in turn.

    Before payload chunk i, `gaps[i]` bytes of the skeleton are copied; `gaps[-1]` is what follows the last payload,
    so len(gaps) == len(payload) / 32 + 1. `skeleton` and `payload` are chunk names, 32 bytes each, end to end.
    """

    skeleton: bytes
    payload: bytes
    gaps: Sequence[int]


@dataclass(frozen=True, slots=True)
class Folds:
    """What makes a blob of its unfolded bytes, of which there are `size`: the deflate streams inside its files are made again.

    `names` are the chunks that say how, 32 bytes each, end to end; `leads` has for each the unfolded bytes that come before it (FORMAT.md, section 14).
    """

    size: int
    names: bytes
    leads: Sequence[int]

    def runs(self) -> Iterator[tuple[int, int]]:
        """Folds go on from chunk to chunk, but for a new run where something is copied before: how much, and the run's number of chunks."""
        starts = [n for n, lead in enumerate(self.leads) if lead or not n]
        for start, end in pairwise([*starts, len(self.leads)]):
            yield self.leads[start], end - start


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to rebuild one blob, byte for byte: its parts in order. `encoding`: 0 plain, 1 opaque, 2 put together, 3 folded (FORMAT.md).

    Of a blob that is put together, the parts make the records that do it, from the bytes of the blob `plain`, which has a recipe of its own.
    Of one that is folded, the parts make its unfolded bytes.
    """

    digest: Digest
    size: int
    encoding: int
    parts: tuple[Part, ...]
    plain: Digest | None = None
    folds: Folds | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """An image as it travels: root descriptor, names, and the documents and layers it reaches.

    `config_digest` is the config of the (first) platform manifest: what a classic Docker store calls the image ID.
    `absent` are children an index names that the source did not hold (a sparse index).
    """

    names: tuple[str, ...]
    root: Descriptor
    config_digest: Digest | None
    documents: tuple[Digest, ...]
    layers: tuple[Descriptor, ...]
    platforms: tuple[Platform, ...] = ()
    absent: tuple[Digest, ...] = ()

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.names[0] if self.names else f"image {self.root.digest.short}"

    @property
    def size(self) -> int:
        """Bytes of its layers, each once."""
        return sum({layer.digest: layer.size for layer in self.layers}.values())


_DOMAIN = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_PATH = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_NAME = re.compile(
    rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_PATH}(?:/{_PATH})*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?"
    rf"(?:@(?P<digest>[a-z0-9]+:[0-9a-f]+))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A name as Docker normalises it: `nginx` is docker.io/library/nginx:latest (distribution/reference)."""

    domain: str
    path: str
    tag: str = ""
    digest: Digest | None = None

    @staticmethod
    def parse(text: str) -> Reference:
        """UsageError for what is not a name, with the reason Docker would have."""
        if len(text) > 600 or re.fullmatch(r"[0-9a-f]{64}", text):
            raise UsageError(f"{text!r:.100} is not an image name")
        first, slash, _ = text.partition("/")
        is_host = bool(slash) and ("." in first or ":" in first or first == "localhost" or first.lower() != first)
        match = _NAME.fullmatch(text if is_host else f"docker.io/{text}")
        if not match or len(match["path"]) > 255:
            raise UsageError(
                f"{text!r:.100} is not an image name", hint="names are [host/]path[:tag], the path in lower case"
            )
        domain, path = match["domain"], match["path"]
        if domain == "index.docker.io":
            domain = "docker.io"
        if domain == "docker.io" and "/" not in path:
            path = f"library/{path}"
        try:
            digest = Digest.parse(match["digest"], text) if match["digest"] else None
        except FormatError as error:
            raise UsageError(error.message, hint="a digest is sha256: and 64 hex digits") from error
        tag = match["tag"] or ("" if digest else "latest")
        return Reference(domain, path, tag, digest)

    @property
    def familiar(self) -> str:
        """The short way to write it: `nginx:1.27`."""
        path = self.path.removeprefix("library/") if self.domain == "docker.io" else f"{self.domain}/{self.path}"
        return path + self._suffix

    @property
    def repository(self) -> str:
        """The short name without tag or digest."""
        return Reference(self.domain, self.path).familiar

    def __str__(self) -> str:
        return f"{self.domain}/{self.path}{self._suffix}"

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def familiar(name: str) -> str:
    """One form for all spellings of a name: `docker.io/library/nginx` is `nginx:latest`. What is no name stays as it is."""
    return Reference.parse(name).familiar if is_name(name) else name


def is_label(text: object) -> bool:
    """Whether a string from a file may stand for an image at all, be it a name an engine takes or not (`latest`, `Site/App:1`)."""
    return (
        isinstance(text, str) and bool(text.strip()) and text.isprintable() and len(text) < 600 and "<none>" not in text
    )


def is_name(text: object) -> bool:
    """Whether a string from a file may be used as an image name."""
    try:
        return isinstance(text, str) and bool(Reference.parse(text))
    except (UsageError, FormatError):
        return False
