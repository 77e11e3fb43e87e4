"""What a receiver does beside taking files, out of this site's store: its duties, as whoever set it up allows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transfer.errors import CredentialsError
from transfer.flows import remote_import
from transfer.flows import site as site_flow
from transfer.flows.offers import encoded, offers
from transfer.flows.retention import acknowledge, forget
from transfer.ship.receive import Answer, Duties
from transfer.sites.receipt import parse_receipt
from transfer.store.store import Store


def taking(store: Store | None, landing: remote_import.Landing | None, *, keep: int) -> Duties:
    """Of an inbox: the store's files are given where they are needed; bundles are imported (`landing`: where to; None: not at all).

    `keep`: the sender may prune the store down to so many bundles; 0: he may not.
    """
    imports = landing

    def run_import(folder: Path, options: dict[str, Any], tell: Any) -> Answer:
        assert imports
        return remote_import.run_import(folder, options, tell, imports)

    def receipt(site: str, seen: int) -> str:
        assert store
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
        receipt=receipt if store else None,
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
