"""verify, and the answer to what it asks for: every byte of a bundle is looked at, and damaged files are sent again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from transfer.bundle.library import BundleList
from transfer.bundle.reader import Bundle
from transfer.cli.exits import printable
from transfer.cli.options import Output, SshOptions, StoreOptions
from transfer.cli.progress import Progress
from transfer.cli.render import amount, print_json, several
from transfer.cli.ship import way_to
from transfer.errors import Damaged, MissingPart, UsageError
from transfer.events import silent
from transfer.flows import repair
from transfer.flows import site as site_flow
from transfer.flows import verify as checking
from transfer.flows.reassemble import one_bundle
from transfer.flows.remote import Connector
from transfer.model import SITE
from transfer.ship.address import Address, parse_address
from transfer.store.store import Store
from transfer.streams import publish, read_small
from transfer.work import keep_memory


def answer(file: Path, folder: Path, store: StoreOptions, patterns: Sequence[str], output: Output) -> None:
    """Write the files a request names."""
    if patterns:
        raise UsageError("--repair-request takes no image names: the request file says what is needed")
    done = repair.answer(repair.parse_request(read_small(file), str(file)), folder, store.shelf(store.choice()))
    if output.json:
        print_json(
            {
                "bundle": str(folder),
                "digest": str(done.digest),
                "files": done.files,
                "frames": done.frames,
                "bytes_packed": done.size,
            }
        )
    elif not output.quiet:
        place = printable(str(folder))
        what = f"{several(done.files, 'file')} and {several(done.frames, 'frame')} of bundle {done.digest.short}, {amount(done.size)}"
        print(f"{place}: {what}")
        print(f"  -> carry it to the damaged bundle, then run there: transfer import DAMAGED --repair {place}")


def verify(
    place: str, ssh: SshOptions, store: StoreOptions, output: Output, *, deep: bool, against: str, request: Path | None
) -> None:
    """Run the check flow; exit 13 for damage, 14 for missing files or missing prerequisites."""
    keep_memory()
    observer = Progress(quiet=output.quiet or output.json)
    address = parse_address(place)
    if address:
        if deep or against or request:
            raise UsageError(
                "--deep, --against and --repair-request do not work on a remote host",
                hint="leave them out, or run `transfer verify` on that host",
            )
        _verify_there(address, ssh, observer, output)
        return
    bundle = one_bundle([Path(place)])[0]
    shelf = store.shelf(store.choice())
    try:
        if _say_answer(bundle, output):
            return
        repair.mend_here(bundle, observer)
        if request:
            # written first: a bundle whose header is damaged cannot even be opened, and every answer brings that
            publish(request, repair.request_of(bundle).encode())
        done = checking.check(bundle, deep=deep, jobs=output.jobs, observer=observer, library=shelf)
    finally:
        observer.close()
    if request:
        publish(request, repair.request_for(done).encode())
    compared = _against(bundle, against, store, shelf) if against and done.sound else None
    wrong = (*done.damage, *done.missing)
    if output.json:
        print_json(_checked_as_json(bundle, done, compared))
    else:
        _say_checked(bundle, done, output.quiet)
        if compared and not compared.missing and not output.quiet:
            print(f"all {several(compared.needed, 'chunk')} it depends on are in {printable(against)}")
    if wrong:
        if not output.json and request:
            print(
                f"  -> carry {printable(str(request))} to the sender; run there: transfer export --repair-request FILE -o small.bundle",
                file=sys.stderr,
            )
        elif not output.json:
            print("  -> copy the named files again from the original bundle, then verify again", file=sys.stderr)
        raise typer.Exit(Damaged.exit_code if done.damage else MissingPart.exit_code)
    if compared and compared.missing:
        raise MissingPart(
            f"{against} lacks {compared.missing} of {several(compared.needed, 'chunk')} that this bundle depends on; {compared.words}",
            hint="import that bundle there first, or export again with --base site:NAME",
        )


def _say_answer(folder: Path, output: Output) -> bool:
    """Whether the folder is an answer to a request, and no bundle; if so what it holds is said."""
    found = repair.given(folder) if (folder / repair.ANSWER).is_file() else None
    if found is None:
        return False
    with Bundle(folder) as opened:
        if not repair.is_answer(opened, found):
            return False
    files, frames = len(found.blobs), sum(map(len, found.frames.values()))
    if output.json:
        print_json({"bundle": str(folder), "answer_for": str(found.bundle), "files": files, "frames": frames})
    elif not output.quiet:
        print(
            f"{printable(str(folder))}: an answer to a request, with {several(files, 'file')} and {several(frames, 'frame')} of bundle {found.bundle.short}"
        )
        print(f"  -> transfer import DAMAGED --repair {printable(str(folder))}")
    return True


def _checked_as_json(bundle: Path, done: checking.Checked, compared: repair.Against | None) -> dict[str, Any]:
    return {
        "bundle": str(bundle),
        "digest": str(done.digest),
        "sound": done.sound,
        "files": done.files,
        "bytes_checked": done.bytes_checked,
        "layers_rebuilt": done.layers_rebuilt,
        "packs_elsewhere": done.elsewhere,
        "damage": _damage((*done.damage, *done.missing)),
        "against": compared
        and {
            "chunks_needed": compared.needed,
            "chunks_missing": compared.missing,
            "bundles": [str(each) for each in compared.suppliers],
        },
        "seconds": round(done.seconds, 3),
    }


def _say_checked(bundle: Path, done: checking.Checked, quiet: bool) -> None:
    _say_wrong((*done.damage, *done.missing))
    if done.sound and not quiet:
        part = f" (one medium of a set: {done.elsewhere} packs are on others)" if done.elsewhere else ""
        print(
            f"{printable(str(bundle))}: sound, {several(done.files, 'file')}, {amount(done.bytes_checked)} checked, "
            f"{done.seconds:.1f} s{part}"
        )


def _damage(wrong: Sequence[checking.Damage]) -> list[dict[str, Any]]:
    return [{"file": d.file, "frame": d.frame, "why": d.why, "images": list(d.images)} for d in wrong]


def _say_wrong(wrong: Sequence[checking.Damage]) -> None:
    for each in wrong:
        frame = "" if each.frame is None else f", frame {each.frame}"
        who = f"; cannot be imported: {', '.join(each.images)}" if each.images else "; no image is affected"
        print(printable(f"{each.file}{frame}: {each.why}{who}"))


def _verify_there(address: Address, ssh: SshOptions, observer: Progress, output: Output) -> None:
    """A bundle on another host."""
    from transfer.flows import verify_remote

    folder, name = verify_remote.bundle_at(address)
    try:
        done = verify_remote.check(Connector(way_to(folder, ssh), observer), name, observer)
    finally:
        observer.close()
    wrong = (*done.damage, *done.missing)
    if output.json:
        print_json(
            {
                "bundle": done.where,
                "digest": str(done.digest),
                "sound": not wrong,
                "by": done.by,
                "files": done.files,
                "bytes_checked": done.bytes_checked,
                "damage": _damage(wrong),
                "seconds": round(done.seconds, 3),
            }
        )
    else:
        _say_wrong(wrong)
        if not wrong and not output.quiet:
            where = printable(done.where)
            print(
                f"{where}: sound, {several(done.files, 'file')}, {amount(done.bytes_checked)} checked, {done.seconds:.1f} s ({done.by})"
            )
    if wrong:
        if not output.json:
            print("  -> ship the bundle again: sound files stay, the others are sent", file=sys.stderr)
        raise typer.Exit(Damaged.exit_code if done.damage else MissingPart.exit_code)


def _against(bundle: Path, place: str, options: StoreOptions, shelf: BundleList) -> repair.Against:
    if place.startswith(SITE):
        with Bundle(bundle, library=shelf) as opened:
            return repair.against(
                opened, site_flow.bases([place], shelf, site_flow.need_store(options.choice()), silent)
            )
    if not (Path(place) / "bundles").is_dir():
        raise UsageError(f"{place!r} is not a store", hint="name the folder of a store, or site:NAME")
    store = Store(Path(place))
    with store.reading(), Bundle(bundle, library=store) as opened:
        return repair.against(opened, store)
