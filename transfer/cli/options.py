"""What several commands take: option types for Typer, and their values handed on as one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transfer.engines.transports import DEFAULT, forms
from transfer.events import Observer
from transfer.model import SITE

if TYPE_CHECKING:  # a command that only prints its help loads no flow
    from transfer.bundle.library import BundleList
    from transfer.bundle.reader import Bundle
    from transfer.flows.site import StoreChoice

Json = Annotated[bool, typer.Option("--json", help="Print one documented JSON object on stdout (docs/json.md).")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Threads to use (default: one a processor).")]
From = Annotated[str, typer.Option("--from", help=f"Where the images are: {forms()}. Default: {DEFAULT}.")]
To = Annotated[str, typer.Option("--to", help=f"Where the images go: {forms(sinks=True)}. Default: {DEFAULT}.")]
PlatformOption = Annotated[str, typer.Option("--platform", help="Only this platform of an index, e.g. linux/arm64.")]
Via = Annotated[
    str,
    typer.Option(
        "--via",
        help="How a Docker's images are read: files (its own, as root on its host), api (docker save), or auto.",
    ),
]
Level = Annotated[int, typer.Option(min=1, max=19, help="Compression: 3 is fast, 9 is 11 % smaller.")]
BundleArgument = Annotated[Path, typer.Argument(help="The bundle folder.")]
Patterns = Annotated[list[str] | None, typer.Argument(help="Names, IDs or globs ('app/*').")]
StoreOption = Annotated[
    Path | None,
    typer.Option("--store", help="The site's store (default: /var/lib/transfer, or the user's state folder)."),
]
NoStore = Annotated[bool, typer.Option("--no-store", help="Go without a store.")]
Seeds = Annotated[
    list[Path] | None, typer.Option("--seed", help="A bundle folder to find older chunks in (may be given again).")
]
Bases = Annotated[
    list[str] | None,
    typer.Option(
        "--base", help="Build on this: a bundle folder, or site:NAME for what that site confirmed (repeatable)."
    ),
]
SshOption = Annotated[
    str, typer.Option("--ssh", help="openssh (the system's ssh; the default where there is one) or paramiko.")
]
IdentityOption = Annotated[Path | None, typer.Option("--identity", "-i", help="The private key to use.")]
HostKeyOption = Annotated[
    str, typer.Option("--host-key", help="Accept this host key alone: SHA256:... as ssh-keygen -l prints it.")
]
AcceptNewOption = Annotated[
    bool, typer.Option("--accept-new", help="Take the key of a host that is not known yet, unseen.")
]
SshConfigOption = Annotated[Path | None, typer.Option("--ssh-config", help="Instead of ~/.ssh/config.")]
RemoteOption = Annotated[str, typer.Option("--remote", help="What transfer is called over there.")]


@dataclass(frozen=True, slots=True)
class Output:
    """How a command works and speaks: --json, --quiet, --jobs, --dry-run."""

    json: bool = False
    quiet: bool = False
    jobs: int | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What a command may build on: --base, --seed, --store, --no-store, --site."""

    base: tuple[str, ...] = ()
    seeds: tuple[Path, ...] = ()
    store: Path | None = None
    no_store: bool = False
    site: str = ""

    def __post_init__(self) -> None:
        if self.sites:
            from transfer.sites.receipt import site_name

            for name in self.sites:
                site_name(name)

    def choice(self) -> StoreChoice:
        from transfer.flows.site import choose_store

        return choose_store(self.store, self.no_store)

    def shelf(self, choice: StoreChoice) -> BundleList:
        from transfer.flows.site import library

        return library(self.seeds, choice.store)

    def bases(self, choice: StoreChoice, observer: Observer) -> list[Bundle]:
        from transfer.flows.site import bases

        return bases(self.base, self.shelf(choice), choice.store, observer)

    @property
    def sites(self) -> list[str]:
        """The sites an export is for."""
        named = [text.removeprefix(SITE) for text in self.base if text.startswith(SITE)]
        return list(dict.fromkeys([*named, *([self.site] if self.site else [])]))


@dataclass(frozen=True, slots=True)
class SshOptions:
    """How to reach a host."""

    ssh: str = ""
    identity: Path | None = None
    host_key: str = ""
    accept_new: bool = False
    config: Path | None = None
    remote: str = "transfer"
    limit: str = ""


@dataclass(frozen=True, slots=True)
class AfterShipping:
    """What is to be done when the bundle has arrived."""

    import_: bool = False
    to: str = ""
    retag: tuple[str, ...] = ()
    site: str = ""
    store: Path | None = None
    no_store: bool = False


@dataclass(frozen=True, slots=True)
class MediaOptions:
    """What is asked of media."""

    parity: str = ""
    eject: bool = False
    new_set: bool = False
    any_folder: bool = False


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """Which images an export takes, from where, how they are read and how hard they are compressed."""

    patterns: tuple[str, ...]
    source: str
    via: str
    platform: str
    level: int
    strict: bool = False


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Which images an import takes, and where they go."""

    patterns: tuple[str, ...] = ()
    to: str = ""
    retag: tuple[str, ...] = ()
    platform: str = ""
    via: str = "auto"
    stage: bool = False
    keep_tags: bool = False
    repair: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class ReceiverRules:
    """What whoever set up the receiver allows: with an inbox nothing of it is for the sender to say."""

    inbox: Path | None = None
    allow_import: bool = False
    import_to: str = ""
    allow_move: bool = False
    site: str = ""
    most: int = 0
