"""Which store is meant, what a delta may build on, and what is remembered of exports and imports."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.bundle.library import BundleList
from transfer.bundle.reader import Bundle
from transfer.errors import FormatError, MediumError, MissingPart, NotFound, TransferError, UsageError
from transfer.events import Noted, Observer
from transfer.folders import state_folder
from transfer.model import SITE, Digest
from transfer.sites.arrived import newest
from transfer.sites.leaving import read_leaving
from transfer.sites.receipt import Receipt, matching, parse_receipt, receipt_file, site_name
from transfer.sites.states import Sites
from transfer.store.adopt import Adopted, adopt
from transfer.store.entry import Role
from transfer.store.store import Store
from transfer.streams import parse_object, publish, read_small


@dataclass(frozen=True, slots=True)
class StoreChoice:
    """The store that was asked for. `explicit`: by option or environment, so that failing to use it is an error."""

    store: Store | None
    explicit: bool


def choose_store(folder: Path | None, without: bool) -> StoreChoice:
    """--store, --no-store, TRANSFER_STORE (a folder, or `none`), else /var/lib/transfer for root and the user's state folder."""
    if folder and without:
        raise UsageError("--store and --no-store cannot be used together")
    if folder:
        return StoreChoice(Store(folder), True)
    named = os.environ.get("TRANSFER_STORE", "")
    if without or named == "none":
        return StoreChoice(None, True)
    if named:
        return StoreChoice(Store(Path(named)), True)
    folder = state_folder()
    return StoreChoice(Store(folder / "transfer") if folder else None, False)


def need_store(choice: StoreChoice) -> Store:
    """The store, for commands that are about it."""
    if choice.store is None:
        raise UsageError("this command needs a store", hint="name one with --store DIR, or set TRANSFER_STORE")
    return choice.store


@contextlib.contextmanager
def reading(choice: StoreChoice, *, adopting: bool = False) -> Iterator[None]:
    """Nothing is removed from the store meanwhile (`adopting`: it is made if need be); where there can be no store, that is no matter."""
    with contextlib.ExitStack() as stack:
        if choice.store:
            try:
                stack.enter_context(choice.store.reading(adopting=adopting))
            except TransferError:
                if choice.explicit:
                    raise
        yield


def spacious() -> Path:
    """A folder for large temporary files: TMPDIR where it is set, else /var/tmp, which is a disk where /tmp may be memory."""
    return Path(os.environ.get("TMPDIR") or "/var/tmp")


def library(seeds: Iterable[Path], store: Store | None) -> BundleList:
    """Where a delta's prerequisites are looked for: the folders given, then the store."""
    return BundleList([Bundle(each) for each in seeds], [store] if store else [])


def bases(texts: Sequence[str], shelf: BundleList, store: Store | None, observer: Observer) -> list[Bundle]:
    """What --base means: bundle folders, and `site:NAME` for what that site has confirmed. Each once, oldest first."""
    found: dict[Digest, Bundle] = {}
    for text in texts:
        if not text.startswith(SITE):
            bundle = Bundle(Path(text))
            shelf.put(bundle)
            found.setdefault(bundle.manifest.digest, bundle)
            continue
        for bundle in _confirmed(text.removeprefix(SITE), shelf, store, observer):
            found.setdefault(bundle.manifest.digest, bundle)
    return list(found.values())


def _confirmed(name: str, shelf: BundleList, store: Store | None, observer: Observer) -> Iterator[Bundle]:
    if store is None:
        raise UsageError(
            f"--base {SITE}{name} needs a store", hint="name the store with --store DIR, or use --base BUNDLE"
        )
    site = Sites(store.root).get(name)
    if not site.confirmed:
        raise NotFound(
            f"the site {name} has confirmed nothing yet",
            hint="accept its receipt (transfer receipt accept FILE), or name a bundle that the site has: --base BUNDLE",
        )
    observer(Noted(f"{name} has confirmed {len(site.confirmed)} bundles (receipt {site.serial})"))
    for digest in site.confirmed:
        bundle = shelf.bundle(digest)
        if bundle is None:
            observer(Noted(f"bundle {digest.short} is no longer known here; it is not used as a base"))
            continue
        try:
            bundle.catalog()
        except MissingPart as error:
            observer(Noted(f"bundle {digest.short} is not used as a base: {error.message}"))
            continue
        if bundle.missing_packs():
            observer(
                Noted(
                    f"the packs of bundle {digest.short} are not here: files that changed since are sent whole, not as differences"
                )
            )
        yield bundle


