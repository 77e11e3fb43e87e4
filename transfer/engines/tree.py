"""The walk from a root to everything it reaches, and what follows from it: images, diffIDs, the part for one platform."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from transfer.errors import FormatError, MissingPart, NotFound
from transfer.model import CONFIG_TYPES, OCI_INDEX, OCI_MANIFEST, Descriptor, Digest, Image, Platform
from transfer.streams import parse_object

MAX_DEPTH, MAX_NODES = 8, 4096
ATTESTATION_OF = "vnd.docker.reference.digest"


@dataclass
class Tree:
    """What a root reaches: documents (root first), layers in order, children that are not there."""

    documents: list[Descriptor] = field(default_factory=list)
    layers: list[Descriptor] = field(default_factory=list)
    absent: list[Digest] = field(default_factory=list)
    configs: list[Descriptor] = field(default_factory=list)
    platforms: list[Platform] = field(default_factory=list)
    manifests: list[Manifest] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One manifest of a tree: its config and its layers as they stand there, in order, each as often as it is named."""

    descriptor: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]
    platform: Platform


def walk(root: Descriptor, get: Callable[[Descriptor], bytes | None], platform: Platform | None = None) -> Tree:
    """Follow a root down. `get` gives a document's bytes, checked, or None if it is absent.

    FormatError for anything ambiguous, too deep or too large. With `platform`, only that child of an index is followed, with
    its attestations; the index itself stays as it is. NotFound if the root is absent or no child serves the platform.
    """
    found = _Walk(root, get, platform)
    found.visit(root, 0)
    return found.tree


class _Walk:
    """One walk on its way."""

    def __init__(self, root: Descriptor, get: Callable[[Descriptor], bytes | None], platform: Platform | None) -> None:
        self._root, self._get, self._platform = root, get, platform
        self.tree = Tree()
        self._seen: set[Digest] = set()

    def visit(self, descriptor: Descriptor, depth: int) -> None:
        """An index or a manifest, and what it names."""
        if descriptor.digest in self._seen:
            return
        self._seen.add(descriptor.digest)
        if depth > MAX_DEPTH or len(self._seen) > MAX_NODES:
            raise FormatError(
                f"{self._root.digest}: an index nested deeper than {MAX_DEPTH} or with over {MAX_NODES} entries"
            )
        data = self._get(descriptor)
        if data is None:
            if depth == 0:
                raise NotFound(f"{descriptor.digest}: the manifest of the image is missing")
            self.tree.absent.append(descriptor.digest)
            return
        where = f"{descriptor.digest}"
        _sized(descriptor, data)
        value = parse_object(data, where)
        is_index = _is_index(value, where)
        self.tree.documents.append(descriptor)
        if depth == 0:
            _called_right(descriptor, is_index)
        if is_index:
            children = [Descriptor.parse(each, where) for each in _listing(value, "manifests", where)]
            for child in _chosen(children, self._platform, where, self._platform_of):
                self.visit(child, depth + 1)
            return
        self._visit_manifest(descriptor, value, where)
        if len(self.tree.documents) + len(self.tree.layers) > MAX_NODES:
            raise FormatError(f"{self._root.digest}: over {MAX_NODES} documents and layers")

    def _visit_manifest(self, descriptor: Descriptor, value: dict[str, object], where: str) -> None:
        config = Descriptor.parse(value["config"], where)
        layers = [Descriptor.parse(each, where) for each in _listing(value, "layers", where)]
        data = self._get(config)
        if data is None:
            raise NotFound(
                f"{where}: its config {config.digest} is missing",
                hint="the image is incomplete in its source; export one complete platform of it with --platform",
            )
        _sized(config, data)
        tree = self.tree
        if config.digest not in self._seen:
            self._seen.add(config.digest)
            tree.documents.append(config)
        tree.configs.append(config)
        tree.platforms.append(_config_platform(data))
        tree.manifests.append(Manifest(descriptor, config, tuple(layers), tree.platforms[-1]))
        for layer in layers:
            if layer.digest not in self._seen:
                self._seen.add(layer.digest)
                tree.layers.append(layer)

    def _platform_of(self, child: Descriptor) -> Platform | None:
        """What a child is for: as the index says, else as its config does."""
        if child.platform or child.is_index:
            return child.platform
        with contextlib.suppress(FormatError):
            config = parse_object(self._get(child) or b"{}", str(child.digest)).get("config")
            data = self._get(Descriptor.parse(config, str(child.digest))) if config else None
            return _config_platform(data) if data else None
        return None


def _is_index(value: dict[str, object], where: str) -> bool:
    """Whether a document is an index, else a manifest. FormatError for both at once, or neither."""
    if "manifests" in value and "layers" in value:
        raise FormatError(f"{where}: it is both an index and a manifest; refused as ambiguous")
    if "fsLayers" in value:
        raise FormatError(
            f"{where}: a schema 1 manifest, which no current engine accepts",
            hint="convert the image at its source: skopeo copy --format v2s2",
        )
    if "manifests" not in value and not {"layers", "config"} <= value.keys():
        raise FormatError(f"{where}: neither an index nor a manifest")
    return "manifests" in value


