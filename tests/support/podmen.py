"""A podman with a store of its own, for tests."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support import engines


class Store:
    """One store; `env` leads podman, and transfer, to it."""

    def __init__(self, folder: Path, run: Path, driver: str) -> None:
        self.root, self._run = folder / "root", run
        config = f'[storage]\ndriver = "{driver}"\ngraphroot = "{self.root}"\nrunroot = "{run}"\n'
        (folder / "storage.conf").write_text(config, encoding="utf-8")
        self.env = {"CONTAINERS_STORAGE_CONF": str(folder / "storage.conf")}

    def run(self, *words: str) -> str:
        environment = {**os.environ, **self.env}
        done = subprocess.run(["podman", *words], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ids(self) -> dict[str, str]:
        """The image's ID of each name."""
        rows = json.loads(self.run("images", "--all", "--no-trunc", "--format", "json"))
        return {name: "sha256:" + row["Id"] for row in rows for name in row.get("Names") or []}

    def digests(self, name: str) -> set[str]:
        """The digests by which an image's name may be pulled."""
        found = json.loads(self.run("image", "inspect", name))[0]
        return {each.rpartition("@")[2] for each in found["RepoDigests"]}

    def empty(self) -> None:
        self.run("rm", "--all", "--force")
        self.run("rmi", "--all", "--force")


@contextlib.contextmanager
def podman(folder: Path, driver: str = "overlay") -> Iterator[Store]:
    """A store in this folder; its mounts are gone afterwards."""
    engines.promised("podman")
    run = Path(tempfile.mkdtemp(prefix="tp-"))  # podman takes no long path for it
    store = Store(folder, run, driver)
    try:
        yield store
    finally:
        with contextlib.suppress(AssertionError):
            store.empty()
        for place in (store.root / "overlay", run):
            subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)
        shutil.rmtree(store.root, ignore_errors=True)
        shutil.rmtree(run, ignore_errors=True)
