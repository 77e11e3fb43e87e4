"""A site's file: which images it gets, by which roads, when, how fast, what is kept, and when to raise the alarm.

Every key is known, or the file is refused with the line: a misspelt window would ship in the middle of the day.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transfer.errors import NotFound, UsageError, from_os_error
from transfer.folders import config_folder
from transfer.model import Digest, GzipWay
from transfer.sites.receipt import site_name
from transfer.sites.values import DURATION, FLAG, LIMITS, RATE, SHARE, TEXT, TEXTS, Setting, number, one_of, word
from transfer.sites.window import Window, parse_window
from transfer.streams import read_small, sha256

FOLDER = Path("/etc/transfer")
VARIABLE = "TRANSFER_SITES"
FILE_MAX = 1 << 20
DAY = 86400
ROADS = ("ssh", "medium", "spool", "folder", "https")
PULLED = ("ssh", "folder", "https")
CREDENTIAL = "credential:"


@dataclass(frozen=True, slots=True)
class Pick:
    """Images of one place. `newest`: so many tags of each repository that a pattern picks, 0 for all; `skip`: one that is missing is left out."""

    source: str = ""
    select: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    platform: str = ""
    newest: int = 0
    skip: bool = False
    referrers: bool = False
    plain_http: bool = False


@dataclass(frozen=True, slots=True)
class Road:
    """A way to the site. `after`: only when nothing was confirmed for so long (seconds). `limit`: bytes a second."""

    kind: str
    to: str = ""
    identity: str = ""
    host_key: str = ""
    ssh_config: str = ""
    remote: str = "transfer"
    import_: bool = False
    import_to: str = ""
    retag: tuple[str, ...] = ()
    limit: int = 0
    jobs: int | None = None
    label: str = ""
    survive_loss: int = 0
    after: int = 0

    @property
    def answers(self) -> bool:
        """Whether the other side can be asked for its receipt."""
        return self.kind == "ssh"


@dataclass(frozen=True, slots=True)
class Delta:
    """What is built on: what the site has confirmed, or nothing. `one_way`: also what was only shipped. `full_every`: seconds, 0 for never."""

    confirmed: bool = True
    one_way: bool = False
    full_every: int = 0
    level: int = 3
    gzip: GzipWay = "exact"


@dataclass(frozen=True, slots=True)
class Keep:
    """`out`: bundle folders kept here after confirmation; `here`: bundles of this store; `there`: asked of the site's store, 0 for all.

    `lost_after`: a bundle that was shipped and not confirmed for so long (seconds) counts as lost.
    """

    out: int = 1
    here: int = 3
    there: int = 0
    lost_after: int = 60 * DAY


@dataclass(frozen=True, slots=True)
class Alarm:
    """Seconds without a confirmation after which a site is stale, and after which hooks hear the same thing again."""

    stale: int = 7 * DAY
    repeat: int = DAY


@dataclass(frozen=True, slots=True)
class SiteFile:
    """One site. `digest`: of the file's bytes."""

    name: str
    path: Path
    digest: Digest
    about: str = ""
    pulls: bool = False
    picks: tuple[Pick, ...] = ()
    roads: tuple[Road, ...] = ()
    window: Window = field(default_factory=Window)
    delta: Delta = field(default_factory=Delta)
    keep: Keep = field(default_factory=Keep)
    alarm: Alarm = field(default_factory=Alarm)
    textfile: str = ""


def folders() -> list[Path]:
    """Where site files are: TRANSFER_SITES, else the system's and the user's."""
    named = os.environ.get(VARIABLE, "")
    if named:
        return [Path(named)]
    own = config_folder()
    return [FOLDER / "sites", *([own / "transfer" / "sites"] if own else [])]


def listed() -> list[str]:
    """The names of all sites that have a file."""
    out = set()
    for folder in folders():
        try:
            out |= {path.stem for path in folder.glob("*.toml") if _is_name(path.stem)}
        except OSError as error:
            raise from_os_error(error, f"reading {folder}") from error
    return sorted(out)


def _is_name(text: str) -> bool:
    try:
        return bool(site_name(text))
    except UsageError:
        return False


