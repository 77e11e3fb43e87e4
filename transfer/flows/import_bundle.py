"""An import as a site sees it: images into the engine, the bundle into the store, and what waited for it as well."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path

from transfer.bundle.assembly import assemble
from transfer.bundle.library import BundleList
from transfer.bundle.reader import Bundle
from transfer.engines.base import RegistryOptions, SinkOptions
from transfer.engines.transports import Location, already_there
from transfer.errors import EngineError, MissingPart, TransferError, TryAgain, one_failure
from transfer.events import Noted, Observer
from transfer.flows.content import BundleContent
from transfer.flows.load_images import Loaded, LoadOptions, load_images
from transfer.flows.naming import Named, Rename, name_all
from transfer.flows.serving import Serving
from transfer.flows.site import StoreChoice, reading, remember, spacious
from transfer.model import Digest, Image, Platform
from transfer.sites import arrived
from transfer.store.adopt import Adopted, adopt_part
from transfer.store.entry import Role
from transfer.store.store import Store
from transfer.work import Pool


@dataclass(frozen=True, slots=True)
class Target:
    """Where images are to land, and how. `late`: see LoadOptions; `pin`: see SinkOptions."""

    location: Location
    platform: Platform | None = None
    via: str = "auto"
    jobs: int | None = None
    keep_tags: bool = False
    late: bool = False
    registry: RegistryOptions = field(default_factory=RegistryOptions)
    pin: bool = True


@dataclass
class Arrival:
    """What came of it. `store_error`: the images are in place, the store could not take the bundle."""

    loaded: Loaded
    adopted: Adopted | None = None
    store_error: TransferError | None = None
    completed: list[Loaded] = field(default_factory=list)


def import_bundle(
    bundle: Bundle,
    images: Sequence[Image],
    rename: Rename,
    target: Target,
    *,
    shelf: BundleList,
    choice: StoreChoice,
    observer: Observer,
) -> Arrival:
    """Import the images; take the bundle into the store meanwhile; then import what was staged and is complete now.

    The store holds the bundle when the images are in place, and not before: a run that is killed leaves a staged one.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(reading(choice, adopting=True))
        side = stack.enter_context(Pool(1, "adopt"))
        taking: list[Future[tuple[Adopted | None, TransferError | None]]] = []

        def ready() -> None:
            taking.append(side.submit(lambda: _take(bundle, choice, observer)))

        try:
            loaded = load_into(
                bundle, images, rename, target, shelf=shelf, choice=choice, observer=observer, ready=ready
            )
        except BaseException:
            for future in taking:
                future.result()
            raise
        arrival = Arrival(loaded)
        for future in taking:
            arrival.adopted, arrival.store_error = future.result()
        if choice.store and not arrival.store_error:
            if taking and not loaded.failed:
                _is_held(choice.store, bundle.manifest.digest)
            arrival.completed = _complete(rename, target, choice, observer)
        return arrival


def _is_held(store: Store, digest: Digest) -> None:
    """All images are in place that were to be imported: from now on receipts name the bundle."""
    entry = store.entry(digest)
    if entry and entry.role is Role.STAGED and entry.begun:
        with store.adding():
            store.change(digest, role=Role.HELD)


def load_into(
    bundle: Bundle,
    images: Sequence[Image],
    rename: Rename,
    target: Target,
    *,
    shelf: BundleList,
    choice: StoreChoice,
    observer: Observer,
    ready: Callable[[], None] = lambda: None,
) -> Loaded:
    """The images into the engine or file. What a delta lacks is looked for in the engine's own images too."""
    with contextlib.ExitStack() as stack:

        def find_base() -> bool:
            from transfer.flows.rechunk import rechunk

            layers = bundle.header.prerequisites.layers or ()
            source = already_there(target.location) if layers else None
            if source is None:
                return False
            stack.callback(source.close)
            place = choice.store.root if choice.store and choice.store.root.is_dir() else spacious()
            found = stack.enter_context(rechunk(source, layers, place, jobs=target.jobs, observer=observer))
            for each in found:
                shelf.put(each)
            return bool(found)

        try:
            bundle.catalog()
        except MissingPart:
            if not bundle.is_delta or not find_base():
                raise
        serving = stack.enter_context(Serving().open())
        options = SinkOptions(
            target.platform,
            target.via,
            serving.publish,
            serving.offer,
            observer,
            pin=target.pin,
            registry=target.registry,
        )
        return load_images(
            bundle,
            images,
            rename,
            target.location.open_sink(options),
            options=LoadOptions(target.jobs, target.keep_tags, target.late),
            observer=observer,
            serving=serving,
            find_base=find_base,
            ready=ready,
        )


