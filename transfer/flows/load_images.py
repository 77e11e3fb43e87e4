"""Import: what the engine lacks of the chosen images, rebuilt from the bundle, checked, and handed over."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from functools import partial

from transfer.bundle.reader import Bundle
from transfer.bundle.rebuild import Rebuilding
from transfer.chunks.name import ID_SIZE
from transfer.engines.base import ImageSink, Landed, PlatformImage
from transfer.engines.daemon import DockerClient
from transfer.engines.docker import TEMPORARY, DockerSink, Way
from transfer.errors import EngineError, MissingPart, OtherContent, TransferError, one_failure
from transfer.events import Advanced, Done, Noted, Observer, Planned, Skipped
from transfer.flows.naming import Move, Named, Rename, name_all
from transfer.flows.vouching import vouch
from transfer.model import Descriptor, Digest, Image, Platform
from transfer.serve.registry import Registry
from transfer.streams import BLOCK, IterReader, verified
from transfer.work import Pool, ahead_of, default_jobs

PER_CHUNK = 16 << 10
"""What a file costs an engine beside its bytes (as bytes). An estimate: the order is the same from 8 to 16 KiB on the reference corpus."""
APART = 16 << 20
"""Chunks kept for a layer that is rebuilt for itself (bytes): the import goes on beside it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """An image that did not make it, and why."""

    image: Image
    names: tuple[str, ...]
    error: TransferError


@dataclass(frozen=True, slots=True)
class Loaded:
    """What an import did. `frames_decoded` of `frames_needed`: how often packs were unpacked."""

    landed: tuple[Landed, ...]
    failed: tuple[Failed, ...]
    bytes_unpacked: int
    frames_decoded: int
    frames_needed: int
    seconds: float

    @property
    def layers_sent(self) -> int:
        return sum(each.layers_sent for each in self.landed)

    @property
    def layers_present(self) -> int:
        return sum(each.layers_present for each in self.landed)


class BundleContent:
    """What sinks ask for, from a bundle. Counts what it hands out."""

    def __init__(self, bundle: Bundle, observer: Observer, *, threaded: bool) -> None:
        self._bundle, self._observer, self._threaded = bundle, observer, threaded
        self.rebuilding: Rebuilding | None = None
        self.hashed = True
        self._lock, self._rechecking = threading.Lock(), threading.Lock()
        self._sound: set[Digest] = set()
        self.bytes_unpacked = 0

    def document(self, digest: Digest) -> bytes:
        return self._bundle.document(digest)

    def vouch(self, image: Image) -> None:
        """FormatError if the header does not say of the image what its documents say, or a layer has no recipe of its size."""
        vouch(self._bundle, image)

    def forgo(self, digests: Iterable[Digest]) -> None:
        """Whoever was to have these layers failed."""
        if self.rebuilding:
            self.rebuilding.forgo(digests)

    def recheck(self, digests: Iterable[Digest]) -> None:
        """Look whether these layers' chunks are what their names say, which is left out on their way. Damaged names the frame that is wrong."""
        with self._rechecking:
            for digest in [each for each in digests if each not in self._sound]:
                stream = self._apart(digest, checked=True)
                while stream.read(BLOCK):
                    pass
                self._sound.add(digest)

    def open(self, descriptor: Descriptor) -> Iterator[bytes]:
        """Rebuilt by one thread, hashed and handed over by another, if it is hashed here."""
        if self.rebuilding is None:
            raise EngineError("a layer was asked for before the plan was made")
        planned = descriptor.digest in self.rebuilding
        stream = (self.rebuilding.open if planned else self._apart)(descriptor.digest)
        parts = ahead_of(iter(lambda: stream.read(1 << 30), b""), 8, threaded=self._threaded and self.hashed)
        with contextlib.closing(parts):  # type: ignore[type-var]
            where = f"layer {descriptor.digest}"
            for block in verified(_Parts(parts), descriptor.digest, descriptor.size, where, hashed=self.hashed):
                with self._lock:
                    self.bytes_unpacked += len(block)
                    self._observer(Advanced("import", len(block)))
                yield block

    def _apart(self, digest: Digest, *, checked: bool = False) -> IterReader:
        """A layer for itself, with little memory: one that is not in the plan, or once more."""
        pool = Pool(0, "apart")
        return Rebuilding(self._bundle, [digest], pool=pool, jobs=1, budget=APART, checked=checked).open(digest)


