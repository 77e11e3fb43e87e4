"""Names given to images where they are, and taken away: by name, never by ID, never of an image in use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transfer.engines.base import Keeper, RegistryOptions, SourceOptions
from transfer.engines.transports import REGISTRIES, Transport, locate
from transfer.errors import InUse, NotFound, TransferError, UsageError, one_failure
from transfer.events import Observer
from transfer.model import Digest, Reference, is_name

GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Removed:
    """What became of one name. `gone`: nothing had it."""

    name: str
    gone: bool = False
    error: TransferError | None = None


def opened(
    place: str, names: Sequence[str], registry: RegistryOptions, observer: Observer, *, pinned: bool = False
) -> tuple[Keeper, Transport, list[str]]:
    """The keeper of an engine, and the names as it takes them: `docker://HOST/NAME` is a name in a registry."""
    mark = f"{REGISTRIES}://"
    there = [name.startswith(mark) for name in names]
    if any(there) and not (all(there) and place in ("", f"{REGISTRIES}:")):
        raise UsageError(
            "some names are in a registry, and others are not", hint=f"write {mark}HOST/NAME for all of them"
        )
    for name in names:
        if GLOB & set(name) or not is_name(name.removeprefix(mark)):
            raise UsageError(f"{name!r:.100} is not an image name", hint="name each image in full, with its tag")
    location = locate(f"{REGISTRIES}://localhost" if any(there) else place)
    options = SourceOptions(observer=observer, registry=registry, pinned=pinned)
    return (
        location.transport.open_keeper(location.place, options),
        location.transport,
        [name.removeprefix(mark) for name in names],
    )


def tag(keeper: Keeper, source: str, names: Sequence[str]) -> Digest:
    """Give an image more names; what the engine calls it. The first failure is raised; what was given before it stays."""
    found: Digest | None = None
    for name in names:
        found = keeper.tag(source, name)
    if found is None:
        raise UsageError("a new name is missing", hint="transfer tag SOURCE NEW")
    return found


def remove(keeper: Keeper, names: Sequence[str], *, dry_run: bool) -> list[Removed]:
    """Take names away, each by itself. One that nothing has is no failure: then it is as it was asked for."""
    out = []
    for name in {Reference.parse(each): each for each in names}.values():  # as written: an ID is to be seen as one
        try:
            users = keeper.users(name)
            if users:
                raise InUse(f"{name} is used by {', '.join(users):.400}")
            if not dry_run:
                keeper.untag(name)
            out.append(Removed(name))
        except NotFound:
            out.append(Removed(name, gone=True))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this name's, and the others go on
            out.append(Removed(name, error=one_failure(error, name)))
    return out
