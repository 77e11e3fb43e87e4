"""`transfer`: the commands, and the one place where failures become exit codes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from transfer import __version__
from transfer.errors import TransferError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Carry container images to where there is no network: small, resumable, verifiable bundles.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one documented JSON object on stdout (docs/json.md).")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Threads to use (default: one a processor).")]
From = Annotated[
    str,
    typer.Option(
        "--from", help="docker-daemon: (default), oci:DIR[:REF], docker-archive:FILE[:REF], oci-archive:FILE."
    ),
]
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


def _version(value: bool) -> None:
    if value:
        print(f"transfer {__version__}")
        raise typer.Exit


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


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Carry container images to where there is no network."""


@app.command()
def images(patterns: Patterns = None, source: From = "", json: Json = False) -> None:
    """List what this host's engine (or a layout or archive) holds."""
    from transfer.cli import show

    show.images(patterns or [], source, json)


@app.command()
def export(
    patterns: Patterns = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle folder to make.")] = Path("images.bundle"),
    source: From = "",
    via: Via = "auto",
    platform: PlatformOption = "",
    level: Level = 3,
    base: Bases = None,
    seed: Seeds = None,
    site: Annotated[str, typer.Option("--site", help="Note that the bundle is for this site.")] = "",
    strict: Annotated[
        bool, typer.Option("--strict", help="All images or no bundle: the first that cannot be taken ends it.")
    ] = False,
    answer: Annotated[
        Path | None, typer.Option("--answer", help="Only the files this request names (verify --request made it).")
    ] = None,
    store: StoreOption = None,
    no_store: NoStore = False,
    jobs: Jobs = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done (as `plan`).")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export images into a bundle; run it again after an interruption and it goes on where it stopped."""
    from transfer.cli import export, wiring

    behind = wiring.Behind(tuple(base or ()), tuple(seed or ()), store, no_store, site)
    wished = export.Wished(tuple(patterns or ()), source, via, platform, level, strict)
    if answer:
        from transfer.cli import check

        check.answer(answer, output, behind, patterns or [], json, quiet)
    elif dry_run:
        export.plan(wished, output, behind, jobs, json, quiet)
    else:
        export.export(wished, output, behind, jobs, json, quiet)


@app.command()
def plan(
    patterns: Patterns = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the bundle would go.")] = Path("images.bundle"),
    source: From = "",
    via: Via = "auto",
    platform: PlatformOption = "",
    level: Level = 3,
    base: Bases = None,
    seed: Seeds = None,
    store: StoreOption = None,
    no_store: NoStore = False,
    jobs: Jobs = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what an export would read and need, without writing anything; with --base, to the byte."""
    from transfer.cli import export, wiring

    behind = wiring.Behind(tuple(base or ()), tuple(seed or ()), store, no_store, "")
    wished = export.Wished(tuple(patterns or ()), source, via, platform, level)
    export.plan(wished, output, behind, jobs, json, quiet)


@app.command()
def inspect(bundle: BundleArgument, json: Json = False) -> None:
    """Show what a bundle holds: images, layers, sizes, savings, prerequisites, signature state."""
    from transfer.cli import show

    show.inspect(bundle, json)


@app.command()
def verify(
    bundle: Annotated[str, typer.Argument(help="The bundle folder, a medium, or [user@]host:folder/bundle.")],
    deep: Annotated[bool, typer.Option("--deep", help="Also rebuild every layer and check its digest.")] = False,
    against: Annotated[
        str, typer.Option("--against", help="Is what it builds on there? A store's folder, or site:NAME.")
    ] = "",
    request: Annotated[
        Path | None, typer.Option("--request", help="Write the list of damaged or missing files, for export --answer.")
    ] = None,
    ssh: SshOption = "",
    identity: IdentityOption = None,
    host_key: HostKeyOption = "",
    accept_new: AcceptNewOption = False,
    ssh_config: SshConfigOption = None,
    remote: RemoteOption = "transfer",
    seed: Seeds = None,
    store: StoreOption = None,
    no_store: NoStore = False,
    jobs: Jobs = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check every byte of a bundle; damage is named by file, frame and image."""
    from transfer.cli import carry, check, wiring

    access = carry.Access(ssh, identity, host_key, accept_new, ssh_config, remote)
    behind = wiring.Behind((), tuple(seed or ()), store, no_store, "")
    check.verify(bundle, access, deep, against, request, behind, jobs, json, quiet)


@app.command("import")
def import_(
    bundle: Annotated[
        str, typer.Argument(help="The bundle folder, a medium, or spool:DIR for all that has arrived there.")
    ],
    patterns: Annotated[
        list[str] | None,
        typer.Argument(help="Further media of the set; then names or globs, quoted. None: all images."),
    ] = None,
    to: Annotated[
        str, typer.Option("--to", help="docker-daemon: (default), oci:DIR, docker-archive:FILE, oci-archive:FILE.")
    ] = "",
    retag: Annotated[list[str] | None, typer.Option("--retag", help="OLD=NEW: land under another name.")] = None,
    platform: Annotated[
        str, typer.Option("--platform", help="Of a multi-platform image, what a Docker takes (default: its own).")
    ] = "",
    via: Annotated[str, typer.Option("--via", help="How a Docker daemon takes it: auto, pull or load.")] = "auto",
    seed: Seeds = None,
    keep_tags: Annotated[
        bool, typer.Option("--keep-tags", help="A name that another image has there stays with that one.")
    ] = False,
    repair: Annotated[
        list[Path] | None, typer.Option("--repair", help="An answer to `verify --request`: it mends what is damaged.")
    ] = None,
    stage: Annotated[
        bool,
        typer.Option("--stage", help="If what it builds on is not here yet, keep it; it is imported when that comes."),
    ] = False,
    store: StoreOption = None,
    no_store: NoStore = False,
    jobs: Jobs = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say which images would come, under which names.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Import a bundle's images: what is there already is not sent; IDs and digests are compared afterwards."""
    from transfer.cli import land, wiring

    behind = wiring.Behind((), tuple(seed or ()), store, no_store, "")
    wished = land.wish(patterns or [], to, retag or [], platform, via, stage, jobs, dry_run, keep_tags, repair or ())
    land.import_(bundle, wished, behind, json, quiet)


@app.command()
def diff(
    older: Annotated[str, typer.Argument(help="A bundle folder, or an image.")],
    newer: Annotated[str, typer.Argument(help="Another bundle folder, or another image.")],
    source: From = "",
    files: Annotated[bool, typer.Option("--files", help="List every file.")] = False,
    seed: Seeds = None,
    store: StoreOption = None,
    no_store: NoStore = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """What changed between two bundles or two images: images, layers, files, and the bytes each costs."""
    from transfer.cli import keep, wiring

    keep.diff(older, newer, source, files, wiring.Behind((), tuple(seed or ()), store, no_store, ""), json, quiet)


@app.command()
def ship(
    bundle: BundleArgument,
    to: Annotated[
        list[str],
        typer.Argument(help="[user@]host:folder, ssh://user@host:port/folder, folders of media, or spool:DIR."),
    ],
    import_: Annotated[bool, typer.Option("--import", help="Also import it over there.")] = False,
    target: Annotated[str, typer.Option("--to", help="With --import: where to, as for `import --to`.")] = "",
    retag: Annotated[list[str] | None, typer.Option("--retag", help="With --import: OLD=NEW.")] = None,
    site: Annotated[str, typer.Option("--site", help="Note that this site has it shipped.")] = "",
    ssh: SshOption = "",
    identity: IdentityOption = None,
    host_key: HostKeyOption = "",
    accept_new: AcceptNewOption = False,
    ssh_config: SshConfigOption = None,
    remote: RemoteOption = "transfer",
    limit_rate: Annotated[str, typer.Option("--limit-rate", help="Bytes a second, e.g. 500K, 2M.")] = "",
    parity: Annotated[
        str, typer.Option("--parity", help="Media, spool: recovery files, so that e.g. 30% of all files may be lost.")
    ] = "",
    eject: Annotated[bool, typer.Option("--eject", help="Unmount media when all is written and read back.")] = False,
    folder: Annotated[
        bool, typer.Option("--folder", help="Media: what is named are folders; nothing need be mounted there.")
    ] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Forget which media were filled before: begin a new set.")
    ] = False,
    store: StoreOption = None,
    no_store: NoStore = False,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Files at once (default: two).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go where.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bring a bundle to another host or onto media: run it again after an interruption and it goes on where it stopped."""
    from transfer.cli import carry

    access = carry.Access(ssh, identity, host_key, accept_new, ssh_config, remote, limit_rate)
    after = carry.After(import_, target, tuple(retag or ()), site, store, no_store)
    media = carry.Media(parity, eject, anew, folder)
    carry.ship(bundle, to, access, after, media, carry.Manner(jobs, dry_run, json, quiet))


@app.command(hidden=True)
def receive(
    stdio: Annotated[bool, typer.Option("--stdio", help="Speak on standard input and output.")] = False,
    inbox: Annotated[Path | None, typer.Option("--inbox", help="Take files into this folder and nowhere else.")] = None,
    allow_import: Annotated[
        bool, typer.Option("--allow-import", help="With --inbox: also import what arrived.")
    ] = False,
    import_to: Annotated[
        str, typer.Option("--import-to", help="With --allow-import: where to, as `import --to` (default: the Docker).")
    ] = "",
    allow_move: Annotated[
        bool, typer.Option("--allow-move", help="With --allow-import: a name that another image has may move.")
    ] = False,
    site: Annotated[str, typer.Option("--site", help="With --inbox: this key's own folder in it.")] = "",
    max_bytes: Annotated[str, typer.Option("--max-bytes", help="With --inbox: how much may lie there, e.g. 50G.")] = "",
    store: StoreOption = None,
    no_store: NoStore = False,
) -> None:
    """The other end of `ship`: started over SSH, also as a forced command.

    In authorized_keys, on one line: restrict,command="transfer receive --stdio --inbox /srv/inbox" ssh-ed25519 AAAA... sender
    """
    from transfer.cli import receive
    from transfer.cli.render import parse_size

    rules = receive.Rules(inbox, allow_import, import_to, allow_move, site, parse_size("--max-bytes", max_bytes))
    receive.receive(stdio, rules, store, no_store)


receipt_app = typer.Typer(invoke_without_command=True, help="What this site holds, for the sender to build on.")
app.add_typer(receipt_app, name="receipt")
store_app = typer.Typer(no_args_is_help=True, help="Look at the site's store, check it, keep it small.")
app.add_typer(store_app, name="store")


@receipt_app.callback()
def receipt(
    context: typer.Context,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this file.")] = None,
    text: Annotated[bool, typer.Option("--text", help="A form to print and retype: each line has a check.")] = False,
    site: Annotated[str, typer.Option("--site", help="This site's name (remembered; first: the host's).")] = "",
    store: StoreOption = None,
) -> None:
    """Say what this site has committed; carry it back to the sender by any way."""
    if context.invoked_subcommand is None:
        from transfer.cli import keep

        keep.receipt(output, text, site, store)


@receipt_app.command("accept")
def receipt_accept(
    file: Annotated[str, typer.Argument(help="The receipt, either form; - for standard input.")],
    anew: Annotated[
        bool, typer.Option("--anew", help="The site lost its store and counts from the beginning.")
    ] = False,
    store: StoreOption = None,
    json: Json = False,
) -> None:
    """Take a site's receipt: exports with --base site:NAME build on what it confirms."""
    from transfer.cli import keep

    keep.accept(file, anew, store, json)


@app.command()
def inventory(store: StoreOption = None, no_store: NoStore = False, json: Json = False) -> None:
    """What this site could serve as a base: its store's bundles and its engine's images."""
    from transfer.cli import keep

    keep.inventory(store, no_store, json)


@store_app.command("ls")
def store_ls(store: StoreOption = None, json: Json = False) -> None:
    """List the bundles of the store."""
    from transfer.cli import keep

    keep.ls(store, json)


@store_app.command("path")
def store_path(store: StoreOption = None) -> None:
    """Say where the store is."""
    from transfer.cli import keep

    keep.path(store)


@store_app.command("check")
def store_check(
    store: StoreOption = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make the index anew from the catalogs.")] = False,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Hash every file of the store."""
    from transfer.cli import keep

    keep.check(store, rebuild, jobs, json)


@store_app.command("prune")
def store_prune(
    keep_last: Annotated[int, typer.Option("--keep-last", min=1, help="How many of the newest bundles to keep.")],
    store: StoreOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    json: Json = False,
) -> None:
    """Forget old bundles; what kept ones build on stays."""
    from transfer.cli import keep

    keep.prune(keep_last, store, dry_run, json)


@store_app.command("drop")
def store_drop(
    bundle: Annotated[str, typer.Argument(help="The beginning of its digest, as `store ls` shows it.")],
    store: StoreOption = None,
) -> None:
    """Forget one bundle that no other needs, such as a staged one that will never be complete."""
    from transfer.cli import keep

    keep.drop(bundle, store)


@store_app.command("compact")
def store_compact(store: StoreOption = None, jobs: Jobs = None, json: Json = False) -> None:
    """Pack chunks anew that are kept only because newer bundles build on them."""
    from transfer.cli import keep

    keep.compact(store, jobs, json)


@app.command()
def demo(
    keep: Annotated[Path | None, typer.Option("--keep", help="Leave the demo's files in this new folder.")] = None,
    quiet: Quiet = False,
) -> None:
    """Show the whole road on small images made here: no root, no engine, no network."""
    from transfer.cli import demonstration

    demonstration.run(keep, quiet)


class _Stopped(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived."""

    def __init__(self, number: int) -> None:
        self.number = number


class _Unread(BaseException):
    """Whoever reads what this program prints went away."""


class _Output:
    """A text stream that says so when nobody reads it any more, whatever else would make of that."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(text))
        except BrokenPipeError:
            raise _Unread from None

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            raise _Unread from None


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped(number)


def fail(error: TransferError) -> int:
    """One line what, one line what now; the exit code."""
    print(f"transfer: {printable(error.message)}", file=sys.stderr)
    hint = error.hint or error.advice
    if hint:
        print(f"  -> {printable(hint)}", file=sys.stderr)
    return error.exit_code


def printable(text: str) -> str:
    """Text from anywhere, safe for a terminal. A byte of a path that is not UTF-8 is shown as that byte."""
    codes = ((c, ord(c) & 0xFF if "\udc80" <= c <= "\udcff" else ord(c)) for c in text)
    return "".join(c if c.isprintable() else f"\\x{code:02x}" for c, code in codes)


def main(argv: list[str] | None = None) -> Any:
    """Run the command; exits with the documented code."""
    os.environ.setdefault("TYPER_USE_RICH", "0")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, _stop)
    plain = sys.stdout
    if plain is not None:
        sys.stdout = _Output(plain)
    try:
        code = app(args=argv, prog_name="transfer", standalone_mode=False) or 0
        if sys.stdout is not None:
            sys.stdout.flush()
    except TransferError as error:
        code = fail(error)
    except (KeyboardInterrupt, typer.Abort):
        code = _said_stopped(signal.SIGINT)
    except _Stopped as stopped:
        code = _said_stopped(stopped.number)
    except (BrokenPipeError, _Unread):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 141
    except OSError as error:
        from transfer.errors import from_os_error

        code = fail(from_os_error(error, str(error.filename or "the operating system")))
    except Exception as error:
        if hasattr(error, "format_message"):
            print(f"transfer: {printable(error.format_message())}", file=sys.stderr)
            context = getattr(error, "ctx", None)
            path = context.command_path if context is not None else "transfer"
            print(f"  -> see {path} --help", file=sys.stderr)
            code = 2
        else:
            print(f"transfer: internal error: {type(error).__name__}: {error}", file=sys.stderr)
            if os.environ.get("TRANSFER_DEBUG"):
                raise
            print("  -> this is a bug; run again with TRANSFER_DEBUG=1 for the details", file=sys.stderr)
            code = 1
    finally:
        sys.stdout = plain
    sys.exit(int(code) if isinstance(code, int) else 0)


def _said_stopped(number: int) -> int:
    """Tell that a signal ended it; the exit code. The terminal shows ^C where the cursor was, so it begins a new line there."""
    start = "\n" if number == signal.SIGINT and sys.stderr is not None and sys.stderr.isatty() else ""
    with contextlib.suppress(OSError, ValueError):
        print(f"{start}transfer: stopped; run the same command again to go on", file=sys.stderr)
    return 128 + number


def run() -> None:
    """`main` for a process of its own. It ends without taking its memory apart object by object, a fifth of a second after a large import."""
    try:
        main()
    except SystemExit as end:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.flush()
        os._exit(end.code if isinstance(end.code, int) else 0)


if __name__ == "__main__":
    run()