def _sized(descriptor: Descriptor, data: bytes) -> None:
    if len(data) != descriptor.size:
        raise FormatError(f"{descriptor.digest}: {len(data)} bytes, but its descriptor says {descriptor.size}")


def _called_right(root: Descriptor, is_index: bool) -> None:
    """Whoever reads a root goes by its media type."""
    if not (root.is_index if is_index else root.is_manifest):
        kind = "an index" if is_index else "a manifest"
        raise FormatError(f"{root.digest}: its descriptor says {root.media_type}, but it is {kind}")


def _listing(value: dict[str, object], key: str, where: str) -> list[object]:
    found = value[key]
    if found is None:
        return []  # as Go writes an empty list
    if not isinstance(found, list):
        raise FormatError(f"{where}: {key} is not a list")
    if len(found) > MAX_NODES:
        raise FormatError(f"{where}: {key} has over {MAX_NODES} entries")
    return found


def _chosen(
    children: list[Descriptor],
    platform: Platform | None,
    where: str,
    of: Callable[[Descriptor], Platform | None],
) -> list[Descriptor]:
    """Those for a platform, of several that suit it the best, and what is said of them."""
    if platform is None:
        return children
    ranks = {child.digest: platform.rank(found) if (found := of(child)) else 0 for child in children}
    best = max(ranks.values(), default=0)
    kept = [child for child in children if child.is_index or (best and ranks[child.digest] == best)]
    digests = {str(child.digest) for child in kept}
    if not kept and not any(_named(of(child)) for child in children):
        return children  # artifacts, and none of them is for a platform
    if not kept:
        have = ", ".join(sorted({str(found) for c in children if (found := of(c))})) or "none named"
        raise NotFound(
            f"{where}: this image has no part for {platform}; it has {have}",
            hint="leave out --platform, or name one of these platforms",
        )
    return kept + [
        child for child in children if child.annotations.get(ATTESTATION_OF) in digests and child not in kept
    ]


def _named(platform: Platform | None) -> bool:
    return platform is not None and platform.os != "unknown"


def _config_platform(config: bytes | None) -> Platform:
    """The platform a config names; empty members where it is no image config."""
    try:
        value = parse_object(config or b"{}", "config")
    except FormatError:
        return Platform("unknown", "unknown")
    found = [value.get(key, "") for key in ("os", "architecture", "variant")]
    if not all(isinstance(each, str) and len(each) < 100 and "/" not in each for each in found):
        return Platform("unknown", "unknown")
    return Platform(found[0] or "unknown", found[1] or "unknown", found[2])


def is_artifact(tree: Tree) -> bool:
    """Whether nothing in it can be run: a signature, an SBOM, a chart. A manifest can whose config and layers are those of an image."""
    return not any(
        each.config.media_type in CONFIG_TYPES and all("tar" in layer.media_type for layer in each.layers)
        for each in tree.manifests
    )


def subject_of(manifest: bytes, where: str) -> Descriptor | None:
    """What a manifest or index refers to (image-spec 1.1); None for nothing."""
    value = parse_object(manifest, where)
    return Descriptor.parse(value["subject"], where) if value.get("subject") else None


def described(manifest: bytes, digest: Digest) -> Descriptor:
    """The descriptor of a manifest or index that was found by its digest alone. FormatError for what is neither."""
    value = parse_object(manifest, str(digest))
    return Descriptor.parse(
        {"mediaType": _media_type(value), "digest": str(digest), "size": len(manifest)}, str(digest)
    )


def _media_type(value: dict[str, Any]) -> Any:
    """What a manifest or index says it is; where it says nothing, what it looks like."""
    return value.get("mediaType") or (OCI_INDEX if "manifests" in value else OCI_MANIFEST)


def referrer_entry(manifest: bytes, digest: Digest) -> dict[str, Any]:
    """A manifest as a list of referrers has it (distribution-spec, listing referrers)."""
    value = parse_object(manifest, str(digest))
    config = value.get("config")
    kind = value.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else None)
    out: dict[str, Any] = {"mediaType": _media_type(value), "digest": str(digest), "size": len(manifest)}
    if isinstance(kind, str) and kind:
        out["artifactType"] = kind
    if isinstance(value.get("annotations"), dict):
        out["annotations"] = value["annotations"]
    return out


def image_of(names: Sequence[str], root: Descriptor, tree: Tree) -> Image:
    """The image a walk found."""
    known = [(c, p) for c, p in zip(tree.configs, tree.platforms, strict=True) if p.os != "unknown"]
    config = known[0][0] if known else tree.configs[0] if tree.configs else None
    return Image(
        tuple(names),
        Descriptor(root.media_type, root.digest, root.size),
        config.digest if config else None,
        tuple(each.digest for each in tree.documents),
        tuple(Descriptor(each.media_type, each.digest, each.size) for each in tree.layers),
        tuple(dict.fromkeys(p for _, p in known)),
        tuple(tree.absent),
    )


