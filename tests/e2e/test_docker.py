"""Images from one real dockerd into another: IDs, names, a container that runs, and a second import that sends nothing."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import engines
from tests.support.specimens import BROKEN

KINDS = ["20.10", "28 overlay2", "28 containerd"]


def transfer(daemon: engines.Daemon, *words: object) -> dict[str, object]:
    """A transfer command against a daemon; its --json."""
    command = [sys.executable, "-m", "transfer", *map(str, words), "--json", "-q"]
    environment = {**os.environ, "DOCKER_HOST": daemon.host}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


@contextlib.contextmanager
def daemon_of(kind: str, folder: Path) -> Iterator[engines.Daemon]:
    if kind == "20.10":
        engines.promised("docker")
        with engines.docker(folder, name="target") as daemon:
            yield daemon
        return
    engines.promised("docker28")
    store = "overlay2" if kind.endswith("overlay2") else "containerd"
    with engines.docker28(folder, root=engines.docker28_root(), store=store) as daemon:  # type: ignore[arg-type]
        yield daemon


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle of the small image, exported from Docker 20.10, and its image ID there."""
    engines.promised("docker")
    folder = tmp_path_factory.mktemp("source")
    with engines.docker(folder, name="source") as daemon:
        daemon.load(engines.small_image(folder))
        done = transfer(daemon, "export", "test/*", "-o", folder / "b")
        assert [image["name"] for image in done["images"]] == [engines.SMALL_IMAGE]  # type: ignore[attr-defined]
        return folder / "b", daemon.ids()[engines.SMALL_IMAGE]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("via", ["auto", "load", "pull"])
def test_an_image_arrives_with_its_id_and_runs(bundle: tuple[Path, str], tmp_path: Path, kind: str, via: str) -> None:
    folder, identity = bundle
    if via == "pull" and kind.endswith("containerd"):
        pytest.skip("the containerd store insists on TLS to pull")
    with daemon_of(kind, tmp_path) as daemon:
        first = transfer(daemon, "import", folder, "--via", via)
        image = first["images"][0]  # type: ignore[index]
        expected = image["digest"] if kind.endswith("containerd") else identity
        assert daemon.ids() == {engines.SMALL_IMAGE: expected}
        assert image["config_digest"] == identity
        assert "tiny" in daemon.run(engines.SMALL_IMAGE)
        again = transfer(daemon, "import", folder, "--via", via)
        assert (again["layers_sent"], again["bytes_unpacked"]) == (0, 0)
        assert [each["status"] for each in again["images"]] == ["present"]  # type: ignore[attr-defined]
        assert daemon.ids() == {engines.SMALL_IMAGE: expected}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("via", ["auto", "load", "pull"])
def test_a_wrong_chunk_is_refused_and_its_frame_named(tmp_path: Path, kind: str, via: str) -> None:
    """All digests of the bundle are right but for one chunk's name. The daemon sees that the layer is wrong, and which frame it is comes after."""
    if via == "pull" and kind.endswith("containerd"):
        pytest.skip("the containerd store insists on TLS to pull")
    with daemon_of(kind, tmp_path) as daemon:
        words = ["import", str(BROKEN / "other-content" / "bundle"), "zoo/plain:1", "--via", via]
        command = [sys.executable, "-m", "transfer", *words, "--store", str(tmp_path / "store")]
        environment = {**os.environ, "DOCKER_HOST": daemon.host}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 13, done.stderr
        assert "frame 0 at byte 16: a chunk does not match its name" in done.stderr
        assert not daemon.ids()


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_daemon_holds_goes_out_and_in_again(bundle: tuple[Path, str], tmp_path: Path, kind: str) -> None:
    folder, identity = bundle
    with daemon_of(kind, tmp_path) as daemon:
        transfer(daemon, "import", folder)
        before = daemon.ids()
        done = transfer(daemon, "export", engines.SMALL_IMAGE, "-o", tmp_path / "again")
        assert done["images"][0]["config_digest"] == identity  # type: ignore[index]
        daemon.remove_all()
        transfer(daemon, "import", tmp_path / "again")
        assert daemon.ids() == before
