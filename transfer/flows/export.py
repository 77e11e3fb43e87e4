"""Export: every blob of the chosen images, read once, into a bundle."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from transfer import __version__
from transfer.bundle.catalog import AS_FILES, PLAIN, with_plain
from transfer.bundle.delta import DeltaBase
from transfer.bundle.reader import Bundle
from transfer.bundle.seal import Sealed, clean_up
from transfer.bundle.writer import BundleWriter
from transfer.chunks.cut import Cutter
from transfer.chunks.deflate import AHEAD_MAX, codec
from transfer.chunks.layer import raw
from transfer.engines.base import BlobStream, ImageSource, ResolvedImage
from transfer.engines.tree import agrees, layers_with_ids, tree_of, true_to
from transfer.errors import Damaged, NotFound, TransferError, UsageError, one_failure
from transfer.events import Advanced, Done, Noted, Observer, Planned, Skipped
from transfer.flows.ahead import ahead
from transfer.flows.sealing import created, look_at, merged
from transfer.flows.select import NotTaken
from transfer.flows.taking import READ_AHEAD, Taker
from transfer.model import Descriptor, Digest, GzipWay, Image, Recipe, is_name
from transfer.streams import LAYER_BLOCK, MAX_DOCUMENT, IterReader, blocks
from transfer.work import Pool, default_jobs, prefetch, run_alongside

LOG = logging.getLogger(__name__)
DEFAULT_LEVEL = 3
PACKERS_MAX = 3
"""More frames than these are not packed at a time: each takes some 60 MB, and an export stays under 512."""
SLOW_FROM = 9
"""From this level on a frame takes half as much memory again, and one fewer is packed at a time."""
SIMILAR_FROM = 2
"""From this level on programs that share code are patched against each other; level 1 is for those who want it over with."""
READERS_FROM = 2
"""With more threads than this a file is read by a thread of its own; with fewer that only costs (measured, 2 cores)."""
_INCOMPLETE = "the image is incomplete in its source; pull it again, or export one platform of it with --platform"


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export did. Sizes in bytes; `bytes_folder` are those of all files of the bundle; `bytes_reused` were packed by an earlier, unfinished run."""

    bundle: Path
    digest: Digest
    images: tuple[Image, ...]
    bytes_read: int
    bytes_new: int
    bytes_packed: int
    bytes_reused: int
    packs: int
    seconds: float
    already: bool = False
    image_bytes: tuple[int, ...] = ()
    prerequisites: int = 0
    bytes_folder: int = 0
    failed: tuple[NotTaken, ...] = ()


def export(
    source: ImageSource,
    found: Sequence[ResolvedImage],
    folder: Path,
    *,
    level: int,
    jobs: int | None,
    observer: Observer,
    base: Sequence[Bundle] = (),
    weigh: bool = False,
    strict: bool = True,
    gzip: GzipWay = "exact",
) -> Exported:
    """Make the bundle, or finish the one an earlier run began, or find that it is finished.

    An image that cannot be taken is left out, and named in `failed`; with `strict`, or if all are so, the first failure is raised.

    With a `base`, what those bundles hold is not packed again, and what changed is patched against it. With `weigh`, the bundle is made but
    not written: `folder` is a temporary one.

    Gzip layers are taken apart, and files that are compressed inside, as far as the codec is here and `gzip` says.
    """
    started = time.monotonic()
    if (folder / "index.json").exists():
        return _already(found, folder, level, base, started)
    threads = default_jobs() if jobs is None else jobs
    options: dict[str, object] = {
        "format": 5,
        "apart": gzip if codec() else "opaque",
        "level": level,
        "base": sorted(str(each.manifest.digest) for each in base),
    }
    packers = min(threads, PACKERS_MAX - (level >= SLOW_FROM))
    with Pool(packers, "pack") as pool, Pool(min(threads, AHEAD_MAX), "apart") as apart:
        built = DeltaBase(base, pool=pool, jobs=packers) if base else None
        writer = BundleWriter(
            folder,
            level=level,
            options=options,
            pool=pool,
            ahead=packers,
            base=built,
            similar=level >= SIMILAR_FROM,
            weigh=weigh,
        )
        try:
            if len(writer.kept):
                observer(
                    Noted(f"resuming the unfinished export in {folder}: {len(writer.kept)} chunks are already packed")
                )
            taker = Taker(writer, apart, gzip, threads, built, partial(pool.occupied, packers))
            run = _Run(source, writer, observer, built, taker, jobs=threads, strict=strict)
            sealed = run.all(found)
            if not weigh:
                look_at(sealed, base)
                writer.publish(sealed)
        finally:
            writer.close()
    return _done(run, writer, sealed, time.monotonic() - started)


