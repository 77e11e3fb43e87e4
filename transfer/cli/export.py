"""export: the command that makes a bundle."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transfer.cli.exits import printable
from transfer.cli.options import ExportRequest, Output, StoreOptions
from transfer.cli.progress import Progress
from transfer.cli.render import amount, print_json, several
from transfer.engines.base import ImageSource, ResolvedImage
from transfer.errors import SomeImagesFailed
from transfer.events import Noted, Observer
from transfer.flows import export as exporting
from transfer.flows import site as site_flow
from transfer.flows.select import NotTaken, open_source, select, split_names, wanted_platform, with_referrers
from transfer.work import keep_memory


def opened_source(request: ExportRequest, observer: Observer) -> tuple[ImageSource, list[str]]:
    """The source, and the images that are asked for."""
    text, names = split_names(request.source, request.patterns)
    source, named = open_source(text, via=request.via, observer=observer, registry=request.registry)
    return source, [*named, *names]


def chosen(
    request: ExportRequest,
    source: ImageSource,
    named: list[str],
    observer: Observer,
    failed: list[NotTaken] | None = None,
) -> list[ResolvedImage]:
    """The images that were asked for."""
    found = select(source, named, wanted_platform(request.platform, source, observer), observer, failed)
    return with_referrers(source, found, observer, failed) if request.referrers else found


def export(request: ExportRequest, folder: Path, store: StoreOptions, output: Output) -> None:
    """Run the export flow and say what came of it."""
    keep_memory()
    observer = Progress(quiet=output.quiet)
    choice = store.choice()
    opened, named = opened_source(request, observer)
    try:
        base = store.bases(choice, observer)
        observer(Noted(f"from {opened.where}"))
        failed: list[NotTaken] = []
        found = chosen(request, opened, named, observer, None if request.strict else failed)
        done = exporting.export(
            opened,
            found,
            folder,
            level=request.level,
            jobs=output.jobs,
            observer=observer,
            base=base,
            strict=request.strict,
            gzip=request.gzip,
        )
    finally:
        observer.close()
        opened.close()
    fresh = not done.already and not done.bytes_reused
    site_flow.sent(choice, done.bundle, done.digest, base, store.sites, observer, fresh=fresh)
    all_failed = (*failed, *done.failed)
    if output.json:
        print_json(_as_json(done, all_failed))
    elif not output.quiet:
        _say(done)
    _raise_failed(all_failed, done)


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
        hint="repair these images in their engine and export them into another folder; --strict makes a bundle of all images or none",
    )


def _as_json(done: exporting.Exported, failed: Sequence[NotTaken]) -> dict[str, Any]:
    return {
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
        "failed": [{"name": each.label, "error": each.error.message, "slug": each.error.slug} for each in failed],
        "seconds": round(done.seconds, 3),
    }


def _say(done: exporting.Exported) -> None:
    if done.already:
        print(f"{printable(str(done.bundle))} is already complete: {several(len(done.images), 'image')}")
    else:
        print(
            f"{printable(str(done.bundle))}: {several(len(done.images), 'image')}, {amount(done.bytes_read)} read, "
            f"{amount(done.bytes_packed)} packed in {several(done.packs, 'pack')}, {done.seconds:.1f} s"
            + (f"; depends on {several(done.prerequisites, 'chunk')} of its base" if done.prerequisites else "")
        )
