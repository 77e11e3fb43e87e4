"""What the shell offers at the TAB key. Nothing here fails, prints, or loads an engine that is not asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path

import typer

Offering = Callable[[typer.Context, str], list[str]]


def _offering(function: Callable[[typer.Context, str], Iterable[str]]) -> Offering:
    """What begins with what is typed; nothing where anything goes wrong: a shell has no place for a message."""

    @wraps(function)
    def offered(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            return sorted({each for each in function(ctx, incomplete) if each.startswith(incomplete)})
        except Exception:  # noqa: BLE001 - see above
            return []

    return offered


@_offering
def transports(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    from transfer.engines.transports import REGISTRIES, TRANSPORTS

    return [f"{name}://" if name == REGISTRIES else f"{name}:" for name in TRANSPORTS]


@_offering
def images(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Names of the engine that --from names."""
    from transfer.flows.select import open_source

    source, _ = open_source(str(ctx.params.get("source") or ""))
    try:
        return [name for each in source.names(f"{incomplete}*") for name in each.names]
    finally:
        source.close()


@_offering
def images_or_media(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Names in the bundle that was named first, and folders."""
    from transfer.bundle.reader import Bundle

    folders = list(_folders(incomplete))
    given = ctx.params.get("bundle")
    if not given or not Path(str(given)).is_dir():
        return folders
    with Bundle(Path(str(given))) as bundle:
        return [*folders, *(name for each in bundle.images for name in each.names)]


def _folders(incomplete: str) -> Iterator[str]:
    place = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    for each in os.scandir(place):
        if each.is_dir() and not each.name.startswith("."):
            path = str(place / each.name) if incomplete.startswith((".", "/")) or place != Path() else each.name
            yield path if (Path(each.path) / "index.json").is_file() else f"{path}/"


@_offering
def bundles(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Folders: bundles as they are, others to go into."""
    return _folders(incomplete)


def _site_names() -> list[str]:
    from transfer.flows.site import choose_store
    from transfer.sites.states import Sites

    store = choose_store(None, False).store
    return Sites(store.root).names() if store else []


@_offering
def sites(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    return _site_names()


@_offering
def bases(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    from transfer.model import SITE

    return [*_folders(incomplete), *(f"{SITE}{name}" for name in _site_names())]


@_offering
def targets(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Names of the configuration file, and folders."""
    from transfer.cli.config import load

    return [*load().targets, *_folders(incomplete)]


@_offering
def stored(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Beginnings of the digests in the store."""
    from transfer.flows.site import choose_store

    store = choose_store(ctx.params.get("store"), False).store
    return [entry.digest.short for entry in store.entries()] if store else []


def _one_of(*words: str) -> Offering:
    return _offering(lambda ctx, incomplete: words)


platforms = _one_of("linux/amd64", "linux/arm64", "linux/arm/v7", "linux/386", "linux/ppc64le", "linux/s390x")
read_ways = _one_of("auto", "files", "api")
load_ways = _one_of("auto", "pull", "load")
ssh_clients = _one_of("openssh", "paramiko")