def _done(run: _Run, writer: BundleWriter, sealed: Sealed, seconds: float) -> Exported:
    header = sealed.header
    return Exported(
        sealed.folder,
        sealed.digest,
        header.images,
        bytes_read=run.bytes_read,
        bytes_new=writer.bytes_new,
        bytes_packed=header.totals["packed_bytes"],
        bytes_reused=writer.bytes_reused,
        packs=len(header.packs),
        seconds=seconds,
        image_bytes=writer.image_bytes(header),
        prerequisites=header.prerequisites.chunks,
        bytes_folder=sealed.size,
        failed=tuple(run.failed),
    )


class _Run:
    """One export on its way."""

    def __init__(
        self,
        source: ImageSource,
        writer: BundleWriter,
        observer: Observer,
        base: DeltaBase | None,
        taker: Taker,
        *,
        jobs: int,
        strict: bool,
    ) -> None:
        self._odd: dict[str, int] = {}
        self._source, self._writer, self._observer, self._jobs = source, writer, observer, jobs
        self._base = base
        self._pairing = base.pairing() if base else None
        self._taker = taker
        self.bytes_read = 0
        self._current = 0
        self._strict = strict
        self._lost: dict[Digest, TransferError] = {}
        self.failed: list[NotTaken] = []

    def all(self, found: Sequence[ResolvedImage]) -> Sealed:
        layers = {digest: size for each in found for digest, size in each.layers}
        self._observer(Planned("export", sum(layers.values()) or sum(each.size for each in found)))
        streams = self._source.read(found)
        if self._source.traits.remote and self._jobs > 1:
            streams = ahead(streams, self._is_to_be_read)
        with contextlib.closing(streams):  # type: ignore[type-var]
            for stream in streams:
                self._take(stream)
        documents = self._writer.documents()
        images = merged(self._images(found, documents))
        self._observer(Done("export"))
        for why, count in self._odd.items():
            self._observer(
                Noted(
                    f"held as they are, without a small delta later: {count} layer{'' if count == 1 else 's'} ({why})"
                )
            )
        totals = {"layer_bytes": sum({each.digest: each.size for image in images for each in image.layers}.values())}
        return self._writer.finish(
            images, created=created(images, documents), tool=f"transfer {__version__}", totals=totals
        )

    def _is_to_be_read(self, stream: BlobStream) -> bool:
        """Whether a blob's bytes will be needed, as far as is known before its turn."""
        if stream.is_document or stream.digest is None or stream.digest in self._writer.journal.seen:
            return False
        return not (self._base and self._base.recipe(stream.digest))

    def _take(self, stream: BlobStream) -> None:
        """One blob. Where it is known whose it is, what is wrong with it is those images' failure alone."""
        try:
            if stream.is_document:
                self._take_document(stream)
            else:
                self._take_layer(stream)
        except (Damaged, NotFound) as error:
            if self._strict or stream.digest is None:
                raise
            self._lost[stream.digest] = error
            self._observer(Noted(f"{stream.digest}: {error.message}"))

    def _images(self, found: Sequence[ResolvedImage], documents: dict[Digest, bytes]) -> list[Image]:
        """The images that came whole and make sense; the others are noted as failed."""
        out: list[Image] = []
        for each in found:
            label = each.names[0] if each.names else f"image {each.id.short}"
            try:
                images = self._source.images([each], documents, self._writer.sizes())
                for image in images:
                    self._take_odd_layers(image)
                    self._vouch(image, documents)
                out += images
            except Exception as unknown:
                error = one_failure(unknown, label)
                if self._strict:
                    raise error from unknown
                self.failed.append(NotTaken(label, error))
                self._observer(Noted(f"{label} is left out: {error.message}"))
        if not out and self.failed:
            raise self.failed[0].error
        return out

    def _gone(self, image: Image, layer: Descriptor) -> TransferError:
        """Why an image cannot be taken: a layer is damaged, or not there."""
        why = self._lost.get(layer.digest)
        if why is not None and not isinstance(why, NotFound):
            return why
        foreign = "foreign" in layer.media_type or "nondistributable" in layer.media_type
        kind = "a foreign layer, which is to be had from its maker alone, " if foreign else ""
        return NotFound(f"{image.label}: layer {layer.digest}, {kind}is missing", hint="" if foreign else _INCOMPLETE)

    def _vouch(self, image: Image, documents: dict[Digest, bytes]) -> None:
        """Whatever a far side would find wrong is found here."""
        true_to(image, lambda digest: documents[digest])
        recipes = self._writer.recipes()
        for layer in image.layers:
            if recipes[layer.digest].size != layer.size:
                size = recipes[layer.digest].size
                raise Damaged(
                    f"{image.label}: layer {layer.digest} has {size} bytes, but its descriptor says {layer.size}"
                )
        for manifest in tree_of(image, lambda digest: documents[digest]).manifests:
            config = documents[manifest.config.digest]
            agrees(manifest, config, lambda digest: recipes[digest].encoding in AS_FILES)
            for layer, diff_id in layers_with_ids(manifest, config):
                plain = recipes[layer.digest].plain
                if plain and plain != diff_id and plain.algorithm == diff_id.algorithm:
                    self._observer(
                        Noted(
                            f"layer {layer.digest} holds {plain}, but its config names {diff_id}: no engine will run it"
                        )
                    )
        for name in image.names:
            if not is_name(name):
                self._observer(
                    Noted(
                        f"{name!r:.100} is not a name that an engine accepts; give the image another name at the import with --retag"
                    )
                )

    def _take_document(self, stream: BlobStream) -> None:
        data = b"".join(blocks(stream.open(0)))
        digest = Digest("sha256:" + hashlib.sha256(data).hexdigest())
        if stream.digest and stream.digest != digest:
            if stream.digest.algorithm == "sha256" or hashlib.sha512(data).hexdigest() != stream.digest.hex:
                raise Damaged(f"{self._source.where}: the document {stream.digest} does not match its digest")
            digest = stream.digest
        self._writer.add_document(digest, data)

    def _take_layer(self, stream: BlobStream) -> None:
        known = self._base.recipe(stream.digest) if self._base else None
        if self._base and known:
            plain = self._base.recipe(known.plain)
            why = self._base.held(known.digest)
            self._writer.end_blob(known, plain.digest if plain else known.digest, plain, why)
            self._grew(known.digest)
            self._skip(stream, known.digest, "the base has it")
            return
        if stream.digest and self._writer.replay(stream.digest):
            self._grew(stream.digest)
            self._skip(stream, stream.digest, "read and packed by an earlier run")
            return
        recipe = self._cut(stream)
        if stream.on_digest:
            stream.on_digest(recipe.digest)

    def _grew(self, layer: Digest) -> None:
        """Whichever way a layer came, what its plain bytes are more than it counts."""
        recipe, *plain = with_plain((layer,), self._writer.recipes().__getitem__)
        for each in plain:
            self._taker.grew(recipe.size, each.size)
        for each in (recipe, *plain):
            if each.folds:
                self._taker.grew(each.size, each.folds.size)

    def _skip(self, stream: BlobStream, digest: Digest, why: str) -> None:
        LOG.info("layer %s is not read: %s", digest, why)
        self._observer(Skipped(f"layer {digest.short}", why))
        self._observer(Advanced("export", stream.size or 0))

    def _cut(self, stream: BlobStream) -> Recipe:
        """Read one layer: hashed beside, taken apart by this thread."""
        hasher = hashlib.new(stream.digest.algorithm if stream.digest else "sha256")
        threaded = self._jobs > (READERS_FROM if self._source.traits.random_access else 0)
        parts = prefetch(self._hashed(stream, hasher), READ_AHEAD, threaded=threaded)
        with contextlib.closing(parts):  # type: ignore[type-var]
            first = next(parts, b"")
            taken = self._taker.take(first, chain([first] if first else [], parts), stream.size, self._pairing)
        digest = Digest(f"{hasher.name}:{hasher.hexdigest()}")
        size = self._current
        if stream.digest and (stream.digest != digest or (stream.size is not None and stream.size != size)):
            self._writer.abandon_blob()
            raise Damaged(
                f"{self._source.where}: layer {stream.digest} is damaged: its content is {digest}",
                hint="the image in the source is damaged; pull or build it again",
            )
        LOG.info("layer %s: %d bytes read, encoding %d, %s", digest, size, taken.encoding, taken.why)
        plain = taken.plain.digest if taken.plain else None
        recipe = Recipe(digest, size, taken.encoding, taken.parts, plain, taken.folds)
        like = self._like(taken.plain.digest if taken.plain else digest)
        self._writer.end_blob(recipe, like, taken.plain, taken.why)
        self._grew(digest)
        if taken.why and self._taker.dismantles:
            self._odd[taken.why] = self._odd.get(taken.why, 0) + 1
        return recipe

    def _like(self, layer: Digest) -> Digest | None:
        """The base's layer whose recipe this one's is patched against: the same, or the one it shares most with."""
        if self._base is None or self._pairing is None:
            return None
        return layer if self._base.recipe(layer) else self._base.layer(self._pairing.resembles)

    def _hashed(self, stream: BlobStream, hasher: hashlib._Hash) -> Iterator[bytes]:
        self._current = 0
        with run_alongside(hasher.update, READ_AHEAD, threaded=self._jobs > 1) as hash_it:
            for block in blocks(stream.open(0), LAYER_BLOCK):
                hash_it(block)
                self._current += len(block)
                self.bytes_read += len(block)
                self._observer(Advanced("export", len(block)))
                yield block

    def _take_odd_layers(self, image: Image) -> None:
        """Layers that looked like documents (attestations are JSON) are blobs all the same."""
        for layer in image.layers:
            if layer.digest in self._writer.recipes():
                continue
            data = self._writer.documents().get(layer.digest)
            if data is None or len(data) > MAX_DOCUMENT or len(data) != layer.size:
                raise self._gone(image, layer)
            parts = Cutter(self._writer).cut(raw(IterReader(iter([data]))))
            self._writer.end_blob(Recipe(layer.digest, len(data), PLAIN, parts))