class _Parts:
    """A Readable over blocks as they come."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts

    def read(self, size: int, /) -> bytes:
        return next(self._parts, b"")


@dataclass(frozen=True, slots=True)
class _Job:
    image: Image
    names: tuple[str, ...]
    missing: frozenset[Digest]
    moves: tuple[Move, ...] = ()

    def lacking(self) -> list[Descriptor]:
        """The layers that are to be sent, in order."""
        return [layer for layer in self.image.layers if layer.digest in self.missing]


def load(
    bundle: Bundle,
    images: Sequence[Image],
    rename: Rename,
    sink: ImageSink,
    content: BundleContent,
    *,
    jobs: int | None,
    observer: Observer,
    help_out: Callable[[], bool] = lambda: False,
    ready: Callable[[], None] = lambda: None,
    keep_tags: bool = False,
) -> Loaded:
    """Bring the images in. One that fails does not stop the others; if all fail, the first failure is raised.

    With `keep_tags` a name that another image has stays with that one.

    Where a delta lacks what it builds on, `help_out` is asked once for more bundles in its library. `ready` is called when all that is
    needed is at hand and before anything is changed.
    """
    started = time.monotonic()
    threads = default_jobs() if jobs is None else jobs
    ordered = sorted(images, key=lambda image: (len(image.layers), image.names))
    done = False
    try:
        require(bundle, ordered)
        named = name_all(ordered, rename, sink, content, keep_tags=keep_tags)
        todo = [_job(each, sink, content, observer) for each in named]
        parallel = sink.traits.parallel if threads > 1 else 1
        turns = [job for job, error in todo if not error]
        if parallel > 1 and not bundle.is_delta:  # in another order a delta decodes more of its bases' frames twice
            turns = _turns(turns, lambda layer: layer.size + PER_CHUNK * _chunks(bundle, layer), parallel)
        plan = list(dict.fromkeys(layer.digest for job in turns for layer in job.lacking()))
        recipes = bundle.catalog().recipes
        observer(Planned("import", sum(recipes[digest].size for digest in plan if digest in recipes)))
        content.hashed = not sink.traits.checks
        with Pool(threads, "unpack") as pool:
            try:
                content.rebuilding = Rebuilding(bundle, plan, pool=pool, jobs=max(1, threads), checked=False)
            except MissingPart:
                if not bundle.is_delta or not help_out():
                    raise
                content.rebuilding = Rebuilding(bundle, plan, pool=pool, jobs=max(1, threads), checked=False)
            ready()
            with Pool(parallel if threads else 0, "land") as lanes:
                landed, failed = _Landing(sink, content, observer, lanes, parallel).run(todo, turns)
        observer(Done("import"))
        if failed and not landed:
            raise failed[0].error
        done = True
    finally:
        sink.close(failed=not done)
    recall = content.rebuilding
    return Loaded(
        tuple(landed),
        tuple(failed),
        content.bytes_unpacked,
        recall.recall.decodes,
        recall.frames,
        time.monotonic() - started,
    )


def require(bundle: Bundle, images: Sequence[Image]) -> None:
    """All packs the images need are there, before anything is touched. MissingPart names them."""
    gone = {blob.digest for blob in bundle.missing_packs()}
    if not gone:
        return
    catalog, packs = bundle.catalog(), bundle.header.packs
    for image in images:
        known = [layer.digest for layer in image.layers if layer.digest in catalog.recipes]
        frames = catalog.frames_for(known, carried=bundle.is_delta)
        needed = {packs[catalog.frames[frame].pack] for frame in frames}
        lost = sorted(each.path for each in needed if each.digest in gone)
        if lost:
            raise MissingPart(
                f"{bundle.folder}: {image.label} needs {', '.join(lost[:3])}"
                + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
                + ", missing or not of its size",
                hint="copy the missing files from the bundle; `transfer verify` lists all of them",
            )


def _job(
    named: Named, sink: ImageSink, content: BundleContent, observer: Observer
) -> tuple[_Job, TransferError | None]:
    """What the image lacks. A failure here is that image's own, and before it nothing of the image is touched."""
    image, names = named.image, named.names
    if named.error:
        return _Job(image, names, frozenset()), named.error
    try:
        content.vouch(image)
        missing = sink.lacking(image, content)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this image's, and the others go on
        return _Job(image, names, frozenset()), one_failure(error, image.label)
    if missing is None:
        observer(Skipped(image.label, "already there"))
    elif len(missing) < len(image.layers):
        observer(Skipped(image.label, f"{len(image.layers) - len(missing)} of {len(image.layers)} layers are there"))
    return _Job(image, names, frozenset(layer.digest for layer in missing or ()), named.moves), None