def foresee(bundle: Bundle, images: Sequence[Image], rename: Rename, target: Target, observer: Observer) -> list[Named]:
    """The names that the images would get, and those of them that another image has there now. Nothing is changed."""
    content = BundleContent(bundle, observer)
    try:
        if not target.location.transport.grows:
            return [Named(image, rename(image.names)) for image in images]
        sink = target.location.open_sink(
            SinkOptions(target.platform, target.via, observer=observer, only_look=True, registry=target.registry)
        )
        try:
            bundle.catalog()
            return [
                _vouched(each, content) for each in name_all(images, rename, sink, content, keep_tags=target.keep_tags)
            ]
        finally:
            sink.close(failed=True)
    except (EngineError, TryAgain, MissingPart) as error:
        observer(Noted(f"cannot tell which names would move: {error.message}"))
        return [Named(image, rename(image.names)) for image in images]


def _vouched(named: Named, content: BundleContent) -> Named:
    """With what an import would refuse of the image."""
    try:
        if not named.error:
            content.vouch(named.image)
    except TransferError as error:
        return replace(named, error=error)
    return named


def _take(bundle: Bundle, choice: StoreChoice, observer: Observer) -> tuple[Adopted | None, TransferError | None]:
    """The bundle into the store, and before it those it builds on that are not there: a store rebuilds all it holds by itself."""
    store = choice.store
    if store is None:
        return None, None
    if bundle.missing_packs():
        adopt_part(store, bundle, lambda text: observer(Noted(text)))
        return None, None
    if store.holds(bundle):
        return Adopted(0, 0, sum(blob.size for blob in bundle.header.packs)), None
    try:
        behind = assemble(bundle, bundle.catalog().recipes, bundle.library).bundles[1:] if bundle.is_delta else []
    except MissingPart as error:
        observer(Noted(f"not kept in the store: {error.message}"))
        return None, None
    digests = {each.manifest.digest for each in behind} | bundle.record_suppliers
    for digest in sorted(digests):
        entry = store.entry(digest)
        supplier = bundle.library.bundle(digest)
        if supplier and not (entry and entry.packs) and supplier.folder != store.root:
            _, failed = remember(choice, supplier, Role.SUPPLIER, observer, copy=True)
            if failed:
                return None, failed
    return remember(choice, bundle, Role.STAGED, observer, copy=True, begun=True)


def _complete(rename: Rename, target: Target, choice: StoreChoice, observer: Observer) -> list[Loaded]:
    """Import the staged bundles that waited and have all they need now. One of which images fail waits no more: it is to be brought again."""
    out: list[Loaded] = []
    store = choice.store
    if store is None or not target.location.transport.grows:
        return out
    for bundle in list(_waiting(store)):
        shelf, digest = BundleList((), [store]), bundle.manifest.digest
        entry, short = store.entry(digest), digest.short
        name = Path(entry.place).name if entry else ""
        own = replace(target, late=bool(arrived.overtaken_by(store.root, name)))
        try:
            assemble(bundle, bundle.catalog().recipes, store)
            observer(Noted(f"staged bundle {short} is now complete"))
            done = load_into(bundle, bundle.images, rename, own, shelf=shelf, choice=choice, observer=observer)
        except MissingPart:
            continue
        except Exception as unknown:  # noqa: BLE001 - whatever it is, it is this bundle's
            error = one_failure(unknown, f"bundle {short}")
            # the import that was asked for stands; this one can be dropped, or brought again
            observer(Noted(f"staged bundle {short} cannot be imported: {error.message}"))
            observer(Noted(f"  -> bring the bundle again, or give it up: {_giving_up(store, short)}"))
            continue
        out.append(done)
        if done.failed:
            total = len(done.failed) + len(done.landed)
            observer(Noted(f"staged bundle {short}: {len(done.failed)} of {total} images cannot be imported"))
            observer(Noted(f"  -> bring the bundle again, or give it up: {_giving_up(store, short)}"))
        with store.adding():
            if done.failed:
                store.change(digest, begun=True)
            else:
                store.change(digest, role=Role.HELD)
                arrived.remember(store.root, name)
    return out


def _giving_up(store: Store, short: str) -> str:
    """The command after which a staged bundle is not tried any more."""
    return f"transfer store drop {short} --store {shlex.quote(str(store.root))}"


def _waiting(store: Store) -> Iterator[Bundle]:
    """The bundles that wait for what they build on: those first that no other waiting one is named by."""
    waiting = [each.digest for each in store.entries() if each.role is Role.STAGED and not each.begun]
    while waiting:
        named: dict[Digest, set[Digest]] = {}
        for digest in waiting:
            bundle = store.bundle(digest)
            named[digest] = set(bundle.header.prerequisites.bundles if bundle else ()) & set(waiting) - {digest}
        first = next((digest for digest in waiting if not named[digest]), waiting[0])
        waiting.remove(first)
        bundle = store.bundle(first)
        if bundle:
            yield bundle


def stage(bundle: Bundle, choice: StoreChoice, observer: Observer) -> tuple[Adopted | None, TransferError | None]:
    """Keep a bundle until what it builds on has come."""
    started = time.monotonic()
    found = remember(choice, bundle, Role.STAGED, observer, copy=True)
    observer(Noted(f"staged in {time.monotonic() - started:.1f} s"))
    return found
