"""What several commands take: option types for Typer, and their values handed on as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transfer.cli import completing
from transfer.engines.base import RegistryOptions
from transfer.engines.transports import DEFAULT, forms
from transfer.errors import UsageError
from transfer.events import Observer
from transfer.model import SITE, GzipWay
from transfer.streams import read_small

if TYPE_CHECKING:  # a command that only prints its help loads no flow
    from transfer.bundle.library import BundleList
    from transfer.bundle.reader import Bundle
    from transfer.flows.site import StoreChoice

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout (docs/json.md).")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Jobs = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, help="Number of threads. Default: one for each processor.")
]
From = Annotated[
    str,
    typer.Option(
        "--from",
        help=f"Where the images are: {forms()}. Default: {DEFAULT}, or the engine found here.",
        autocompletion=completing.transports,
    ),
]
To = Annotated[
    str,
    typer.Option(
        "--to",
        help=f"Where the images go: {forms(sinks=True)}. Default: {DEFAULT}, or the engine found here.",
        autocompletion=completing.transports,
    ),
]
PlatformOption = Annotated[
    str,
    typer.Option(
        "--platform",
        help="Take only this platform of a multi-platform image, for example linux/arm64.",
        autocompletion=completing.platforms,
    ),
]
Via = Annotated[
    str,
    typer.Option(
        "--via",
        help="How to read a Docker daemon's images: files (its own files; needs root on its host), api (docker save), auto.",
        autocompletion=completing.read_ways,
    ),
]
Level = Annotated[
    int, typer.Option(min=1, max=19, help="Compression level. 3 is fast; 9 makes bundles about 11 % smaller.")
]
Gzip = Annotated[
    GzipWay,
    typer.Option(
        help="exact: take gzip layers and compressed files in layers (jars, wheels) apart, so that deltas are small; the import makes the same bytes again. layers: gzip layers alone. opaque: hold both as they are, which is faster."
    ),
]
BundleArgument = Annotated[Path, typer.Argument(help="The bundle folder.", autocompletion=completing.bundles)]
Patterns = Annotated[
    list[str] | None,
    typer.Argument(help="Image names, IDs or patterns such as 'app/*'.", autocompletion=completing.images),
]
Names = Annotated[
    Path | None,
    typer.Option("--names", help="Read more names from this file: one for each line; # begins a comment."),
]
Files = Annotated[
    list[Path] | None,
    typer.Option(
        "--file",
        "-f",
        help="Take the images that this compose file, Kubernetes manifest or TOML set needs (- is standard input). Can be given several times.",
    ),
]
Deep = Annotated[
    bool,
    typer.Option("--deep", help="With -f and --helm: also take what only looks like an image, such as in arguments."),
]
Helm = Annotated[
    list[str] | None,
    typer.Option(
        "--helm",
        help="Take the images that this Helm chart needs (a folder, a .tgz file or oci://HOST/CHART). Can be given several times.",
    ),
]
HelmValues = Annotated[
    list[Path] | None, typer.Option("--values", help="With --helm: a file of values. Can be given several times.")
]
Profiles = Annotated[
    list[str] | None,
    typer.Option("--profile", help="With -f: a profile of the compose file. Can be given several times."),
]
StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="This site's store. Default: /var/lib/transfer for root, ~/.local/state/transfer for other users.",
    ),
]
NoStore = Annotated[bool, typer.Option("--no-store", help="Do not read or write a store.")]
Seeds = Annotated[
    list[Path] | None,
    typer.Option(
        "--seed",
        help="A bundle that a delta depends on, if it is not in the store. Can be given several times.",
        autocompletion=completing.bundles,
    ),
]
Bases = Annotated[
    list[str] | None,
    typer.Option(
        "--base",
        help="Export only the difference to this: a bundle folder, or site:NAME for what that site has confirmed. "
        "Can be given several times.",
        autocompletion=completing.bases,
    ),
]
SiteOption = Annotated[
    str,
    typer.Option(
        "--site",
        help="Name of the site that this bundle is for; `receipt accept` adds to it.",
        autocompletion=completing.sites,
    ),
]
SshOption = Annotated[
    str,
    typer.Option(
        "--ssh",
        help="The SSH client: openssh (default, if it is installed) or paramiko.",
        autocompletion=completing.ssh_clients,
    ),
]
IdentityOption = Annotated[Path | None, typer.Option("--identity", "-i", help="The private key file.")]
HostKeyOption = Annotated[
    str,
    typer.Option("--host-key", help="Accept only this host key: SHA256:... as `ssh-keygen -l` prints it."),
]
AcceptNewOption = Annotated[
    bool,
    typer.Option(
        "--accept-new",
        help="Trust an unknown host's key without checking it, and remember it (as ssh's StrictHostKeyChecking=accept-new).",
    ),
]
SshConfigOption = Annotated[
    Path | None, typer.Option("--ssh-config", help="SSH configuration file to use instead of ~/.ssh/config.")
]
PlainHttp = Annotated[
    bool, typer.Option("--plain-http", help="Reach registries without TLS. A registry on this host needs no option.")
]
NoTlsVerify = Annotated[
    bool, typer.Option("--no-tls-verify", help="Do not check the certificates of registries (they may be forged).")
]
NoMirrors = Annotated[
    bool,
    typer.Option(
        "--no-mirrors", help="Ask registries themselves, not the mirrors that this host's configuration files name."
    ),
]
Referrers = Annotated[
    bool,
    typer.Option("--referrers", help="Take what refers to the images, too: signatures, SBOMs and attestations."),
]
RemoteOption = Annotated[str, typer.Option("--remote", help="Path of the transfer program on the remote host.")]


def listed(patterns: Sequence[str] | None, names: Path | None) -> tuple[str, ...]:
    """The names that were typed, and those of a --names file. UsageError if the file has none."""
    if names is None:
        return tuple(patterns or ())
    text = read_small(names).decode("utf-8", errors="replace")
    found = [line.partition("#")[0].strip() for line in text.splitlines()]
    read = [each for each in found if each]
    if not read:
        raise UsageError(f"{names} has no names", hint="write one image name on each line")
    return (*(patterns or ()), *read)


def epilog(*examples: str) -> str:
    """Examples below a command's options, each on a line of its own."""
    return "\b\nExamples:\n" + "\n".join(f"  {each}" for each in examples)


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
    registry: RegistryOptions = field(default_factory=RegistryOptions)
    referrers: bool = False
    gzip: GzipWay = "exact"


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
    registry: RegistryOptions = field(default_factory=RegistryOptions)
    in_turn: bool = False
    pin: bool = True


@dataclass(frozen=True, slots=True)
class ReceiverRules:
    """What whoever set up the receiver allows: with an inbox nothing of it is for the sender to say."""

    inbox: Path | None = None
    allow_import: bool = False
    import_to: str = ""
    allow_move: bool = False
    site: str = ""
    most: int = 0
    outbox: Path | None = None
    keep: int = 0
    discard: bool = False


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How a registry is served, and to whom."""

    listen: str = "127.0.0.1:5000"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    self_signed: bool = False
    plain_http: bool = False
    client_ca: Path | None = None
    htpasswd: Path | None = None
    cache: str = ""
    only: tuple[str, ...] = ()
    activated: bool = False
    idle: str = ""
