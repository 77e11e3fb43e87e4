"""import: the command that brings images in."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transfer.bundle.library import BundleList
from transfer.bundle.reader import Bundle
from transfer.cli.exits import printable
from transfer.cli.options import ImportOptions, Output, StoreOptions
from transfer.cli.progress import Progress
from transfer.cli.render import amount, print_json, several
from transfer.engines.transports import locate
from transfer.errors import Damaged, MissingPart, NotFound, SomeImagesFailed, TransferError, UsageError, one_failure
from transfer.events import Noted, Observer
from transfer.flows import import_bundle as importing
from transfer.flows import site as site_flow
from transfer.flows import spool
from transfer.flows.import_bundle import Arrival
from transfer.flows.naming import Named, Rename
from transfer.flows.reassemble import Reassembly, bundles_in, reassembled
from transfer.flows.select import by_digest, choose, retagging
from transfer.model import Image, Platform
from transfer.ship.address import SPOOL, spool_folder
from transfer.work import keep_memory


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What is to be imported, and how."""

    patterns: tuple[str, ...]
    retag: tuple[str, ...]
    target: importing.Target
    stage: bool
    repair: tuple[Path, ...] = ()
    name: str = ""
    """What the one image is to be called, as --to says it."""


def requested(options: ImportOptions, jobs: int | None) -> ImportRequest:
    """The options of `import`; UsageError for what they cannot be."""
    location = locate(options.to)
    platform = Platform.parse(options.platform) if options.platform else None
    if options.registry.index not in ("keep", "platform"):
        raise UsageError(f"--index {options.registry.index!r:.40} is unknown", hint="it accepts keep and platform")
    target = importing.Target(location, platform, options.via, jobs, options.keep_tags, options.registry)
    return ImportRequest(options.patterns, options.retag, target, options.stage, options.repair, location.name)


def import_(bundle: str, options: ImportOptions, store: StoreOptions, output: Output) -> None:
    """Run the load flow on one bundle, on the media of a set, or on all that a spool holds; exit 3 if some images did not make it."""
    request = requested(options, output.jobs)
    keep_memory()
    observer = Progress(quiet=output.quiet)
    choice = store.choice()
    try:
        if bundle.startswith(SPOOL):
            place = spool_folder(bundle)
            _import_all(spool.arrived(place), place, request, store, choice, observer, output)
            return
        places, patterns = _places(Path(bundle), request.patterns)
        done = _import_from(places, replace(request, patterns=patterns), store, choice, observer, output)
    finally:
        observer.close()
    if done:
        _say_loaded(done, output)
        _finish(done)


def _places(first: Path, patterns: Sequence[str]) -> tuple[list[Path], tuple[str, ...]]:
    """The words that are folders with bundles, as long as they last, and the images after them."""
    places, rest = [first], list(patterns)
    while rest and (rest[0].startswith(("/", ".")) or ("/" in rest[0] and bundles_in(Path(rest[0])))):
        places.append(Path(rest.pop(0)))
    return places, tuple(rest)


def _import_all(
    folders: Sequence[Path],
    place: Path,
    request: ImportRequest,
    store: StoreOptions,
    choice: site_flow.StoreChoice,
    observer: Progress,
    output: Output,
) -> None:
    """Whatever is complete in a spool; the first failure is raised when all have been tried."""
    if not folders:
        raise NotFound(
            f"{place}: no bundle has arrived there yet", hint="run the same command again when more has arrived"
        )
    arrivals: list[Arrival] = []
    failure: TransferError | None = None
    for folder in folders:
        try:
            spool.has_come(folder)
            done = _import_from([folder], request, store, choice, observer, output)
            if done:
                arrivals.append(done)
                _check_store(done)
        except Exception as unknown:  # noqa: BLE001 - whatever it is, it is this bundle's, and the others are tried
            error = one_failure(unknown, str(folder))
            observer(Noted(f"{folder.name}: {error.message}"))
            failure = failure or error
    observer.close()
    if output.json:
        print_json({"bundles": [_as_json(each) for each in arrivals], "failed": failure and failure.slug})
    else:
        for each in arrivals:
            _say_loaded(each, output)
    for each in arrivals:
        _finish(each)
    if failure:
        raise failure


