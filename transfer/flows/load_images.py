"""A bundle's images into an engine: what is missing there, rebuilt, checked, and handed over. In three steps: plan, content, run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from transfer.bundle.reader import Bundle
from transfer.bundle.rebuild import BlobReader
from transfer.chunks.name import ID_SIZE
from transfer.engines.base import ImageSink, ImportedImage
from transfer.engines.tree import is_artifact, tree_of
from transfer.errors import MissingPart, TransferError, one_failure
from transfer.events import Done, Observer, Planned, Skipped
from transfer.flows.content import BundleContent
from transfer.flows.landing import Failed, Job, Landing, in_turns
from transfer.flows.naming import Named, NameKept, Rename, name_all
from transfer.flows.serving import Serving
from transfer.model import Descriptor, Digest, Image
from transfer.work import Pool, default_jobs

PER_CHUNK = 16 << 10
"""What a file costs an engine beside its bytes (as bytes). An estimate: the order is the same from 8 to 16 KiB on the reference corpus."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What an import did. `frames_decoded` of `frames_needed`: how often packs were unpacked."""

    landed: tuple[ImportedImage, ...]
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


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How images are loaded. `jobs`: threads (None: one a processor; 0: this one). `keep_tags`: a name another image has stays with that one.

    `late`: the bundle comes after a newer one: names stay where they are, and an image all of whose names have moved on is left out.
    """

    jobs: int | None = None
    keep_tags: bool = False
    late: bool = False

    @property
    def threads(self) -> int:
        return default_jobs() if self.jobs is None else self.jobs


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What is to be done: every image with what it lacks, or why it cannot come; those that come in their turns; all layers to be sent, in order; artifacts that the engine has no place for."""

    jobs: tuple[tuple[Job, TransferError | None], ...]
    turns: tuple[Job, ...]
    parallel: int
    layers: tuple[Digest, ...]
    size: int
    unheld: tuple[Image, ...] = ()


def load_images(
    bundle: Bundle,
    images: Sequence[Image],
    rename: Rename,
    sink: ImageSink,
    *,
    options: LoadOptions = LoadOptions(),
    observer: Observer,
    serving: Serving | None = None,
    find_base: Callable[[], bool] = lambda: False,
    ready: Callable[[], None] = lambda: None,
) -> Loaded:
    """Bring the images in. One that fails does not stop the others; if all fail, the first failure is raised. The sink is closed.

    `serving` hands the content to a registry that the engine may pull from. Where a delta lacks what it builds on, `find_base` is asked
    once for more bundles in its library. `ready` is called when all that is needed is at hand and before anything is changed.
    """
    started = time.monotonic()
    done = False
    try:
        plan = plan_load(bundle, images, rename, sink, options, observer)
        with Pool(options.threads, "unpack") as pool:
            rebuilding = _rebuilding(bundle, plan, pool, options, find_base)
            hashed = not sink.traits.checks
            content = BundleContent(bundle, observer, threaded=options.jobs != 0, hashed=hashed, rebuilding=rebuilding)
            if serving:
                serving.content = content
            ready()
            with Pool(plan.parallel if options.threads else 0, "land") as lanes:
                landed, failed = Landing(sink, content, observer, lanes, plan.parallel).run(plan.jobs, plan.turns)
        observer(Done("import"))
        if failed and not landed and not plan.unheld:
            raise failed[0].error
        done = True
    finally:
        sink.close(failed=not done)
    left = [ImportedImage(each, "unheld", each.root.digest) for each in plan.unheld]
    return Loaded(
        (*landed, *left),
        tuple(failed),
        content.bytes_unpacked,
        rebuilding.recall.decodes,
        rebuilding.frames,
        time.monotonic() - started,
    )


def plan_load(
    bundle: Bundle, images: Sequence[Image], rename: Rename, sink: ImageSink, options: LoadOptions, observer: Observer
) -> LoadPlan:
    """What of the images is missing in the engine, and in which order it goes there. MissingPart if a pack is not here."""
    content = BundleContent(bundle, observer)
    ordered = sorted(images, key=lambda image: (len(image.layers), image.names))
    require(bundle, ordered)
    unheld = [] if sink.traits.artifacts else [each for each in ordered if _cannot_run(each, content)]
    ordered = [each for each in ordered if each not in unheld]
    for each in unheld:
        observer(Skipped(each.label, f"an artifact, which {sink.where} has no place for"))
    named = name_all(ordered, rename, sink, content, keep_tags=options.keep_tags or options.late)
    if options.late:
        passed = [each.image for each in named if isinstance(each.error, NameKept)]
        named = [each for each in named if each.image not in passed]
        for image in passed:
            observer(Skipped(image.label, "newer images have all its names"))
        unheld += passed
    jobs = [_job(each, sink, content, observer) for each in named]
    parallel = sink.traits.parallel if options.threads > 1 else 1
    turns = [job for job, error in jobs if not error]
    if parallel > 1 and not bundle.is_delta:  # in another order a delta decodes more of its bases' frames twice
        turns = in_turns(turns, lambda layer: layer.size + PER_CHUNK * _chunks(bundle, layer), parallel)
    layers = tuple(dict.fromkeys(layer.digest for job in turns for layer in job.missing))
    recipes = bundle.catalog().recipes
    size = sum(recipes[digest].size for digest in layers if digest in recipes)
    observer(Planned("import", size))
    return LoadPlan(tuple(jobs), tuple(turns), parallel, layers, size, tuple(unheld))


def _cannot_run(image: Image, content: BundleContent) -> bool:
    """Whether it is an artifact. What is wrong with an image is told when it is its turn."""
    try:
        return is_artifact(tree_of(image, content.document))
    except TransferError:
        return False


def _rebuilding(
    bundle: Bundle, plan: LoadPlan, pool: Pool, options: LoadOptions, find_base: Callable[[], bool]
) -> BlobReader:
    """The layers of the plan, as they are rebuilt. MissingPart if what a delta builds on is not to be found."""
    for found in (find_base, lambda: False):
        try:
            return BlobReader(bundle, plan.layers, pool=pool, jobs=max(1, options.threads), checked=False)
        except MissingPart:
            if not bundle.is_delta or not found():
                raise
    raise AssertionError("the second try returns or raises")


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
                + ", missing or has the wrong size",
                hint="copy the missing files from the original bundle; `transfer verify` lists all of them",
            )


def _job(named: Named, sink: ImageSink, content: BundleContent, observer: Observer) -> tuple[Job, TransferError | None]:
    """What the image lacks. A failure here is that image's own, and before it nothing of the image is touched."""
    image, names = named.image, named.names
    if named.error:
        return Job(image, names, ()), named.error
    try:
        content.vouch(image)
        missing = sink.missing(replace(image, names=names), content)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this image's, and the others go on
        return Job(image, names, ()), one_failure(error, image.label)
    if missing is None:
        observer(Skipped(image.label, "already present"))
    elif len(missing) < len(image.layers):
        observer(Skipped(image.label, f"{len(image.layers) - len(missing)} of {len(image.layers)} layers are present"))
    return Job(image, names, tuple(dict.fromkeys(missing or ())), named.moves), None


def _chunks(bundle: Bundle, layer: Descriptor) -> int:
    """About as many as the layer has files."""
    catalog = bundle.catalog()
    recipes = catalog.all_of((layer.digest,)) if layer.digest in catalog.recipes else ()
    return sum(len(part.payload) // ID_SIZE for recipe in recipes for part in recipe.parts)
