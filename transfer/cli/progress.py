"""Events drawn for people on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
from typing import Any

from tqdm import tqdm

from transfer.cli.main import printable
from transfer.events import Advanced, Done, Event, Noted, Planned, Rewound, Skipped

_VERBS = {"export": "reading", "import": "unpacking", "verify": "checking"}


class Progress:
    """An observer. `quiet` says nothing."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet or sys.stderr is None
        self._bars = sys.stderr is not None and sys.stderr.isatty() and not quiet
        self._bar: tqdm[Any] | None = None
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        if self._quiet:
            return
        with self._lock:
            if isinstance(event, Advanced):
                if self._bar is not None:
                    self._bar.update(event.count)
            elif isinstance(event, Planned):
                self._begin(event)
            elif isinstance(event, Done):
                self.close()
            else:
                self._line(event)

    def _begin(self, event: Planned) -> None:
        if self._bars:
            description = _VERBS.get(event.stage, event.stage)
            total = event.total or None
            self._bar = tqdm(total=total, desc=description, unit="B", unit_scale=True, file=sys.stderr, leave=False)

    def _line(self, event: Noted | Skipped | Rewound) -> None:
        text = event.text if isinstance(event, Noted) else f"{event.what}: {event.why}"
        if self._bar is not None:
            self._bar.write(printable(text), file=sys.stderr)
        else:
            print(printable(text), file=sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
