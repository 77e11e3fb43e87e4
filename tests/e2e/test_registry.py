"""Registries over Debian's docker-registry, looked at with skopeo."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import engines
from tests.support.run import run, says
from tests.support.zoo import zoo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    engines.promised("registry")
    with engines.registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of image but the index with an absent platform, which this registry does not accept."""
    place = tmp_path_factory.mktemp("bundle")
    zoo(big=True).write(place / "oci")
    run("export", "--from", f"oci:{place}/oci", "-o", place / "b", "-q", "--no-store")
    return place / "b"


def images_of(bundle: Path) -> dict[str, str]:
    found = json.loads(run("inspect", bundle, "--json"))["images"]
    return {name: each["digest"] for each in found for name in each["names"]}


def raw_digest(reference: str) -> str:
    done = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{reference}"], capture_output=True, check=True
    )
    return "sha256:" + hashlib.sha256(done.stdout).hexdigest()


def test_there_and_back_every_digest_is_the_same(registry: str, bundle: Path, tmp_path: Path) -> None:
    code, said = says("import", bundle, "--to", f"docker://{registry}/mirror", "--no-store")
    assert code == 3, said  # the sparse index alone
    assert "--platform all" in said and "zoo/multi:1" in said
    wanted = {name: digest for name, digest in images_of(bundle).items() if name != "zoo/multi:1"}
    for name, digest in wanted.items():
        assert raw_digest(f"{registry}/mirror/{name}") == digest
    code, said = says("import", bundle, "--to", f"docker://{registry}/mirror", "--no-store")
    assert "0 layers sent" in said
    words = ["export", "--from", f"docker://{registry}", "mirror/zoo/*", "--platform", "all"]
    run(*words, "-o", tmp_path / "back", "--no-store", "-q")
    back = images_of(tmp_path / "back")
    assert {name.removeprefix(f"{registry}/mirror/"): digest for name, digest in back.items()} == wanted
    run("verify", tmp_path / "back", "--deep", "-q")


def test_one_image_under_another_name(registry: str, bundle: Path) -> None:
    run("import", bundle, "zoo/gzip:1", "--to", f"docker://{registry}/other/name:prod", "--no-store", "-q")
    assert raw_digest(f"{registry}/other/name:prod") == images_of(bundle)["zoo/gzip:1"]
    listed = run("images", f"docker://{registry}/other/name")
    assert f"{registry}/other/name:prod" in listed


def test_what_skopeo_pushed_comes_with_its_digest(registry: str, tmp_path: Path) -> None:
    zoo().write(tmp_path / "oci")
    copy = ["skopeo", "copy", "--dest-tls-verify=false", f"oci:{tmp_path}/oci:zoo/plain:1"]
    subprocess.run([*copy, f"docker://{registry}/skopeo/plain:1"], check=True, capture_output=True)
    run("export", f"docker://{registry}/skopeo/plain:1", "-o", tmp_path / "b", "--no-store", "-q")
    found = images_of(tmp_path / "b")
    assert found == {f"{registry}/skopeo/plain:1": raw_digest(f"{registry}/skopeo/plain:1")}


def test_docker_and_podman_pull_original_names_through_what_is_served(bundle: Path, tmp_path: Path) -> None:
    """The configuration is what `transfer mirrors` writes; Docker keeps the digest, which a load never gives it."""
    engines.promised("docker")
    layout = zoo()
    for entry in layout.entries:
        name = entry["annotations"]["org.opencontainers.image.ref.name"]
        entry["annotations"]["org.opencontainers.image.ref.name"] = name.removeprefix("zoo/")
    layout.write(tmp_path / "oci")
    run("export", "--from", f"oci:{tmp_path}/oci", "gzip:1", "plain:1", "-o", tmp_path / "b", "-q", "--no-store")
    wanted = images_of(tmp_path / "b")
    words = [sys.executable, "-m", "transfer", "serve", str(tmp_path / "b"), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        url = process.stdout.readline().split()[-1]
        run("mirrors", "docker", "--url", url, "--root", tmp_path / "root", "--write")
        config = json.loads((tmp_path / "root/etc/docker/daemon.json").read_text(encoding="utf-8"))
        with engines.docker(tmp_path, more=config) as daemon:
            pull = ["docker", "pull", "-q", "gzip:1"]
            subprocess.run(pull, env=daemon.environment(), check=True, capture_output=True)
            told = daemon.get("/images/gzip:1/json")
            assert told["RepoDigests"] == [f"gzip@{wanted['gzip:1']}"]
        if shutil.which("podman"):
            _podman_pulls(url, tmp_path, wanted["plain:1"])
    finally:
        process.terminate()
        process.communicate()


def _podman_pulls(url: str, place: Path, digest: str) -> None:
    run("mirrors", "podman", "--url", url, "--root", place / "root", "--write")
    file = place / "root/etc/containers/registries.conf.d/50-transfer.conf"
    short = tempfile.mkdtemp(prefix="tp-")  # podman takes no longer path for it
    own = ["--root", str(place / "storage"), "--runroot", short, "--storage-driver", "vfs"]
    env = {**os.environ, "CONTAINERS_REGISTRIES_CONF": str(file)}
    name = "docker.io/library/plain:1"
    subprocess.run(["podman", *own, "pull", "-q", name], env=env, check=True, capture_output=True)
    shown = subprocess.run(
        ["podman", *own, "image", "inspect", name], env=env, check=True, capture_output=True, text=True
    )
    shutil.rmtree(short, ignore_errors=True)
    assert f"docker.io/library/plain@{digest}" in json.loads(shown.stdout)[0]["RepoDigests"]