def diff_ids(config: bytes, where: str) -> list[Digest]:
    """The uncompressed layers' digests a config names; none where it leaves them out, as Go does with an empty list."""
    rootfs = parse_object(config, where).get("rootfs") or {}
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else rootfs
    if found is None:
        return []
    if not isinstance(found, list):
        raise FormatError(f"{where}: rootfs.diff_ids of a config is not a list")
    return [Digest.parse(each, where) for each in found]


def agrees(manifest: Manifest, config: bytes, plain: Callable[[Digest], bool]) -> None:
    """FormatError if a manifest's layers are not those its config names: an engine would refuse them, on the far side.

    `plain`: whether a layer is known to be uncompressed, so that its digest is the diffID. Artifacts, whose layers are no tars, are no matter.
    """
    where = str(manifest.descriptor.digest)
    for layer, diff_id in layers_with_ids(manifest, config):
        if plain(layer.digest) and layer.digest != diff_id and layer.digest.algorithm == diff_id.algorithm:
            raise FormatError(f"{where}: layer {layer.digest}, but its config names {diff_id}", hint=REMAKE)


def layers_with_ids(manifest: Manifest, config: bytes) -> Iterator[tuple[Descriptor, Digest]]:
    """Each layer of a manifest and the diffID its config has for it; none for artifacts. FormatError if there are more or fewer."""
    where = str(manifest.descriptor.digest)
    if manifest.config.media_type not in CONFIG_TYPES or not all("tar" in each.media_type for each in manifest.layers):
        return
    ids = diff_ids(config, where)
    if not ids and (not manifest.layers or b"diff_ids" not in config):
        return
    if len(ids) != len(manifest.layers):
        raise FormatError(f"{where}: {len(manifest.layers)} layers, but its config names {len(ids)}", hint=REMAKE)
    yield from zip(manifest.layers, ids, strict=True)


REMAKE = "the image is broken in its source: save, pull or build it again"


@dataclass(frozen=True, slots=True)
class PlatformImage:
    """One platform's manifest of an image: what a Docker store takes. Layers as in the manifest, in order."""

    manifest: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[Digest, ...]


def tree_of(image: Image, document: Callable[[Digest], bytes]) -> Tree:
    """What an image of a bundle reaches, by its documents. FormatError if they are no image."""
    listed = set(image.documents)
    try:
        return walk(image.root, lambda each: document(each.digest) if each.digest in listed else None)
    except (NotFound, MissingPart) as error:
        raise FormatError(f"{image.label}: {error.message}") from error


def true_to(image: Image, document: Callable[[Digest], bytes]) -> None:
    """FormatError if what a bundle's header says of an image is not what its documents say."""
    tree = tree_of(image, document)
    found = image_of(image.names, image.root, tree)
    for what, said, is_so in (
        ("documents", sorted(image.documents), sorted(found.documents)),
        ("layers", sorted(map(_key, image.layers)), sorted(map(_key, found.layers))),
        ("config", image.config_digest, found.config_digest),
        ("platforms", sorted(map(str, image.platforms)), sorted(map(str, found.platforms))),
        ("absent children", set(image.absent) - set(found.absent), set()),
    ):
        if said != is_so:
            raise FormatError(f"{image.label}: the header and the image's manifest disagree about its {what}")


def _key(layer: Descriptor) -> tuple[str, str, int]:
    return (str(layer.digest), layer.media_type, layer.size)


def _of(manifest: Manifest) -> Platform:
    """What a manifest is for: as the index says, else as its config does."""
    return manifest.descriptor.platform or manifest.platform


def platform_image(image: Image, document: Callable[[Digest], bytes], platform: Platform) -> PlatformImage:
    """The image's manifest for a platform: the only one it has, or the one that fits best. NotFound otherwise.

    An index's word on a platform counts; where it says nothing, the config's does.
    """
    tree = tree_of(image, document)
    first, several = next(iter(tree.manifests), None), len(tree.manifests) > 1
    unsaid = first is not None and first.descriptor.platform is None and first.platform.os == "unknown"
    alone = first is not None and not several and (unsaid or first.descriptor.digest == image.root.digest)
    ranked = [(1 if alone else platform.rank(_of(each)), each) for each in tree.manifests]
    best, chosen = max(ranked, key=lambda pair: pair[0], default=(0, None))
    if not best or chosen is None:
        have = ", ".join(str(_of(each)) for each in tree.manifests) or "no manifest"
        raise NotFound(
            f"{image.label}: the image is for {have}, not for {platform}",
            hint="choose one of its platforms with --platform",
        )
    ids = tuple(diff_ids(document(chosen.config.digest), str(chosen.config.digest)))
    if len(ids) != len(chosen.layers):
        raise FormatError(
            f"{image.label}: {len(chosen.layers)} layers, but its config names {len(ids)}",
            hint="if it is an artifact, no engine can run it; --to oci:DIR stores it as it is",
        )
    return PlatformImage(chosen.descriptor, chosen.config, chosen.layers, ids)
