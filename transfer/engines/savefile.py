"""What `docker save` says of its images: manifest.json and index.json, held against each other and against the configs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from transfer.engines.base import ResolvedImage
from transfer.engines.index import Roots
from transfer.engines.members import inside
from transfer.engines.tree import MAX_NODES, REMAKE, Manifest, agrees, diff_ids, image_of, walk
from transfer.errors import Damaged, FormatError, NotFound, TransferError
from transfer.model import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Digest, Image, blob_path, is_label
from transfer.streams import Effort, parse_json, sha256


@dataclass(frozen=True, slots=True)
class Saved:
    """One image of a manifest.json: member names of config and layers, and tags."""

    config: str
    tags: tuple[str, ...]
    layers: tuple[str, ...]
    error: FormatError | None = None
    """Why the entry is none."""


def parse_saved(data: bytes, where: str) -> list[Saved]:
    """A manifest.json; FormatError if it is not what `docker save` writes. A tag that is none is left out; a malformed entry is its own fault."""
    value = parse_json(data, where)
    if value is None:
        return []  # as Go writes an empty list
    if not isinstance(value, list):
        raise FormatError(f"{where}: manifest.json is not a list")
    return [_saved_entry(each, number, where) for number, each in enumerate(value, 1)]


def _saved_entry(value: object, number: int, where: str) -> Saved:
    """One entry of a manifest.json; with an error, by what can be read of it."""
    tags = value.get("RepoTags") or [] if isinstance(value, dict) else []
    named = tuple(dict.fromkeys(tag for tag in tags if is_label(tag))) if isinstance(tags, list) else ()
    place = f"{where}: entry {number}" + (f" ({named[0]})" if named else "")
    try:
        if not isinstance(value, dict):
            raise FormatError(f"{place} is not an object")
        layers, config = value.get("Layers") or [], value.get("Config")
        if not isinstance(tags, list) or not isinstance(layers, list):
            raise FormatError(f"{place}: its tags or layers are not lists")
        if not all(isinstance(text, str) for text in [config, *tags, *layers]):
            raise FormatError(f"{place}: its config, tags or layers are no names")
        if len(layers) > MAX_NODES:
            raise FormatError(f"{place} has over {MAX_NODES} layers")
        return Saved(inside(str(config), place), named, tuple(inside(name, place) for name in layers))
    except FormatError as error:
        return Saved(f"entry {number}", named, (), error)


PACKED = {b"\x1f\x8b": "+gzip", b"\x28\xb5\x2f\xfd": "+zstd", b"\xfd7zXZ": "+xz", b"BZh": "+bzip2"}
"""How compressed files begin, and what a layer's media type says of them (image-spec has the first two)."""


def packed_as(head: bytes) -> str:
    """The suffix of a media type for a layer that begins like this; "" for one that is not compressed."""
    return next((suffix for magic, suffix in PACKED.items() if head.startswith(magic)), "")


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a manifest.json: its own digest, size (bytes), and how it is compressed (`+gzip`; "" for plain)."""

    digest: Digest
    size: int
    packed: str = ""


def made_manifest(config: bytes, layers: Sequence[Layer], where: str) -> bytes:
    """An OCI manifest around an original config, byte for byte what Docker 25 and later save for the same image."""
    ids = diff_ids(config, where)
    if len(ids) != len(layers):
        raise FormatError(f"{where}: {len(layers)} layers, but its config names {len(ids)}", hint=REMAKE)
    value = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor(OCI_CONFIG, sha256(config), len(config)).as_json(),
        "layers": [Descriptor(OCI_LAYER + each.packed, each.digest, each.size).as_json() for each in layers],
    }
    return json.dumps(value, separators=(",", ":")).encode()


def made_image(found: ResolvedImage, layers: Sequence[Layer], documents: dict[Digest, bytes], where: str) -> Image:
    """An image that has a config and layers alone: with a manifest made for it, which is added to `documents`."""
    data = made_manifest(documents[found.id], layers, where)
    root = Descriptor(OCI_MANIFEST, sha256(data), len(data))
    documents[root.digest] = data
    return image_of(found.names, root, walk(root, lambda each: documents.get(each.digest)))


class Members(Protocol):
    """An archive's members, as far as images need them. Names are followed through links; NotFound for one that is not there."""

    def small(self, name: str) -> bytes:
        """All of a document."""
        ...

    def layer(self, name: str) -> Layer:
        """Digest, size and compression of a layer; the digest of a plain one may be the one its name says."""
        ...


@dataclass(frozen=True, slots=True)
class SavedImage:
    """An image of an archive: its root, or why it cannot be had; the digest people may call it by; how many layers it is said to have."""

    names: tuple[str, ...]
    id: Digest
    root: Descriptor | None
    error: TransferError | None = None
    layers: int = 0


