"""Exports out of a daemon's own files: the same bundles as from what it saves, and its API where that cannot be."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.sinks import saved_suite
from tests.conformance.sources import NAMES
from tests.e2e.test_docker import daemon_of
from tests.support import engines
from tests.support.run import files, run, says

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Daemon]:
    engines.promised("docker")
    folder = tmp_path_factory.mktemp("daemon")
    with daemon_of("20.10", folder) as daemon:
        daemon.load(saved_suite(folder / "a.tar"))
        daemon.load(engines.small_image(folder))
        yield daemon


def export(daemon: engines.Daemon, bundle: Path, *words: object, code: int = 0) -> str:
    found, text = says(
        "export", *NAMES, engines.SMALL_IMAGE, "--no-store", "-o", bundle, *words, env=daemon.environment()
    )
    assert found == code, text
    return text


def test_the_files_give_the_bundle_that_a_saved_archive_gives(daemon: engines.Daemon, tmp_path: Path) -> None:
    assert "reading layers directly" in export(daemon, tmp_path / "files")
    archive = tmp_path / "saved.tar"
    command = ["docker", "save", "-o", str(archive), *NAMES, engines.SMALL_IMAGE]
    subprocess.run(command, check=True, env=daemon.environment())
    run("export", "--from", f"docker-archive:{archive}", "--no-store", "-q", "-o", tmp_path / "archive")
    assert files(tmp_path / "files") == files(tmp_path / "archive")


def test_the_api_gives_the_same_images(daemon: engines.Daemon, tmp_path: Path) -> None:
    assert "reading layers directly" not in export(daemon, tmp_path / "api", "--via", "api")
    export(daemon, tmp_path / "files", "--via", "files")
    shown = [json.loads(run("inspect", tmp_path / each, "--json"))["images"] for each in ("api", "files")]
    assert shown[0] == shown[1]


def test_where_the_files_are_odd_the_daemon_is_asked(daemon: engines.Daemon, tmp_path: Path) -> None:
    root = Path(daemon.get("/info")["DockerRootDir"])
    record = next((root / "image/overlay2/layerdb/sha256").iterdir()) / "cache-id"
    hidden = record.with_name("hidden")
    record.rename(hidden)
    try:
        text = export(daemon, tmp_path / "b")
        assert str(record) in text
        assert "through the daemon" in text
        assert "--via api" in export(daemon, tmp_path / "c", "--via", "files", code=20)
    finally:
        hidden.rename(record)
    assert json.loads(run("verify", tmp_path / "b", "--deep", "--json"))["sound"]


def test_a_file_that_went_is_told(daemon: engines.Daemon, tmp_path: Path) -> None:
    """As when someone removes an image while it is read."""
    root = Path(daemon.get("/info")["DockerRootDir"])
    gone = next(path for path in (root / "overlay2").glob("*/diff/etc/base") if path.is_file())
    hidden = gone.with_name("hidden")
    gone.rename(hidden)
    try:
        text = export(daemon, tmp_path / "b", code=20)
        assert "cannot be put together again" in text
        assert "--via api" in text
    finally:
        hidden.rename(gone)
    export(daemon, tmp_path / "b")
    assert json.loads(run("verify", tmp_path / "b", "--deep", "--json"))["sound"]


def test_a_daemon_without_such_files_says_so(tmp_path: Path) -> None:
    engines.promised("docker28")
    with daemon_of("28 containerd", tmp_path) as other:
        code, text = says("export", "x", "--via", "files", "-o", tmp_path / "b", env=other.environment())
        assert code == 20
        assert "overlay2" in text


def test_a_way_that_is_none_is_a_wrong_argument(tmp_path: Path) -> None:
    environment = {**os.environ, "DOCKER_HOST": "unix:///none"}
    for words in (["--via", "pull"], ["--via", "files", "--from", f"oci:{tmp_path}"]):
        code, text = says("export", "x", *words, "-o", tmp_path / "b", env=environment)
        assert code == 2, text
        assert "--via" in text
