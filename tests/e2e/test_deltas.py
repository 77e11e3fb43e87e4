"""Deltas between real dockerds: a full bundle, next month's delta, a hotfix; with a store, and with the engine's own images as base."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_docker import KINDS, daemon_of, transfer
from tests.support import engines
from tests.support.months import month, weight

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def files_only(*words: object) -> None:
    """A transfer command that needs no engine."""
    subprocess.run([sys.executable, "-m", "transfer", *map(str, words), "-q"], check=True)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """`jan`, `feb` on jan, `hot` on feb, exported from Docker 20.10; and the image IDs there."""
    engines.promised("docker")
    folder = tmp_path_factory.mktemp("source")
    with engines.docker(folder, name="source") as daemon:
        for number in (1, 2, 3):
            layout = month(number).write(folder / f"layout{number}")
            files_only("export", "--from", f"oci:{layout}", "-o", folder / f"b{number}", "--no-store")
            transfer(daemon, "import", folder / f"b{number}", "--no-store")
        ids = daemon.ids()
        near = ["--store", folder / "near"]
        transfer(daemon, "export", "m/*:v1", "-o", folder / "jan", *near)
        transfer(daemon, "export", "m/*:v2", "-o", folder / "feb", "--base", folder / "jan", *near)
        transfer(daemon, "export", "m/app:v3", "-o", folder / "hot", "--base", folder / "feb", *near)
    yield folder, ids


def expected(done: dict[str, object], kind: str) -> dict[str, str]:
    """What this store must call the images."""
    member = "digest" if kind.endswith("containerd") else "config_digest"
    return {name: image[member] for image in done["images"] for name in image["names"]}  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
def test_deltas_arrive_with_every_id(bundles: tuple[Path, dict[str, str]], tmp_path: Path, kind: str) -> None:
    folder, ids = bundles
    assert weight(folder / "feb") < weight(folder / "jan") / 50
    assert weight(folder / "hot") < 100_000
    with daemon_of(kind, tmp_path) as daemon:
        have: dict[str, str] = {}
        for bundle in ("jan", "feb", "hot"):
            done = transfer(daemon, "import", folder / bundle, "--store", tmp_path / "store")
            have |= expected(done, kind)
            assert {image["status"] for image in done["images"]} == {"imported"}  # type: ignore[attr-defined]
            assert all(image["config_digest"] == ids[image["names"][0]] for image in done["images"])  # type: ignore[attr-defined]
        assert daemon.ids() == have
        again = transfer(daemon, "import", folder / "hot", "--store", tmp_path / "store")
        assert (again["layers_sent"], again["bytes_unpacked"]) == (0, 0)
        value = json.loads(run("inventory", "--store", tmp_path / "store", "--json", host=daemon.host))
        assert (len(value["bundles"]), len(value["images"])) == (3, 7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_dockers_own_images_are_base_enough(
    bundles: tuple[Path, dict[str, str]], tmp_path: Path, kind: str
) -> None:
    folder, ids = bundles
    with daemon_of(kind, tmp_path) as daemon:
        transfer(daemon, "import", folder / "jan", "--no-store")
        done = transfer(daemon, "import", folder / "feb", "--no-store")
        assert {image["names"][0]: image["config_digest"] for image in done["images"]} == {  # type: ignore[attr-defined]
            name: identity for name, identity in ids.items() if name.endswith("v2")
        }
        assert daemon.ids().items() >= expected(done, kind).items()


def run(*words: object, host: str) -> str:
    command = [sys.executable, "-m", "transfer", *map(str, words)]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "DOCKER_HOST": host}
    ).stdout
