"""kit: what a host with nothing on it needs, in one folder."""

from __future__ import annotations

from pathlib import Path

from transfer.cli.exits import printable
from transfer.cli.progress import Progress
from transfer.cli.render import amount, print_json
from transfer.errors import UsageError
from transfer.flows.kit import KitOptions, make_kit
from transfer.folders import cache_folder


def kit(output: Path, options: KitOptions, cache: Path | None, quiet: bool, json: bool) -> None:
    """Make it, and print what is to be compared at the other end."""
    done = make_kit(output, options, cache or _cache(), Progress(quiet=quiet or json))
    if json:
        print_json(
            {
                "kit": str(done.root),
                "bytes": done.size,
                "sha256": done.sums,
                "versions": dict(done.versions),
                "tree_bytes": dict(done.trees),
                "engine": list(done.engine),
            }
        )
        return
    if quiet:
        return
    for machine, version in done.versions.items():
        print(f"{machine}: transfer {version}, {amount(done.trees[machine])}")
    if done.engine:
        print(printable(f"engine: {len(done.engine)} packages"))
    print(printable(f"{done.root}: {amount(done.size)}; sha256 of SHA256SUMS {_spoken(done.sums)}"))
    print(
        printable(f"on the offline host, as root: sh {done.root.name}/install.sh{' --engine' if done.engine else ''}")
    )


def _spoken(total: str) -> str:
    """The beginning of a hash, as it is read out over a telephone."""
    return "-".join(total[at : at + 4] for at in range(0, 32, 4))


def _cache() -> Path:
    """Where downloads are kept."""
    cache = cache_folder()
    if cache is None:
        raise UsageError("there is no HOME, so no place for downloads", hint="name one: --cache DIR")
    return cache / "transfer/kit"