def load(name: str) -> SiteFile:
    """The file of a site. NotFound if it has none; UsageError, with the line, for what is wrong in it."""
    for folder in reversed(folders()):
        path = folder / f"{site_name(name)}.toml"
        if path.exists():
            return parse_site(read_small(path, FILE_MAX), name, path)
    known = ", ".join(listed()) or "none yet"
    raise NotFound(
        f"the site {name} has no file {folders()[0]}/{name}.toml", hint=f"write it (docs/sync.md). Known: {known:.300}"
    )


def parse_site(data: bytes, name: str, path: Path) -> SiteFile:
    """UsageError for a file that is malformed, with the line of what is wrong."""
    try:
        text = data.decode()
        value = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text", hint="save it as UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        why = "it begins with a byte order mark" if data.startswith(b"\xef\xbb\xbf") else str(error)
        raise UsageError(f"{path} is not a site file: {why}", hint="docs/sync.md has an example") from error
    return _Reading(text, path).site(value, name, sha256(data))


_IMAGES = {
    "from": TEXT,
    "select": TEXTS,
    "exclude": TEXTS,
    "files": TEXTS,
    "platform": TEXT,
    "newest": number(1, 1000),
    "missing": word(refuse=False, skip=True),
    "referrers": FLAG,
    "plain_http": FLAG,
}
_ROAD = {
    "kind": one_of(*ROADS),
    "to": TEXT,
    "identity": TEXT,
    "host_key": TEXT,
    "ssh_config": TEXT,
    "remote": TEXT,
    "import": FLAG,
    "import_to": TEXT,
    "retag": TEXTS,
    "limit": RATE,
    "jobs": number(1, 64),
    "label": TEXT,
    "survive_loss": SHARE,
    "after": DURATION,
}
_WINDOW = {
    "open": TEXTS,
    "zone": TEXT,
    "limits": LIMITS,
    "at_end": word(pause=False, finish=True),
}
_DELTA = {
    "base": word(confirmed=True, none=False),
    "one_way": FLAG,
    "full_every": DURATION,
    "level": number(1, 19),
    "gzip": one_of("exact", "layers", "opaque"),
}
_KEEP = {"out": number(0, 1000), "here": number(1, 1000), "there": number(1, 1000), "lost_after": DURATION}
_ALARM = {"stale": DURATION, "repeat": DURATION}
_METRICS = {"textfile": TEXT}
_TOP = ("version", "about", "role", "images", "road", "window", "delta", "keep", "alarm", "metrics")
_RENAMED = {"import": "import_", "base": "confirmed", "missing": "skip", "from": "source"}