def _already(
    found: Sequence[ResolvedImage], folder: Path, level: int, base: Sequence[Bundle], started: float
) -> Exported:
    """The bundle is finished: fine if it is the one asked for, else the user must choose."""
    with Bundle(folder) as bundle:
        header = bundle.header
        have = {(frozenset(i.names), d) for i in header.images for d in (i.root.digest, i.config_digest)}
        builds_on = set(header.prerequisites.bundles)
        allowed = {each.manifest.digest for each in base} | {
            digest for each in base for digest in each.header.prerequisites.bundles
        }
        same = header.level == level and builds_on <= allowed
        lacking = [each for each in found if (frozenset(each.names), each.id) not in have]
        if not same or lacking or len(found) != len(header.images):
            some = same and lacking and len(found) - len(lacking) == len(header.images)
            names = ", ".join(each.names[0] if each.names else each.id.short for each in lacking)
            what = f"without {names:.300}" if some else "of something else"
            raise UsageError(
                f"{folder} is already a finished bundle {what}",
                hint="name another folder for the rest" if some else "name another folder, or remove this one",
            )
        blobs = (*header.packs, *header.catalog)
        keep = {blob.digest.hex for blob in blobs} | {bundle.config.digest.hex, bundle.manifest.digest.hex}
        clean_up(folder, keep)
        packed = header.totals.get("packed_bytes", 0)
        taken = time.monotonic() - started
        return Exported(folder, bundle.manifest.digest, header.images, 0, 0, packed, 0, len(header.packs), taken, True)