def remember(
    choice: StoreChoice,
    bundle: Bundle,
    role: Role,
    observer: Observer,
    *,
    copy: bool,
    written: bool = False,
    begun: bool = False,
) -> tuple[Adopted | None, TransferError | None]:
    """Take a bundle into the store. Where nobody asked for one and there can be none, that is only noted."""
    if choice.store is None:
        return None, None
    try:
        return adopt(choice.store, bundle, role, copy=copy, written=written, begun=begun), None
    except MediumError as error:
        if choice.explicit:
            return None, error
        observer(Noted(f"continuing without a store: {error.message}"))
    except TransferError as error:
        return None, error
    return None, None


def sent(
    choice: StoreChoice,
    folder: Path,
    digest: Digest,
    base: Sequence[Bundle],
    sites: Sequence[str],
    observer: Observer,
    *,
    fresh: bool,
) -> None:
    """Remember an export: its catalog, its packs where that costs nothing, and for which sites it was made. A failure is only noted.

    `fresh`: the bundle was written by this process, all of it.
    """
    if choice.store is None:
        return
    failed: TransferError | None = None
    with Bundle(folder, library=BundleList(base, [choice.store])) as bundle:
        for each in (*base, bundle):
            if failed is None and (each is bundle or choice.store.entry(each.manifest.digest) is None):
                _, failed = remember(choice, each, Role.SENT, observer, copy=False, written=fresh and each is bundle)
    if failed is None and sites:
        try:
            with choice.store.adding():
                for name in sites:
                    Sites(choice.store.root).note(name, digest, "exported")
        except TransferError as error:
            failed = error
    if failed:
        observer(Noted(f"this export could not be recorded in the store: {failed.message}"))


def receipt(store: Store, site: str, *, keep_name: bool = False) -> Receipt:
    """What this store holds and goes on holding. The number rises by one whenever that has changed since the last receipt.

    `keep_name`: `site` is only for a store that has no name yet.
    """
    with store.adding():
        last = last_receipt(store)
        name = site_name((last.site if keep_name and last.site else site) or last.site or _called(store))
        leaving = read_leaving(store.root).bundles
        entries = store.entries()
        held = [each.digest for each in entries if each.role is Role.HELD and each.packs and each.digest not in leaving]
        bundles = tuple(sorted(each.hex for each in held))
        roots = tuple(
            sorted({str(image.root.digest) for each in held if (b := store.bundle(each)) for image in b.images})
        )
        serial = last.serial
        if last.site != name or last.bundles != bundles:
            serial += 1
            value = {"site": name, "serial": serial, "bundles": list(bundles)}
            publish(receipt_file(store.root), json.dumps(value, indent=1).encode() + b"\n")
        return Receipt(name, serial, bundles, roots)


def last_receipt(store: Store) -> Receipt:
    """The last receipt that this store gave, without its roots; number 0 and no site if it gave none."""
    path = receipt_file(store.root)
    last = parse_object(read_small(path), str(path)) if path.exists() else {}
    site, serial, bundles = last.get("site", ""), last.get("serial", 0), last.get("bundles", [])
    if type(serial) is not int or not isinstance(site, str) or not isinstance(bundles, list):
        raise FormatError(
            f"{path}: malformed", hint="remove it; the next receipt starts a new count (accept it with --restarted)"
        )
    return Receipt(site, serial, tuple(map(str, bundles)))


def _called(store: Store) -> str:
    """What the site is called by the one sync that bundles came from; else by this host's name."""
    known = list(newest(store.root))
    return known[0] if len(known) == 1 else host_name()


def host_name() -> str:
    """What a site is called where nobody named it: this host's name, as far as a site may have it."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in socket.gethostname())
    return name.strip(".-")[:64] or "site"


@dataclass(frozen=True, slots=True)
class Accepted:
    """What came of a receipt: bundles now confirmed, beginnings of digests nobody here knows, whether it was new."""

    receipt: Receipt
    confirmed: tuple[Digest, ...]
    unknown: tuple[str, ...]
    new: bool


def accept(store: Store, data: bytes, where: str, *, anew: bool) -> Accepted:
    """Take a site's receipt. RolledBack for an older one, unless the site began `anew`."""
    given = parse_receipt(data, where)
    sites = Sites(store.root)
    known = {entry.digest for entry in store.entries()} | {Digest(each) for each in sites.known(given.site).states}
    found, unknown = matching(given, sorted(known))
    with store.adding():
        if anew:
            site = sites.known(given.site)
            if given.serial <= site.serial:
                site.serial = -1
                sites.put(site)
        new = sites.accept(given, found, anew=anew)
    return Accepted(given, tuple(found), tuple(unknown), new)


def all_confirmed(store: Store) -> set[Digest]:
    """Everything that some site has confirmed."""
    return {*confirmed_by(store)}


def confirmed_by(store: Store) -> dict[Digest, list[str]]:
    """For each bundle that some site has confirmed: which sites have."""
    sites, out = Sites(store.root), dict[Digest, list[str]]()
    for name in sorted(sites.names()):
        for digest in sites.get(name).confirmed:
            out.setdefault(digest, []).append(name)
    return out
