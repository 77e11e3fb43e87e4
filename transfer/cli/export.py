"""export and plan: the commands that make a bundle, or say what it would take."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.cli.main import printable
from transfer.cli.progress import Progress
from transfer.cli.render import amount, print_json, several
from transfer.cli.wiring import Behind
from transfer.engines.base import Found, ImageSource
from transfer.errors import NoSpace, SomeImagesFailed
from transfer.events import Noted, Observer
from transfer.flows import export as exporting
from transfer.flows import stores
from transfer.flows.select import NotTaken, open_source, select
from transfer.model import Platform
from transfer.work import keep_memory


@dataclass(frozen=True, slots=True)
class Wished:
    """Which images an export takes, from where, how they are read and how hard they are compressed."""

    patterns: tuple[str, ...]
    source: str
    via: str
    platform: str
    level: int
    strict: bool = False

    def open(self, observer: Observer) -> tuple[ImageSource, list[str]]:
        """The source, and the reference --from names, if any."""
        return open_source(self.source, via=self.via, observer=observer)

    def select(
        self, source: ImageSource, named: list[str], observer: Observer, failed: list[NotTaken] | None = None
    ) -> list[Found]:
        platform = Platform.parse(self.platform) if self.platform else None
        return select(source, [*named, *self.patterns], platform, observer, failed)


def export(
    wished: Wished,
    output: Path,
    behind: Behind,
    jobs: int | None,
    json: bool,
    quiet: bool,
) -> None:
    """Run the export flow and say what came of it."""
    keep_memory()
    observer = Progress(quiet=quiet)
    choice = behind.choice()
    opened, named = wished.open(observer)
    try:
        base = behind.bases(choice, observer)
        observer(Noted(f"from {opened.where}"))
        failed: list[NotTaken] = []
        found = wished.select(opened, named, observer, None if wished.strict else failed)
        done = exporting.export(
            opened,
            found,
            output,
            level=wished.level,
            jobs=jobs,
            observer=observer,
            base=base,
            strict=wished.strict,
        )
    finally:
        observer.close()
        opened.close()
    fresh = not done.already and not done.bytes_reused
    stores.sent(choice, done.bundle, done.digest, base, behind.sites, observer, fresh=fresh)
    if json:
        print_json(
            {
                "bundle": str(done.bundle),
                "digest": str(done.digest),
                "already": done.already,
                "images": [
                    {
                        "name": image.label,
                        "names": list(image.names),
                        "digest": str(image.root.digest),
                        "config_digest": str(image.config_digest) if image.config_digest else None,
                        "layers": len(image.layers),
                    }
                    for image in done.images
                ],
                "bytes_read": done.bytes_read,
                "bytes_new": done.bytes_new,
                "bytes_reused": done.bytes_reused,
                "bytes_packed": done.bytes_packed,
                "bytes_folder": done.bytes_folder,
                "packs": done.packs,
                "prerequisites": done.prerequisites,
                "failed": [
                    {"name": each.label, "error": each.error.message, "slug": each.error.slug}
                    for each in (*failed, *done.failed)
                ],
                "seconds": round(done.seconds, 3),
            }
        )
    elif not quiet:
        if done.already:
            print(f"{printable(str(done.bundle))} is already complete: {several(len(done.images), 'image')}")
        else:
            print(
                f"{printable(str(done.bundle))}: {several(len(done.images), 'image')}, {amount(done.bytes_read)} read, "
                f"{amount(done.bytes_packed)} packed in {several(done.packs, 'pack')}, {done.seconds:.1f} s"
                + (f"; builds on {several(done.prerequisites, 'chunk')} of its base" if done.prerequisites else "")
            )
    _raise_failed([*failed, *done.failed], done)


def _raise_failed(failed: Sequence[NotTaken], done: exporting.Exported) -> None:
    """SomeImagesFailed if any image was left out, after each was named."""
    if not failed:
        return
    for each in failed:
        print(f"transfer: {printable(each.label)}: {printable(each.error.message)}", file=sys.stderr)
        hint = each.error.hint
        if hint:
            print(f"  -> {printable(hint)}", file=sys.stderr)
    raise SomeImagesFailed(
        f"{len(failed)} of {len(failed) + len(done.images)} images could not be exported; {done.bundle} has the others",
        hint="mend them where they are, and export them into another folder; --strict makes a bundle of all or none",
    )


def plan(
    wished: Wished,
    output: Path,
    behind: Behind,
    jobs: int | None,
    json: bool,
    quiet: bool,
) -> None:
    """What an export would do. `bytes_to_read` counts shared layers once; `bytes_needed` is the most it can take.

    With a base the delta is made and thrown away: `delta` has its exact bytes.
    """
    observer = Progress(quiet=quiet or json)
    opened, named = wished.open(observer)
    weighed = None
    try:
        base = behind.bases(behind.choice(), observer)
        found = wished.select(opened, named, observer)
        where = opened.where
        if base:
            with tempfile.TemporaryDirectory() as folder:
                weighed = exporting.export(
                    opened,
                    found,
                    Path(folder) / "plan",
                    level=wished.level,
                    jobs=jobs,
                    observer=observer,
                    base=base,
                    weigh=True,
                )
    finally:
        observer.close()
        opened.close()
    layers = {digest: size for each in found for digest, size in each.layers}
    exact = bool(sum(layers.values())) or not layers
    total = sum(layers.values()) if exact else sum(each.size for each in found)
    there, free = _room(output)
    finished = (output / "index.json").exists()
    unfinished = sum(p.stat().st_size for p in output.glob("blobs/sha256/*")) if not finished else 0
    needed = weighed.bytes_folder if weighed else max(0, total - unfinished)
    if json:
        value: dict[str, Any] = {
            "from": where,
            "bundle": str(output),
            "images": [
                {"names": list(f.names), "id": str(f.id), "bytes": f.size, "layers": len(f.layers)} for f in found
            ],
            "bytes_to_read": total,
            "exact": exact,
            "bytes_needed": needed,
            "bytes_kept": unfinished,
            "bytes_free": free,
            "finished": finished,
        }
        if weighed:
            value["delta"] = _delta_json(weighed)
        print_json(value)
    elif weighed:
        _say_delta(weighed, output, free)
    else:
        for each in found:
            print(
                printable(
                    f"{', '.join(each.names) or each.id.short}  {several(len(each.layers), 'layer')}  {amount(each.size)}"
                )
            )
        what = f"{amount(total)} to read, each shared layer once" if exact else f"at most {amount(total)} to read"
        print(f"{len(found)} image{'s' * (len(found) != 1)} from {printable(where)}: {what}")
        print(f"{printable(str(output))}: at most {amount(needed)} needed, {amount(free)} free there")
        if finished:
            print(f"{printable(str(output))} is a finished bundle: name another folder for a new one")
        if unfinished:
            print(f"{amount(unfinished)} are packed already by an unfinished export")
    if exact and not weighed and free < (total - unfinished) // 4:
        raise NoSpace(
            f"{there}: {amount(free)} free will hardly hold {amount(total)} of layers", hint="choose another folder"
        )


def _room(output: Path) -> tuple[Path, int]:
    """The nearest folder that exists, and the bytes free there."""
    there = output
    while not there.exists():
        there = there.absolute().parent
    state = os.statvfs(there)
    return there, state.f_bavail * state.f_frsize


def _delta_json(weighed: exporting.Exported) -> dict[str, Any]:
    return {
        "bytes_packed": weighed.bytes_packed,
        "bytes_folder": weighed.bytes_folder,
        "bytes_new": weighed.bytes_new,
        "prerequisites": weighed.prerequisites,
        "images": [
            {"names": list(image.names), "bytes": size}
            for image, size in zip(weighed.images, weighed.image_bytes, strict=True)
        ],
    }


def _say_delta(weighed: exporting.Exported, output: Path, free: int) -> None:
    for image, size in zip(weighed.images, weighed.image_bytes, strict=True):
        print(
            printable(f"{', '.join(image.names) or image.label}  {several(len(image.layers), 'layer')}  {amount(size)}")
        )
    print(
        f"{printable(str(output))}: {weighed.bytes_folder} bytes, {amount(free)} free there; "
        f"builds on {several(weighed.prerequisites, 'chunk')} that the other side must have:"
    )
    print("  in its store, in a bundle named with --seed, or, slower, in the images of its engine")
