"""import: the command that brings images in."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transfer.cli.exits import printable
from transfer.cli.options import ImportOptions, Output, StoreOptions
from transfer.cli.progress import Progress
from transfer.cli.render import amount, print_json, several
from transfer.cli.service import Service
from transfer.engines.transports import locate
from transfer.errors import EngineAway, NotFound, NotNow, TransferError, UsageError
from transfer.events import Noted, Observer
from transfer.flows import import_bundle as importing
from transfer.flows import site as site_flow
from transfer.flows import spool
from transfer.flows.arrive import (
    Came,
    Foreseen,
    ImportRequest,
    Staged,
    arrive,
    arrive_all,
    failures,
    foresee,
    put_away,
)
from transfer.flows.import_bundle import Arrival
from transfer.flows.load_images import Loaded
from transfer.flows.reassemble import bundles_in
from transfer.flows.receiving import leave_receipt
from transfer.flows.spool import in_order
from transfer.model import Platform
from transfer.ship.address import SPOOL, spool_folder
from transfer.work import keep_memory

DONE_WAYS = ("leave", "move", "remove")
MEDIUM = "medium:"


@dataclass(frozen=True, slots=True)
class MediumRequest:
    """How a device is imported. `to`: as it was typed; `types`: filesystems that may be mounted; `answer`: a word is left on it."""

    to: str = ""
    types: tuple[str, ...] = ()
    answer: bool = False


def requested(options: ImportOptions, jobs: int | None) -> ImportRequest:
    """The options of `import`; UsageError for what they cannot be."""
    location = locate(options.to)
    platform = Platform.parse(options.platform) if options.platform else None
    if options.registry.index not in ("keep", "platform"):
        raise UsageError(f"--index {options.registry.index!r:.40} is unknown", hint="it accepts keep and platform")
    target = importing.Target(
        location, platform, options.via, jobs, options.keep_tags, registry=options.registry, pin=options.pin
    )
    return ImportRequest(
        target, options.patterns, options.retag, options.stage, options.repair, location.name, options.in_turn
    )


def import_(
    bundle: str, options: ImportOptions, done: str, medium: MediumRequest, store: StoreOptions, output: Output
) -> None:
    """Run the load flow on one bundle, on the media of a set, or on all that a spool holds; exit 3 if some images did not make it."""
    request = requested(options, output.jobs)
    if done not in DONE_WAYS:
        raise UsageError(f"--done {done!r:.40} is unknown", hint=f"it accepts {', '.join(DONE_WAYS)}")
    if done != "leave" and not bundle.startswith(SPOOL):
        raise UsageError("--done is for spool: only", hint="leave it out")
    keep_memory()
    observer = Progress(quiet=output.quiet)
    service = Service()
    service.ready("importing")
    choice = store.choice()
    try:
        if bundle.startswith(MEDIUM):
            _import_medium(
                Path(bundle.removeprefix(MEDIUM)), request, medium, store, choice, service.heard(observer), output
            )
            return
        if bundle.startswith(SPOOL):
            place = spool_folder(bundle)
            came = _import_all(spool.arrived(place), place, request, store, choice, service.heard(observer), output)
            try:
                put_away(place, came, done)
            except TransferError as error:
                observer(Noted(f"{error.message}: this bundle is imported again by the next run"))
            if came and done != "leave" and choice.store and choice.store.root.is_dir():
                leave_receipt(choice.store, place)
            _end(came)
            return
        places, patterns = _places(Path(bundle), request.patterns)
        request = replace(request, patterns=patterns)
        if output.dry_run:
            _say_plan(foresee(places, request, store.shelf(choice), choice, observer), output.json)
            return
        try:
            arrival = arrive(places, request, store.shelf(choice), choice, observer)
        except EngineAway as error:
            if request.in_turn:
                raise NotNow(error.message, hint=error.hint) from error  # whoever started this will start it again
            raise
    finally:
        observer.close()
    if isinstance(arrival, Staged):
        _say_staged(arrival, output)
        return
    _say_loaded(arrival, output)
    _finish(arrival)


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
    observer: Observer,
    output: Output,
) -> list[Came]:
    """Whatever is complete in a spool or on a medium, and what came of it. Nothing if only a plan was asked for."""
    if not folders:
        raise NotFound(
            f"{place}: no bundle has arrived there yet", hint="run the same command again when more has arrived"
        )
    if output.dry_run:
        for folder in folders:
            spool.has_come(folder)
            _say_plan(foresee([folder], request, store.shelf(choice), choice, observer), output.json)
        return []
    came = arrive_all(folders, request, store.seeds, choice, observer)
    failure = next((error for each in came if (error := each.failure())), None)
    if output.json:
        arrivals = [each.arrival for each in came if isinstance(each.arrival, Arrival)]
        waiting = [each.folder.name for each in came if isinstance(each.arrival, Staged)]
        rows = [_as_json(each) for each in arrivals]
        print_json({"bundles": rows, "staged": waiting, "failed": failure and failure.slug})
    else:
        for each in came:
            if isinstance(each.arrival, Arrival):
                _say_loaded(each.arrival, output)
            elif each.arrival:
                _say_staged(each.arrival, output)
    return came


def _end(came: Sequence[Came]) -> None:
    """The first failure is raised when all have been tried."""
    for each in came:
        if isinstance(each.arrival, Arrival):
            _name_failed(each.arrival)
    failure = next((error for each in came if (error := each.failure())), None)
    if isinstance(failure, EngineAway):  # who started this will start it again
        raise NotNow(failure.message, hint=failure.hint)
    if failure:
        raise failure


def _import_medium(
    place: Path,
    request: ImportRequest,
    medium: MediumRequest,
    store: StoreOptions,
    choice: site_flow.StoreChoice,
    observer: Observer,
    output: Output,
) -> None:
    """All that lies on a medium: on a device, which is mounted for this process alone, or below a folder."""
    from transfer.flows.stick import bundles_on, import_stick

    if place.is_dir():
        folders = in_order(bundles_on(place))
        _end(_import_all(folders, place, request, store, choice, observer, output))
        return
    if output.dry_run or request.patterns or request.retag or request.repair or store.seeds:
        raise UsageError(
            "a device takes no patterns, --dry-run, --retag, --repair or --seed",
            hint=f"mount the medium, and name the folder: {MEDIUM}FOLDER",
        )
    words = [f"--to={medium.to}"] if medium.to else []
    words += ["--stage"] if request.stage else []
    words += ["--keep-tags"] if request.target.keep_tags else []
    words += [] if request.target.pin else ["--no-pin"]
    chosen = ["--no-store"] if store.no_store else [f"--store={store.store.absolute()}"] if store.store else []
    done = import_stick(place, words, medium.types, observer, store=chosen, answer=medium.answer)
    if output.json and done.report:
        print_json(done.report)
    if done.error:
        raise done.error
    if not output.quiet and not output.json:
        print(f"{place} is imported" + (", and the answer is on it" if done.answered else ""))


def _finish(arrival: Arrival) -> None:
    """Raise what is to be raised when all has been said."""
    _name_failed(arrival)
    if failure := failures(arrival):
        raise failure


def _name_failed(arrival: Arrival) -> None:
    for each in (one for loaded in (arrival.loaded, *arrival.completed) for one in loaded.failed):
        print(f"transfer: {printable(each.image.label)}: {printable(each.error.message)}", file=sys.stderr)
        if each.error.hint:
            print(f"  -> {printable(each.error.hint)}", file=sys.stderr)


def _say_staged(staged: Staged, output: Output) -> None:
    if output.json:
        print_json({"staged": str(staged.digest), "waits_for": [str(each) for each in staged.waits]})
    elif not output.quiet:
        print(
            f"{printable(str(staged.folder))} is staged. It will be imported automatically after the bundles it depends on"
        )


def _say_plan(found: Foreseen, json: bool) -> None:
    named, (gone, packs, size) = found.named, found.missing
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
        print_json({"images": rows, "packs_missing": gone, "bytes_missing": size})
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
        print(f"{gone} of {packs} packs are not here: {amount(size)}")


def _say_loaded(arrival: Arrival, output: Output) -> None:
    done = arrival.loaded
    if output.json:
        print_json(_as_json(arrival))
    elif not output.quiet:
        print(
            f"{_landed(done)}; {several(done.layers_sent, 'layer')} sent, {done.layers_present} present, "
            f"{amount(done.bytes_unpacked)} unpacked, {done.seconds:.1f} s"
        )
        for more in arrival.completed:
            print(f"of a staged bundle: {_landed(more)}")


def _landed(done: Loaded) -> str:
    new, unheld = (sum(each.status == status for each in done.landed) for status in ("imported", "unheld"))
    left_out = f"; {several(unheld, 'artifact')} left out" if unheld else ""
    return f"{several(new, 'image')} imported, {len(done.landed) - new - unheld} already present{left_out}"


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