class _Reading:
    """One file while it is read. `where` is what the lines of failures are looked for with."""

    def __init__(self, text: str, path: Path) -> None:
        self._lines, self._path = text.splitlines(), path

    def site(self, value: Mapping[str, Any], name: str, digest: Digest) -> SiteFile:
        if value.get("version") != 1 or type(value.get("version")) is not int:
            raise UsageError(
                f"{self._path}: this program reads version 1 of site files, and the file says {value.get('version')!r:.20}",
                hint="begin it with: version = 1",
            )
        for key in value:
            if key not in _TOP:
                self._unknown(key, "", 0, _TOP)
        pulls = value.get("role", "push")
        if pulls not in ("push", "pull"):
            self._wrong("role", "", 0, "push or pull")
        about = value.get("about", "")
        if not isinstance(about, str) or not about.isprintable():
            self._wrong("about", "", 0, "a text")
        out = SiteFile(
            site_name(name),
            self._path,
            digest,
            about,
            pulls == "pull",
            tuple(self._pick(each, n) for n, each in enumerate(self._tables(value, "images"))),
            tuple(self._road(each, n, pulls == "pull") for n, each in enumerate(self._tables(value, "road"))),
            self._window(self._table(value, "window", _WINDOW)),
            Delta(**self._table(value, "delta", _DELTA)),
            Keep(**self._table(value, "keep", _KEEP)),
            Alarm(**self._table(value, "alarm", _ALARM)),
            self._table(value, "metrics", _METRICS).get("textfile", ""),
        )
        if not out.roads:
            raise UsageError(f"{self._path}: the site has no [[road]]", hint="docs/sync.md has an example")
        if not out.picks and not out.pulls:
            raise UsageError(f"{self._path}: the site has no [[images]]", hint="docs/sync.md has an example")
        if out.picks and out.pulls:
            raise UsageError(
                f"{self._path}: a site that pulls has no [[images]]", hint="the other side says which images it offers"
            )
        return out

    def _pick(self, table: Mapping[str, Any], number: int) -> Pick:
        found = self._read(table, "images", number, _IMAGES)
        files = tuple(self._path.parent / each for each in found.pop("files", ()))
        if not found.get("select") and not files:
            raise UsageError(
                f"{self._at('[[images]]', 'images', number)} chooses nothing",
                hint="add select = [...], a list of names and patterns, or files = [...]",
            )
        return Pick(files=files, **found)

    def _road(self, table: Mapping[str, Any], number: int, pulls: bool) -> Road:
        found = self._read(table, "road", number, _ROAD)
        where = self._at("[[road]]", "road", number)
        kind = found.get("kind", "")
        if not kind:
            raise UsageError(f"{where} has no kind", hint=f"add kind = one of {', '.join(ROADS)}")
        if pulls and kind not in PULLED:
            raise UsageError(f"{where}: a site cannot pull by {kind}", hint=f"use {' or '.join(PULLED)}")
        if not pulls and kind == "https":
            raise UsageError(f'{where}: https is for role = "pull"', hint="ship to a folder that a web server serves")
        if kind == "medium":
            if not found.get("label") and not found.get("to"):
                raise UsageError(
                    f"{where}: a medium needs a label or a folder",
                    hint='add label = "TRANSFER*", or to = "/media/usb1"',
                )
        elif not found.get("to"):
            raise UsageError(f"{where} has no `to`", hint="say where it leads")
        if kind != "ssh" and (found.get("import_") or found.get("import_to")) and not pulls:
            raise UsageError(
                f"{where}: import is for ssh only",
                hint="remove `import`: what arrives there is imported by the site itself",
            )
        return Road(**found)

    def _window(self, found: dict[str, Any]) -> Window:
        try:
            return parse_window(
                found.get("open", ()), found.get("limits", ()), found.get("zone", ""), finish=found.get("at_end", False)
            )
        except UsageError as error:
            raise UsageError(f"{self._at('[window]', 'window', 0)}: {error.message}", hint=error.hint) from error

    def _tables(self, value: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
        found = value.get(key, [])
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise UsageError(f"{self._path}: write each as [[{key}]]", hint="docs/sync.md has an example")
        return found

    def _table(self, value: Mapping[str, Any], key: str, keys: Mapping[str, Setting]) -> dict[str, Any]:
        found = value.get(key, {})
        if not isinstance(found, dict):
            raise UsageError(f"{self._path}: write it as [{key}]", hint="docs/sync.md has an example")
        return self._read(found, key, 0, keys)

    def _read(self, table: Mapping[str, Any], section: str, number: int, keys: Mapping[str, Setting]) -> dict[str, Any]:
        out = {}
        for key, value in table.items():
            if key not in keys:
                self._unknown(key, section, number, tuple(keys))
            try:
                out[_RENAMED.get(key, key)] = keys[key].read(value)
            except ValueError:
                self._wrong(key, section, number, keys[key].what)
        return out

    def _unknown(self, key: str, section: str, number: int, known: Sequence[str]) -> None:
        near = difflib.get_close_matches(key.replace("-", "_"), known, 1, 0.7)
        raise UsageError(
            f"{self._at(repr(key)[:60], section, number, key)} is not a setting",
            hint=f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}",
        )

    def _wrong(self, key: str, section: str, number: int, what: str) -> None:
        raise UsageError(f"{self._at(key, section, number, key)} is not {what}", hint="docs/sync.md lists the settings")

    def _at(self, what: str, section: str, number: int, key: str = "") -> str:
        line = self._line(section, number, key)
        return f"{self._path}{f', line {line}' if line else ''}: {what}{f' of [{section}]' if key and section else ''}"

    def _line(self, section: str, number: int, key: str) -> int:
        """The line of a key, or of the head of its section; 0 if it is written in another way."""
        inside, left = not section, number
        for at, line in enumerate(self._lines, 1):
            head = re.match(r"\s*\[\[?\s*([A-Za-z0-9_.\"'-]+)\s*\]\]?", line)
            if head:
                if inside and (section or not key):
                    return 0
                inside = head[1].strip("\"'") == section and (left := left - 1) < 0
                if (inside and not key) or (not section and head[1].strip("\"'") == key):
                    return at
            elif inside and key and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", line):
                return at
        return 0
