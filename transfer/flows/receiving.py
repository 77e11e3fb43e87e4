"""What a receiver does beside taking files, out of this site's store: its duties, as whoever set it up allows them."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

from transfer.bundle.reader import Bundle
from transfer.errors import CredentialsError, NotFound, TransferError
from transfer.flows import remote_import
from transfer.flows import site as site_flow
from transfer.flows.offers import encoded, offers
from transfer.flows.retention import acknowledge, forget
from transfer.ship.receive import Answer, Duties
from transfer.sites.receipt import RECEIPT_MAX, parse_receipt
from transfer.store.store import Store
from transfer.streams import publish, read_small

RECEIPT, SEEN = ".receipt.json", ".seen"
"""In an inbox of which another user imports: his receipt, and the number of the one that the sender has accepted."""


def taking(
    store: Store | None, landing: remote_import.Landing | None, *, keep: int, inbox: Path | None = None
) -> Duties:
    """Of an inbox: the store's files are given where they are needed; bundles are imported (`landing`: where to; None: not at all).

    `keep`: the sender may prune the store down to so many bundles; 0: he may not. A receipt that lies in the inbox is given before the store's.
    """
    left = inbox / RECEIPT if inbox and not landing else None
    imports = landing

    def run_import(folder: Path, options: dict[str, Any], tell: Any) -> Answer:
        assert imports
        answer = remote_import.run_import(folder, options, tell, imports)
        if answer.get("code") == 0 and imports.discard and store:
            with contextlib.suppress(TransferError, OSError):
                with Bundle(folder) as bundle:
                    held = store.holds(bundle)
                if held:
                    shutil.rmtree(folder)
        return answer

    def receipt(site: str, seen: int) -> str:
        if inbox and left and left.is_file():
            publish(inbox / SEEN, f"{seen}\n".encode())
            return read_small(left, RECEIPT_MAX).decode()
        if store is None or (left and not store.root.is_dir()):
            raise NotFound("nothing was imported from this inbox yet", hint="import there, then sync again")
        if seen >= 0:
            acknowledge(store, seen)
        return site_flow.receipt(store, site, keep_name=True).encode().decode()

    def prune(wanted: int) -> Answer:
        assert store
        done = forget(store, max(wanted, keep, 1))
        return {"removed": len(done.pruned.removed), "leaving": len(done.leaving)}

    return Duties(
        supply=(lambda path, digest, size: remote_import.supply(store, path, digest, size)) if store else None,
        import_=run_import if landing else None,
        receipt=receipt if store or left else None,
        prune=prune if store and keep else None,
    )


def giving(store: Store | None, outbox: Path, site: str) -> Duties:
    """Of an outbox: what lies there for the site is offered, and the site's receipt is accepted."""

    def accept(text: str) -> Answer:
        assert store
        given = parse_receipt(text.encode(), "the receipt")
        if given.site != site:
            raise CredentialsError(
                f"the receipt is of the site {given.site}, and this key is for {site}",
                hint="ask the administrator there for a key of this site",
            )
        return {"serial": site_flow.accept(store, text.encode(), "the receipt", anew=False).receipt.serial}

    return Duties(accept=accept if store else None, offers=lambda: encoded(offers(outbox)))


def leave_receipt(store: Store, inbox: Path) -> None:
    """After an import from an inbox: the receipt for its receiver, which may be another user's and cannot read the store; and what that user has noted."""
    with contextlib.suppress(TransferError, ValueError):
        if (inbox / SEEN).is_file():
            acknowledge(store, int(read_small(inbox / SEEN, 100).decode()))
    publish(inbox / RECEIPT, site_flow.receipt(store, "").encode(), 0o640, exact=True)
