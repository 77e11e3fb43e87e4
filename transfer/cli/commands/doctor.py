"""The options of `transfer doctor`."""

from __future__ import annotations

from transfer.cli.options import Json, NoStore, StoreOption, epilog

EXAMPLES = epilog("transfer doctor", "TRANSFER_LOG=transfer.log transfer -vv export app/web:1.4")


def doctor(store: StoreOption = None, no_store: NoStore = False, json: Json = False) -> None:
    """Report versions, engines, store, disk space and clock.

    Send its output with every question about a problem.
    """
    from transfer.cli.doctor import doctor as run

    run(store, no_store, json)
