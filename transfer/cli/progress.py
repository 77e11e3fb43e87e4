"""Events drawn for people on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from transfer.cli.exits import printable
from transfer.events import Advanced, Done, Event, Noted, Planned, Rewound, Skipped

if TYPE_CHECKING:
    from tqdm import tqdm

_VERBS = {
    "export": "reading",
    "import": "unpacking",
    "verify": "checking",
    "ship": "sending",
    "media": "writing and reading back",
    "parity": "making recovery files",
    "recover": "recovering",
}
_KINDS = {kind.__name__: kind for kind in (Planned, Advanced, Skipped, Rewound, Noted, Done)}
_STEP = 4 << 20
"""Bytes that are told at once to a program that listens."""


class Progress:
    """An observer. `quiet` says nothing."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet or sys.stderr is None
        self._told = os.environ.get("TRANSFER_EVENTS") == "1" and not self._quiet
        self._untold: dict[str, int] = {}
        self._bars = sys.stderr is not None and sys.stderr.isatty() and not quiet
        self._bar: tqdm[Any] | None = None
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        if self._quiet:
            return
        with self._lock:
            if self._told:
                self._tell(event)
            elif isinstance(event, Advanced):
                bar, count = self._bar, event.count
                if bar is not None:
                    self._drawing(lambda: bar.update(count))
            elif isinstance(event, Planned):
                self._begin(event)
            elif isinstance(event, Done):
                self.close()
            else:
                self._line(event)

    def _tell(self, event: Event) -> None:
        """For a program that reads it: one JSON object a line."""
        if isinstance(event, Advanced):
            count = self._untold.get(event.stage, 0) + event.count
            self._untold[event.stage] = count % _STEP if count >= _STEP else count
            if count < _STEP:
                return
            event = Advanced(event.stage, count - count % _STEP)
        print(json.dumps({"event": type(event).__name__, **asdict(event)}), file=sys.stderr, flush=True)

    def _begin(self, event: Planned) -> None:
        if self._bars:
            self._drawing(lambda: self._draw(event))

    def _draw(self, event: Planned) -> None:
        from tqdm import tqdm

        width = _width()
        self._bar = tqdm(
            total=event.total or None,
            desc=_VERBS.get(event.stage, event.stage),
            unit="B",
            unit_scale=True,
            file=sys.stderr,
            leave=False,
            dynamic_ncols=width > 0,
            ncols=None if width else 79,
            nrows=None if width else 24,
            ascii=not _draws_blocks(),
        )

    def _drawing(self, draw: Callable[[], object]) -> None:
        """A bar is a nicety: what goes wrong with it (a terminal that is gone, odd TQDM_ variables) ends the bar and nothing else."""
        try:
            draw()
        except Exception:  # noqa: BLE001 - see above
            self._bar, self._bars = None, False

    def _line(self, event: Noted | Skipped | Rewound) -> None:
        text = event.text if isinstance(event, Noted) else f"{event.what}: {event.why}"
        bar = self._bar
        if bar is not None:
            self._drawing(lambda: bar.write(printable(text), file=sys.stderr))
        if bar is None or self._bar is None:
            print(printable(text), file=sys.stderr)

    def close(self) -> None:
        bar = self._bar
        if bar is not None:
            self._drawing(bar.close)
            self._bar = None


def _width() -> int:
    """Columns of the terminal; 0 where it does not say, as on a serial line."""
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stderr.fileno()).columns
    return 0


def _draws_blocks() -> bool:
    """Whether the terminal shows more than ASCII, as far as its settings tell."""
    said = next((os.environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)), "C")
    return "utf" in said.lower() and os.environ.get("TERM") not in ("dumb", "vt100", "vt220")


def event_of(value: dict[str, Any]) -> Event | None:
    """The event that `TRANSFER_EVENTS` made this line of; None if it is none."""
    kind = _KINDS.get(str(value.get("event")))
    words = {key: each for key, each in value.items() if key != "event"}
    if kind is None or words.keys() != {each.name for each in fields(kind)}:
        return None
    sound = all(type(each) is (int if key in ("total", "count") else str) for key, each in words.items())
    small = all(each.bit_length() < 62 for each in words.values() if isinstance(each, int))
    return kind(**words) if sound and small else None
