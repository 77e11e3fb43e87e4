"""export, verify and import: the commands that work."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from transfer.bundle.reader import Bundle
from transfer.cli.main import printable
from transfer.cli.progress import Progress
from transfer.cli.show import amount, print_json
from transfer.engines.docker import Way
from transfer.errors import SomeImagesFailed, UsageError
from transfer.events import Noted
from transfer.flows import check as checking
from transfer.flows import export as exporting
from transfer.flows import load as loading
from transfer.flows.select import choose, open_file_sink, open_source, retagging, select
from transfer.model import Platform
from transfer.work import keep_memory


def export(
    patterns: list[str],
    output: Path,
    source: str,
    platform: str,
    level: int,
    jobs: int | None,
    json: bool,
    quiet: bool,
) -> None:
    """Run the export flow and say what came of it."""
    keep_memory()
    observer = Progress(quiet=quiet)
    opened, named = open_source(source)
    try:
        observer(Noted(f"from {opened.where}"))
        found = select(opened, [*named, *patterns], Platform.parse(platform) if platform else None, observer)
        done = exporting.export(opened, found, output, level=level, jobs=jobs, observer=observer)
    finally:
        observer.close()
        opened.close()
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
                "packs": done.packs,
                "seconds": round(done.seconds, 3),
            }
        )
    elif not quiet:
        if done.already:
            print(f"{printable(str(done.bundle))} is already complete: {len(done.images)} images")
        else:
            print(
                f"{printable(str(done.bundle))}: {len(done.images)} images, {amount(done.bytes_read)} read, "
                f"{amount(done.bytes_packed)} packed in {done.packs} packs, {done.seconds:.1f} s"
            )


def verify(bundle: Path, deep: bool, jobs: int | None, json: bool, quiet: bool) -> None:
    """Run the check flow; exit 13 for damage, 14 for missing files."""
    keep_memory()
    observer = Progress(quiet=quiet or json)
    try:
        done = checking.check(bundle, deep=deep, jobs=jobs, observer=observer)
    finally:
        observer.close()
    wrong = (*done.damage, *done.missing)
    if json:
        print_json(
            {
                "bundle": str(bundle),
                "digest": str(done.digest),
                "sound": done.sound,
                "files": done.files,
                "bytes_checked": done.bytes_checked,
                "layers_rebuilt": done.layers_rebuilt,
                "damage": [{"file": d.file, "frame": d.frame, "why": d.why, "images": list(d.images)} for d in wrong],
                "seconds": round(done.seconds, 3),
            }
        )
    else:
        for each in wrong:
            frame = "" if each.frame is None else f", frame {each.frame}"
            who = f"; cannot be imported: {', '.join(each.images)}" if each.images else "; no image needs it"
            print(printable(f"{each.file}{frame}: {each.why}{who}"))
        if done.sound and not quiet:
            print(
                f"{printable(str(bundle))}: sound, {done.files} files, {amount(done.bytes_checked)} checked, {done.seconds:.1f} s"
            )
    if wrong:
        if not json:
            print("  -> copy the named files from the bundle again, then verify again", file=sys.stderr)
        sys.exit(13 if done.damage else 14)


def import_(
    bundle: Path,
    patterns: list[str],
    to: str,
    retag: list[str],
    platform: str,
    via: str,
    jobs: int | None,
    dry_run: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Run the load flow; exit 3 if some images did not make it."""
    if via not in ("auto", "pull", "load"):
        raise UsageError(f"--via {via!r}: auto, pull or load")
    keep_memory()
    observer = Progress(quiet=quiet)
    rename = retagging(retag)
    wanted = Platform.parse(platform) if platform else None
    try:
        with Bundle(bundle) as opened:
            chosen = choose(opened.images, patterns)
            if dry_run:
                _say_plan(chosen, rename, json)
                return
            sink = open_file_sink(to, wanted)
            if sink is None:
                done = loading.load_into_docker(
                    opened, chosen, rename, way=cast(Way, via), platform=wanted, jobs=jobs, observer=observer
                )
            else:
                content = loading.BundleContent(opened, observer, threaded=True)
                done = loading.load(opened, chosen, rename, sink, content, jobs=jobs, observer=observer)
    finally:
        observer.close()
    _say_loaded(done, json, quiet)
    if done.failed:
        for each in done.failed:
            print(f"transfer: {printable(each.image.label)}: {printable(each.error.message)}", file=sys.stderr)
        raise SomeImagesFailed(
            f"{len(done.failed)} of {len(done.failed) + len(done.landed)} images failed",
            hint="the others are in place; run the same command again for the rest",
        )


def _say_plan(chosen: Sequence[Any], rename: Any, json: bool) -> None:
    if json:
        print_json({"images": [{"name": i.label, "names": list(rename(i.names)), "bytes": i.size} for i in chosen]})
        return
    for image in chosen:
        print(f"{', '.join(rename(image.names)) or image.label}  {len(image.layers)} layers  {amount(image.size)}")


def _say_loaded(done: loading.Loaded, json: bool, quiet: bool) -> None:
    rows = [
        {
            "name": each.names[0] if each.names else each.image.label,
            "names": list(each.names),
            "status": each.status,
            "id": str(each.id),
            "digest": str(each.image.root.digest),
            "config_digest": str(each.image.config_digest) if each.image.config_digest else None,
            "layers_sent": each.layers_sent,
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
        for each in done.failed
    ]
    if json:
        value = {
            "images": rows,
            "bytes_unpacked": done.bytes_unpacked,
            "layers_sent": done.layers_sent,
            "layers_present": done.layers_present,
            "frames_decoded": done.frames_decoded,
            "frames_needed": done.frames_needed,
            "seconds": round(done.seconds, 3),
        }
        print(jsonlib.dumps(value, ensure_ascii=False))
    elif not quiet:
        new = sum(each.status == "imported" for each in done.landed)
        print(
            f"{new} images imported, {len(done.landed) - new} were there already; "
            f"{done.layers_sent} layers sent, {done.layers_present} present, "
            f"{amount(done.bytes_unpacked)} unpacked, {done.seconds:.1f} s"
        )