def _import_from(
    places: Sequence[Path],
    request: ImportRequest,
    store: StoreOptions,
    choice: site_flow.StoreChoice,
    observer: Observer,
    output: Output,
) -> Arrival | None:
    """One bundle, from wherever it lies. None if only a plan was asked for, or it is staged."""
    shelf = store.shelf(choice)
    with reassembled(places, shelf, choice, observer) as found:
        found.repair(request.repair)
        chosen = choose(found.bundle.images, request.patterns)
        if output.dry_run:
            named, rename = _naming(chosen, request)
            _say_plan(
                importing.foresee(found.bundle, named, rename, request.target, observer), found.bundle, output.json
            )
            return None
        found.complete(chosen)
        try:
            arrival = _arrive(found, request, shelf, choice, observer)
        except MissingPart:
            if not request.stage or not found.bundle.is_delta:
                raise
            gone = found.bundle.missing_packs()
            if gone:
                path = found.bundle.path_of(gone[0])
                raise MissingPart(
                    f"{path} is missing or has the wrong size", hint="copy it from the original bundle"
                ) from None
            _stage(found.bundle, choice, observer, output)
            return None
        found.settle()
        return arrival


def _naming(chosen: Sequence[Image], request: ImportRequest) -> tuple[list[Image], Rename]:
    """The images, those renamed that are meant by a digest or by --to, and what becomes of the others' names."""
    if request.name:
        if len(chosen) != 1:
            raise UsageError(
                f"--to names one image ({request.name!r:.100}), but {len(chosen)} images are chosen",
                hint="name the image after the bundle; or leave the name out of --to and use --retag OLD=NEW",
            )
        return [replace(chosen[0], names=(request.name,))], retagging(())
    images, rules = by_digest(request.retag, chosen)
    return images, retagging(rules, images)


def _arrive(
    found: Reassembly, request: ImportRequest, shelf: BundleList, choice: site_flow.StoreChoice, observer: Observer
) -> Arrival:
    """Import; where damage was met and there are recovery files, make the packs anew and go on."""

    def once() -> Arrival:
        chosen, rename = _naming(choose(found.bundle.images, request.patterns), request)
        return importing.import_bundle(
            found.bundle, chosen, rename, request.target, shelf=shelf, choice=choice, observer=observer
        )

    def mended() -> bool:
        """Whether what was met is not met again: a bundle in the store that gave false chunks gives none any more, or packs were made anew."""
        false = choice.store.marks.disowned_now if choice.store else set()
        for digest in sorted(false):
            observer(
                Noted(
                    f"bundle {digest.short} in the store has chunks that do not match their names; that bundle is not used"
                )
            )
        again = bool(false)
        false.clear()
        return again or found.mend()

    try:
        arrival = once()
        spoiled = any(isinstance(each.error, Damaged) for each in arrival.loaded.failed)
        return once() if spoiled and mended() else arrival
    except Damaged:
        if not mended():
            raise
        return once()


def _check_store(arrival: Arrival) -> None:
    if arrival.store_error:
        raise type(arrival.store_error)(
            f"the images are in place, but the store could not take the bundle: {arrival.store_error.message}",
            hint=arrival.store_error.hint or "run the same command again, or go without: --no-store",
        )


def _finish(arrival: Arrival) -> None:
    """Raise what is to be raised when all has been said."""
    _check_store(arrival)
    done = arrival.loaded
    failed = [each for loaded in (done, *arrival.completed) for each in loaded.failed]
    if failed:
        for each in failed:
            print(f"transfer: {printable(each.image.label)}: {printable(each.error.message)}", file=sys.stderr)
            if each.error.hint:
                print(f"  -> {printable(each.error.hint)}", file=sys.stderr)
        landed = sum(len(loaded.landed) for loaded in (done, *arrival.completed))
        raise SomeImagesFailed(
            f"{len(failed)} of {len(failed) + landed} images could not be imported",
            hint="the other images are in place; run the same command again for the rest",
        )


