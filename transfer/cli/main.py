"""`transfer`: the commands, and the one place where failures become exit codes."""

from __future__ import annotations

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
BundleArgument = Annotated[Path, typer.Argument(help="The bundle folder.")]
Patterns = Annotated[list[str] | None, typer.Argument(help="Names, IDs or globs ('app/*').")]


def _version(value: bool) -> None:
    if value:
        print(f"transfer {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Carry container images to where there is no network."""


@app.command()
def images(source: From = "", json: Json = False) -> None:
    """List what this host's engine (or a layout or archive) holds."""
    from transfer.cli import show

    show.images(source, json)


@app.command()
def export(
    patterns: Patterns = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle folder to make.")] = Path("images.bundle"),
    source: From = "",
    platform: PlatformOption = "",
    level: Annotated[int, typer.Option(min=1, max=19, help="Compression: 3 is fast, 9 is 11 % smaller.")] = 3,
    jobs: Jobs = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done (as `plan`).")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export images into a bundle; run it again after an interruption and it goes on where it stopped."""
    from transfer.cli import act, show

    if dry_run:
        show.plan(patterns or [], output, source, platform, json, quiet)
    else:
        act.export(patterns or [], output, source, platform, level, jobs, json, quiet)


@app.command()
def plan(
    patterns: Patterns = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the bundle would go.")] = Path("images.bundle"),
    source: From = "",
    platform: PlatformOption = "",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what an export would read and need, without writing anything."""
    from transfer.cli import show

    show.plan(patterns or [], output, source, platform, json, quiet)


@app.command()
def inspect(bundle: BundleArgument, json: Json = False) -> None:
    """Show what a bundle holds: images, layers, sizes, savings, prerequisites, signature state."""
    from transfer.cli import show

    show.inspect(bundle, json)


@app.command()
def verify(
    bundle: BundleArgument,
    deep: Annotated[bool, typer.Option("--deep", help="Also rebuild every layer and check its digest.")] = False,
    jobs: Jobs = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check every byte of a bundle; damage is named by file, frame and image."""
    from transfer.cli import act

    act.verify(bundle, deep, jobs, json, quiet)


@app.command("import")
def import_(
    bundle: BundleArgument,
    patterns: Patterns = None,
    to: Annotated[
        str, typer.Option("--to", help="docker-daemon: (default), oci:DIR, docker-archive:FILE, oci-archive:FILE.")
    ] = "",
    retag: Annotated[list[str] | None, typer.Option("--retag", help="OLD=NEW: land under another name.")] = None,
    platform: Annotated[
        str, typer.Option("--platform", help="Of a multi-platform image, what a Docker takes (default: its own).")
    ] = "",
    via: Annotated[str, typer.Option("--via", help="How a Docker daemon takes it: auto, pull or load.")] = "auto",
    jobs: Jobs = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say which images would come, under which names.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Import a bundle's images: what is there already is not sent; IDs and digests are compared afterwards."""
    from transfer.cli import act

    act.import_(bundle, patterns or [], to, retag or [], platform, via, jobs, dry_run, json, quiet)


@app.command()
def demo(
    keep: Annotated[Path | None, typer.Option("--keep", help="Leave the demo's files in this new folder.")] = None,
    quiet: Quiet = False,
) -> None:
    """Show the whole road on small images made here: no root, no engine, no network."""
    from transfer.cli import demonstration

    demonstration.run(keep, quiet)


class _Stopped(BaseException):
    """SIGTERM or SIGHUP arrived."""

    def __init__(self, number: int) -> None:
        self.number = number


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped(number)


def fail(error: TransferError) -> int:
    """One line what, one line what now; the exit code."""
    print(f"transfer: {printable(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"  -> {printable(error.hint)}", file=sys.stderr)
    return error.exit_code


def printable(text: str) -> str:
    """Text from anywhere, safe for a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def main(argv: list[str] | None = None) -> Any:
    """Run the command; exits with the documented code."""
    os.environ.setdefault("TYPER_USE_RICH", "0")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        code = app(args=argv, standalone_mode=False) or 0
    except TransferError as error:
        code = fail(error)
    except (KeyboardInterrupt, typer.Abort):
        print("transfer: stopped; run the same command again to go on", file=sys.stderr)
        code = 130
    except _Stopped as stopped:
        print("transfer: stopped; run the same command again to go on", file=sys.stderr)
        code = 128 + stopped.number
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 141
    except OSError as error:
        from transfer.errors import from_os_error

        code = fail(from_os_error(error, str(error.filename or "the operating system")))
    except Exception as error:
        if hasattr(error, "format_message"):
            print(f"transfer: {error.format_message()}", file=sys.stderr)
            print("  -> see transfer --help", file=sys.stderr)
            code = 2
        else:
            print(f"transfer: internal error: {type(error).__name__}: {error}", file=sys.stderr)
            if os.environ.get("TRANSFER_DEBUG"):
                raise
            print("  -> this is a bug; run again with TRANSFER_DEBUG=1 for the details", file=sys.stderr)
            code = 1
    sys.exit(int(code) if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