class SavedImages:
    """What images an archive holds: its manifest.json and its index.json held against each other and against the configs.

    Docker 25.0.0 wrote an index.json with layers missing, in another order, or without the images saved by ID (moby#47150, #47065, #47210,
    #51389). So where there is a manifest.json it says which images there are, and an entry of index.json counts for one of them
    only where both name the same config and the same layers; else a manifest is made. `made` are those; `paths` says where blobs are
    that are not under their digests.
    """

    def __init__(self, manifest: bytes | None, index: bytes | None, members: Members, where: str) -> None:
        self._members, self._where = members, where
        self.made: dict[Digest, bytes] = {}
        self.paths: dict[Digest, str] = {}
        self._documents: dict[Digest, bytes | None] = {}
        self._layers: dict[str, Layer] = {}
        self._effort = Effort(where)
        entries = Roots.parse(index, f"{where}: index.json") if index is not None else Roots([], where)
        self._entries = [(root, entries.names_of(root.digest), self._manifests(root)) for root in entries.unique()]
        self._by_config: dict[Digest, list[tuple[Descriptor, tuple[str, ...], Manifest]]] = {}
        for root, names, manifests in self._entries:
            for each in manifests:
                self._by_config.setdefault(each.config.digest, []).append((root, names, each))
        self.images: list[SavedImage] = []
        configs: set[Digest] = set()
        for saved in parse_saved(manifest, f"{where}: manifest.json") if manifest is not None else ():
            found, config = self._saved(saved)
            self.images.append(found)
            configs |= {config} if config else set()
        if manifest is None:
            self.images += [SavedImage(each.names, each.id, None, each.error) for each in entries.broken]
        taken = {each.root.digest for each in self.images if each.root}
        for root, names, manifests in self._entries:
            if root.digest not in taken and not any(each.config.digest in configs for each in manifests):
                layers = {layer.digest for each in manifests for layer in each.layers}
                self.images.append(SavedImage(names, root.digest, root, None, len(layers)))

    def document(self, descriptor: Descriptor) -> bytes | None:
        """A document of the archive by its digest, checked; None if it is not there."""
        if descriptor.digest in self.made:
            return self.made[descriptor.digest]
        if descriptor.digest not in self._documents:
            name = self.paths.get(descriptor.digest) or blob_path(descriptor.digest)
            try:
                data = self._members.small(name)
            except NotFound:
                self._documents[descriptor.digest] = None
            else:
                if hashlib.new(descriptor.digest.algorithm, data).hexdigest() != descriptor.digest.hex:
                    raise Damaged(f"{self._where}: {name} does not match its name")
                self._documents[descriptor.digest] = data
        return self._documents[descriptor.digest]

    def _manifests(self, root: Descriptor) -> list[Manifest]:
        """The manifests an entry of index.json leads to; none where it cannot be followed: whoever asks for it is told why."""
        with contextlib.suppress(TransferError):
            return walk(root, lambda each: self._effort.spent(self.document(each))).manifests
        return []

    def _saved(self, saved: Saved) -> tuple[SavedImage, Digest | None]:
        """An image of manifest.json, and its config's digest."""
        config: Digest | None = None
        try:
            if saved.error:
                raise saved.error
            self._effort.spend(0)
            data = self._members.small(saved.config)
            self._effort.spend(len(data))
            config = sha256(data)
            self.paths.setdefault(config, saved.config)
            layers = [self._layer(name) for name in saved.layers]
            layers, sound = self._held_against(layers, data)
            for layer, name in zip(layers, saved.layers, strict=True):
                self.paths.setdefault(layer.digest, name)
            root, names = self._entry(config, layers, sound)
            if root is None:
                data = made_manifest(data, layers, self._where)
                root = Descriptor(OCI_MANIFEST, sha256(data), len(data))
                self.made[root.digest] = data
            return SavedImage(tuple(dict.fromkeys((*saved.tags, *names))), root.digest, root, None, len(layers)), config
        except TransferError as error:
            error.__traceback__ = error.__context__ = None  # they hold the config, and there may be many
            unknown = config or sha256(saved.config.encode())
            return SavedImage(saved.tags, unknown, None, error, len(saved.layers)), config

    def _layer(self, name: str) -> Layer:
        """A layer, looked at once however often it is named."""
        if name not in self._layers:
            self._layers[name] = self._members.layer(name)
        return self._layers[name]

    def _held_against(self, layers: list[Layer], config: bytes) -> tuple[list[Layer], bool]:
        """The layers, a plain one under its diffID; and whether they are those the config names."""
        ids = diff_ids(config, self._where)
        if len(ids) != len(layers):
            return layers, False
        pairs = list(zip(layers, ids, strict=True))
        sound = all(each.packed or each.digest in (NOT_READ, diff_id) for each, diff_id in pairs)
        return [replace(each, digest=diff_id) if each.digest == NOT_READ else each for each, diff_id in pairs], sound

    def _entry(self, config: Digest, layers: list[Layer], sound: bool) -> tuple[Descriptor | None, tuple[str, ...]]:
        """The entry of index.json that is this image; None if a manifest has to be made. FormatError if both are wrong."""
        right: list[tuple[Descriptor, tuple[str, ...]]] = []
        for root, names, each in self._by_config.get(config, ()):
            self._effort.spend(256 * len(layers))
            if self._is_right(each, layers, sound):
                right.append((root, names))
        if not right and not sound:
            raise FormatError(f"{self._where}: the layers are not those that config {config} names", hint=REMAKE)
        return right[0] if right else (None, ())

    def _is_right(self, manifest: Manifest, layers: list[Layer], sound: bool) -> bool:
        """Whether a manifest names the layers that manifest.json names; where those are wrong, whether it agrees with its config."""
        if sound:
            return [each.digest for each in manifest.layers] == [each.digest for each in layers]
        plain = {each.digest for each in layers if not each.packed}
        data = self.document(manifest.config)
        try:
            agrees(manifest, data or b"", plain.__contains__)
        except FormatError:
            return False
        return bool(data and manifest.layers and diff_ids(data, self._where))


NOT_READ = Digest("sha256:" + "0" * 64)
"""The digest of a plain layer that nobody has read yet, and whose name does not say it: it is the diffID."""


def named_digest(name: str) -> Digest | None:
    """The digest that a member's name says, for one in `blobs/`."""
    found = re.fullmatch(r"blobs/(sha256/[0-9a-f]{64}|sha512/[0-9a-f]{128})", name)
    return Digest(found[1].replace("/", ":")) if found else None