def _chunks(bundle: Bundle, layer: Descriptor) -> int:
    """About as many as the layer has files."""
    recipe = bundle.catalog().recipes.get(layer.digest)
    return sum(len(part.payload) // ID_SIZE for part in recipe.parts) if recipe else 0


def _turns(jobs: Sequence[_Job], work: Callable[[Descriptor], int], parallel: int) -> list[_Job]:
    """In which order images that land beside each other begin: as they stand in the bundle, so that each frame is decoded once.

    One that makes more `work` than the others that are left make for each of the `parallel` lanes goes first, or in the end it would be
    alone; before it whatever brings a layer that it lacks as well, or that one would have to wait for it.
    """
    owner: dict[Digest, int] = {}
    sizes = [0] * len(jobs)
    for number, job in enumerate(jobs):
        for layer in job.lacking():
            if owner.setdefault(layer.digest, number) == number:
                sizes[number] += work(layer)
    left = dict.fromkeys(range(len(jobs)))
    by_size = sorted(left, key=lambda number: (sizes[number], -number))
    rest, out = sum(sizes), []
    while left:
        while by_size[-1] not in left:
            by_size.pop()
        turn = by_size[-1] if (parallel + 1) * sizes[by_size[-1]] > rest else next(iter(left))
        for each in sorted({owner[layer.digest] for layer in jobs[turn].lacking()} | {turn}):
            if each in left:
                del left[each]
                rest -= sizes[each]
                out.append(jobs[each])
    return out


class _Landing:
    """Images on their way in, as many at once as the sink takes."""

    def __init__(self, sink: ImageSink, content: BundleContent, observer: Observer, lanes: Pool, parallel: int) -> None:
        self._sink, self._content, self._observer = sink, content, observer
        self._lanes, self._parallel = lanes, parallel
        self._landed: list[Landed] = []
        self._failed: list[Failed] = []

    def run(
        self, todo: Sequence[tuple[_Job, TransferError | None]], turns: Sequence[_Job]
    ) -> tuple[list[Landed], list[Failed]]:
        """All `turns`, in that order; the answer has the order of `todo`, and what failed there before."""
        self._failed = [Failed(job.image, job.names, error) for job, error in todo if error]
        waiting = list(turns)
        running: dict[Future[Landed], _Job] = {}
        while waiting or running:
            if waiting and len(running) < self._parallel:
                job, settled = waiting.pop(0), threading.Event()
                running[self._lanes.submit(partial(self._one, job, settled.set))] = job
                settled.wait()
                continue
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                self._settle(running.pop(future), future)
        order = {id(job.image): n for n, (job, _) in enumerate(todo)}
        self._landed.sort(key=lambda each: order[id(each.image)])
        return self._landed, self._failed

    def _one(self, job: _Job, settled: Callable[[], None]) -> Landed:
        try:
            landed = self._sink.land(job.image, job.names, self._content, settled)
            return replace(landed, moved=tuple((each.name, each.holder) for each in job.moves))
        except (OtherContent, EngineError):
            self._content.recheck(layer.digest for layer in job.lacking())
            raise
        finally:
            settled()

    def _settle(self, job: _Job, future: Future[Landed]) -> None:
        """Note how it went."""
        try:
            landed = future.result()
        except Exception as unknown:  # noqa: BLE001 - whatever it is, it is this image's, and the others go on
            error = one_failure(unknown, job.image.label)
            self._failed.append(Failed(job.image, job.names, error))
            self._content.forgo(job.missing)
            self._observer(Noted(f"{job.image.label} failed: {error.message}"))
            return
        self._landed.append(landed)
        verb = "is in place" if landed.status == "imported" else "was there already"
        self._observer(
            Noted(f"{job.image.label} {verb} ({landed.id.short})" + (f"; {landed.note}" if landed.note else ""))
        )
        for name, holder in landed.moved:
            self._observer(Noted(f"the name {name} was image {holder.short}'s, and is image {landed.id.short}'s now"))


def load_into_docker(
    bundle: Bundle,
    images: Sequence[Image],
    rename: Rename,
    *,
    way: Way,
    platform: Platform | None = None,
    jobs: int | None,
    observer: Observer,
    help_out: Callable[[], bool] = lambda: False,
    ready: Callable[[], None] = lambda: None,
    keep_tags: bool = False,
) -> Loaded:
    """`load` into the Docker found here, with a registry beside it for daemons that would rather pull."""
    content = BundleContent(bundle, observer, threaded=jobs != 0)
    with Registry(TEMPORARY, content.document, content.open) as registry:

        def publish(chosen: PlatformImage) -> str:
            return registry.publish(chosen.manifest, chosen.config, chosen.layers)

        sink = DockerSink(DockerClient(), way=way, platform=platform, publish=publish, observer=observer)
        try:
            return load(
                bundle,
                images,
                rename,
                sink,
                content,
                jobs=jobs,
                observer=observer,
                help_out=help_out,
                ready=ready,
                keep_tags=keep_tags,
            )
        except EngineError:
            if registry.failures:
                raise registry.failures[0] from None
            raise
