"""`transfer`: all commands, and the one place where failures become exit codes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import Annotated, Any

import typer
from typer.main import get_command

from transfer import __version__
from transfer.cli import config, logs
from transfer.cli.commands import (
    demo,
    diff,
    doctor,
    export,
    images,
    import_,
    inspect,
    inventory,
    kit,
    login,
    mirrors,
    names,
    plan,
    ready,
    receipt,
    receive,
    serve,
    ship,
    site,
    store,
    sync,
    verify,
)
from transfer.cli.exits import fail, printable
from transfer.errors import TransferError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Move container images to hosts that have no network, in small, resumable, verifiable bundles.",
)


def _version(value: bool) -> None:
    if value:
        print(f"transfer {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            show_default=False,
            help="Log requests, locks and decisions to stderr; -vv logs more.",
        ),
    ] = 0,
) -> None:
    """Move container images to hosts that have no network."""
    if verbose or os.environ.get(logs.VARIABLE):
        logs.start(verbose)


app.command(epilog=images.EXAMPLES)(images.images)
app.command(epilog=export.EXAMPLES)(export.export)
app.command(epilog=names.TAG_EXAMPLES)(names.tag)
app.command(epilog=names.RM_EXAMPLES)(names.rm)
app.command(epilog=plan.EXAMPLES)(plan.plan)
app.command(epilog=inspect.EXAMPLES)(inspect.inspect)
app.command(epilog=verify.EXAMPLES)(verify.verify)
app.command("import", epilog=import_.EXAMPLES)(import_.import_)
app.command(epilog=diff.EXAMPLES)(diff.diff)
app.command(epilog=ship.EXAMPLES)(ship.ship)
app.command(hidden=True, epilog=receive.EXAMPLES)(receive.receive)
app.command(epilog=sync.SYNC_EXAMPLES)(sync.sync)
app.command(epilog=sync.STATUS_EXAMPLES)(sync.status)
app.command(epilog=sync.LOG_EXAMPLES)(sync.log)
app.command(hidden=True)(sync.notify)
app.command(epilog=inventory.EXAMPLES)(inventory.inventory)
app.command(epilog=ready.EXAMPLES)(ready.ready)
app.command(epilog=serve.EXAMPLES)(serve.serve)
app.command(epilog=mirrors.EXAMPLES)(mirrors.mirrors)
app.command(epilog=login.EXAMPLES)(login.login)
app.command()(login.logout)
app.command(epilog=kit.EXAMPLES)(kit.kit)
app.command(epilog=doctor.EXAMPLES)(doctor.doctor)
app.command(epilog=demo.EXAMPLES)(demo.demo)
app.add_typer(receipt.app, name="receipt")
app.add_typer(site.app, name="site")
app.add_typer(store.app, name="store")


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


class _Complaints(_Output):
    """A text stream of which nothing depends on whether it is read: a log on a full disk ends no import in the middle."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped(number)


def main(argv: list[str] | None = None) -> Any:
    """Run the command; exits with the documented code."""
    os.environ.setdefault("TYPER_USE_RICH", "0")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, _stop)
    plain, complaints = sys.stdout, sys.stderr
    if plain is not None:
        sys.stdout = _Output(plain)
    if complaints is not None:
        sys.stderr = _Complaints(complaints)
    try:
        code = _run(argv) or 0
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
        sys.stdout, sys.stderr = plain, complaints
    sys.exit(int(code) if isinstance(code, int) else 0)


def _run(argv: list[str] | None) -> Any:
    """The command, with the defaults of the configuration files."""
    command: Any = get_command(app)
    loaded = config.load()
    defaults = config.default_map(loaded, command) if loaded.files else None
    return command(args=argv, prog_name="transfer", standalone_mode=False, default_map=defaults)


def _said_stopped(number: int) -> int:
    """Tell that a signal ended it; the exit code. The terminal shows ^C where the cursor was, so it begins a new line there."""
    start = "\n" if number == signal.SIGINT and sys.stderr is not None and sys.stderr.isatty() else ""
    with contextlib.suppress(OSError, ValueError):
        print(f"{start}transfer: stopped; run the same command again to resume", file=sys.stderr)
    return 128 + number


def _has_standard_streams() -> None:
    """Open /dev/null for each of 0, 1 and 2 that is closed: the next file to be opened would have that number, and get what is meant for a stream."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def run() -> None:
    """`main` for a process of its own. It ends without taking its memory apart object by object, a fifth of a second after a large import."""
    _has_standard_streams()
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