def _stage(opened: Bundle, choice: site_flow.StoreChoice, observer: Observer, output: Output) -> None:
    site_flow.need_store(choice)
    adopted, failed = importing.stage(opened, choice, observer)
    if failed or adopted is None:
        raise failed or UsageError("there is no store to keep it in", hint="name one with --store DIR")
    waits = [str(each) for each in opened.header.prerequisites.bundles]
    if output.json:
        print_json({"staged": str(opened.manifest.digest), "waits_for": waits})
    elif not output.quiet:
        print(
            f"{printable(str(opened.folder))} is staged. It will be imported automatically after the bundles it depends on"
        )


def _say_plan(named: Sequence[Named], bundle: Bundle, json: bool) -> None:
    gone = bundle.missing_packs()
    if json:
        rows = [
            {
                "name": each.image.label,
                "names": list(each.names),
                "bytes": each.image.size,
                "moves": [[move.name, str(move.holder)] for move in each.moves],
                "error": each.error and each.error.message,
            }
            for each in named
        ]
        print_json({"images": rows, "packs_missing": len(gone), "bytes_missing": sum(blob.size for blob in gone)})
        return
    for each in named:
        image = each.image
        names = ", ".join(each.names) or image.label
        print(printable(f"{names}  {several(len(image.layers), 'layer')}  {amount(image.size)}"))
        for move in each.moves:
            print(printable(f"  the name {move.name} would move from image {move.holder.short}"))
        if each.error:
            print(printable(f"  this image would be refused: {each.error.message}"))
    if gone:
        print(
            f"{len(gone)} of {len(bundle.header.packs)} packs are not here: {amount(sum(blob.size for blob in gone))}"
        )


def _say_loaded(arrival: Arrival, output: Output) -> None:
    done = arrival.loaded
    if output.json:
        print_json(_as_json(arrival))
    elif not output.quiet:
        new, unheld = (sum(each.status == status for each in done.landed) for status in ("imported", "unheld"))
        print(
            f"{several(new, 'image')} imported, {len(done.landed) - new - unheld} already present; "
            + (f"{several(unheld, 'artifact')} left out; " if unheld else "")
            + f"{several(done.layers_sent, 'layer')} sent, {done.layers_present} present, "
            f"{amount(done.bytes_unpacked)} unpacked, {done.seconds:.1f} s"
        )
        for more in arrival.completed:
            print(f"{several(len(more.landed), 'image')} of a staged bundle imported, too")


def _as_json(arrival: Arrival) -> dict[str, Any]:
    done, adopted = arrival.loaded, arrival.adopted
    rows = [
        {
            "name": each.names[0] if each.names else each.image.label,
            "names": list(each.names),
            "status": each.status,
            "id": str(each.id),
            "digest": str(each.image.root.digest),
            "config_digest": str(each.image.config_digest) if each.image.config_digest else None,
            "layers_sent": each.layers_sent,
            "moved": [[name, str(holder), str(each.id)] for name, holder in each.moved],
        }
        for each in done.landed
    ]
    rows += [
        {
            "name": each.image.label,
            "status": "failed",
            "config_digest": None,
            "error": each.error.message,
            "slug": each.error.slug,
        }
        for loaded in (done, *arrival.completed)
        for each in loaded.failed
    ]
    return {
        "images": rows,
        "bytes_unpacked": done.bytes_unpacked,
        "layers_sent": done.layers_sent,
        "layers_present": done.layers_present,
        "frames_decoded": done.frames_decoded,
        "frames_needed": done.frames_needed,
        "store": adopted and {"linked": adopted.linked, "copied": adopted.copied, "present": adopted.present},
        "completed": [each.image.label for more in arrival.completed for each in more.landed],
        "seconds": round(done.seconds, 3),
    }
