"""The `podman` program: what it says of itself and of its images, taken apart, and what it is asked to do."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transfer.engines.cstorage import ContainerStorage
from transfer.engines.program import Program, find
from transfer.errors import EngineAway, EngineError, FormatError, TransferError
from transfer.model import TEMPORARY, Digest, Platform, is_name
from transfer.streams import coalesced, parse_json, parse_object

RULES_VARIABLES = ("CONTAINERS_REGISTRIES_CONF", "REGISTRIES_CONFIG_PATH")
"""What names a registries.conf to podman; the second to podman 3.0 (Debian 11), which does not know the first."""
UNFINISHED = "locating item named"
"""In what podman says when it lists its images while it writes one (3.0 to 5.4)."""
_ANSWER_MAX = 64 << 20
"""What podman says of its images may be so long (bytes)."""


@dataclass(frozen=True, slots=True)
class Held:
    """An image as podman lists it: its ID (the config's digest), names in full, names with digests, size (bytes), age."""

    id: Digest
    names: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    created: int


class Podman:
    """The `podman` program, with one store. It needs no service; CONTAINER_HOST is not heeded, since its images are elsewhere."""

    def __init__(self, place: str = "") -> None:
        program = find("podman")
        if program is None:
            raise EngineAway("no podman here: the program is not in PATH", hint="install podman")
        driver, root, run = place.split("|") if place else ("", "", "")
        options = [*(["--root", root] if root else []), *(["--runroot", run] if run else [])]
        options += ["--storage-driver", driver] if driver else []
        env = dict.fromkeys(("CONTAINER_HOST", "CONTAINER_CONNECTION"))
        self.where = f"podman at {root}" if root else "podman"
        self._program = Program([program, *options], self.where, env=env, spool=os.environ.get("TMPDIR", "/var/tmp"))
        self._info: dict[str, Any] | None = None

    @property
    def info(self) -> dict[str, Any]:
        """What it says of itself. EngineAway if it says nothing."""
        if self._info is None:
            try:
                self._info = parse_object(self._program.run("info", "--format", "json"), self.where)
            except (EngineError, FormatError) as error:  # podman 3.0 puts complaints about its files before the answer
                raise EngineAway(error.message, hint="`podman info` says more") from error
            if not self._program_has_root():
                self.where = f"podman at {self._store().get('graphRoot', '')}"
                self._program.where = self.where
        return self._info

    def _program_has_root(self) -> bool:
        return "--root" in self._program.words

    def _store(self) -> dict[str, Any]:
        value = (self._info or {}).get("store")
        return value if isinstance(value, dict) else {}

    def storage(self) -> ContainerStorage | None:
        """Its storage on disk, if that is one this process may read and knows.

        A user's layers have files of other users of the image, which he may read in his user namespace (podman-unshare(1)).
        """
        store = (self.info and self._store()) or {}
        root = Path(str(store.get("graphRoot") or "/nowhere"))
        options = store.get("graphOptions")
        listed = options.get("overlay.imagestore") if isinstance(options, dict) else None
        also = [Path(each) for each in (listed if isinstance(listed, list) else [listed]) if isinstance(each, str)]
        if store.get("graphDriverName") != "overlay" or not root.is_absolute():
            return None
        with contextlib.suppress(TransferError):
            podman = self._program if os.geteuid() else None
            return ContainerStorage(root, [each for each in also if each.is_absolute()], podman=podman)
        return None

    @property
    def platform(self) -> Platform:
        """What runs here."""
        host = self.info.get("host")
        value = host if isinstance(host, dict) else {}
        return Platform(str(value.get("os") or "linux"), str(value.get("arch") or "amd64"))

    def run(self, *words: str) -> bytes:
        return self._program.run(*words)

    def run_with_rules(self, rules: str, *words: str) -> bytes:
        """The same, with a registries.conf that is in memory and gone with this process.

        Podman has it as an open file: without root podman is in a user namespace, from which files of this process below /proc cannot be read.
        """
        made = os.memfd_create("transfer-registries.conf")
        try:
            fd = fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, 3)  # below that are the program's own input and output
        finally:
            os.close(made)
        try:
            os.write(fd, rules.encode())
            env = dict.fromkeys(RULES_VARIABLES, f"/proc/self/fd/{fd}")
            return self._program.run(*words, env=env, fds=[fd])
        finally:
            os.close(fd)

    def load(self, archive: Iterator[bytes]) -> None:
        """`podman load` of an archive, which podman puts into its temporary folder first."""
        self._program.run("load", "--quiet", data=archive)

    def _asked(self, *words: str) -> bytes:
        """What podman says of its store. It fails while another image is being written, whose manifest is not there yet: then it is asked again."""
        for wait in (0.1, 0.2, 0.4, 0.8, 1.6):
            try:
                return self._program.run(*words)
            except EngineError as error:
                if UNFINISHED not in error.message:
                    raise
                time.sleep(wait)
        return self._program.run(*words)

    def images(self) -> list[Held]:
        """All images, each once; names that a killed import left are not among them."""
        found: dict[str, Held] = {}
        rows = parse_json(self._asked("images", "--all", "--no-trunc", "--format", "json"), self.where, _ANSWER_MAX)
        for row in rows if isinstance(rows, list) else ():
            if not isinstance(row, dict):
                continue
            with contextlib.suppress(FormatError):
                id = Digest.parse("sha256:" + str(row.get("Id")), self.where)
                names, digests = _texts(row.get("Names")), _texts(row.get("RepoDigests"))
                size, created = row.get("Size"), row.get("Created")
                found[str(id)] = Held(
                    id,
                    tuple(dict.fromkeys(each for each in names if is_name(each) and f"/{TEMPORARY}/" not in each)),
                    digests,
                    size if type(size) is int else 0,
                    created if type(created) is int else 0,
                )
        return list(found.values())

    def inspect(self, reference: str) -> dict[str, Any] | None:
        """An image, by its ID or full name; None if it is not there."""
        try:
            found = parse_json(self._asked("image", "inspect", reference), self.where)
        except EngineError as error:
            if "no such image" in error.message or "image not known" in error.message:
                return None
            raise
        return found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else None

    def layers(self, images: Sequence[Digest]) -> dict[Digest, int]:
        """How many layers images have, by their IDs."""
        if not images:
            return {}
        rows = parse_json(self._asked("image", "inspect", *(each.hex for each in images)), self.where, _ANSWER_MAX)
        out = {}
        for row in rows if isinstance(rows, list) else ():
            rootfs = row.get("RootFS") if isinstance(row, dict) else None
            if isinstance(rootfs, dict):
                out[Digest(f"sha256:{row.get('Id')}")] = len(rootfs.get("Layers") or [])
        return out

    @contextlib.contextmanager
    def save(self, wanted: Sequence[str]) -> Iterator[Iterator[bytes]]:
        """Some images as an archive for Docker, with plain layers."""
        several = ["--multi-image-archive"] if len(wanted) > 1 else []
        ids = [each.removeprefix("sha256:") for each in wanted]
        stream = self._program.open("save", "--quiet", *several, *ids)
        with contextlib.closing(stream):
            yield coalesced(iter(partial(stream.read, 1 << 20), b""))


def _texts(value: object) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()
