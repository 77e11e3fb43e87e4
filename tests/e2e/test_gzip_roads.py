"""Gzip layers as real tools push them: taken apart on the way out of a registry, and the same bytes in every place they come to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_docker import daemon_of
from tests.e2e.test_registry import images_of, raw_digest
from tests.support import engines
from tests.support.gzipped import tar
from tests.support.run import run
from tests.support.zoo import Layout, layer, noise
from transfer.bundle.catalog import TOGETHER
from transfer.bundle.reader import Bundle

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

WITHOUT = "import sys; sys.modules['transfer_deflate'] = None; from transfer.cli.main import run; run()"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    engines.promised("registry")
    engines.promised("deflate")
    with engines.registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layout of an image with two plain layers, one of them of more than a segment."""
    place = tmp_path_factory.mktemp("plain") / "oci"
    layout = Layout()
    layout.name(layout.image([tar(), layer({"big": noise(1, 3 << 20) * 2, "text": tar(files=20)})]), "gzip/app:1")
    layout.write(place)
    return place


def docker(daemon: engines.Daemon, *words: str) -> None:
    subprocess.run(["docker", *words], env=daemon.environment(), check=True, capture_output=True)


def push(way: str, plain: Path, name: str, folder: Path) -> None:
    """The image into a registry, by a tool that compresses it."""
    if way in ("skopeo", "podman"):
        engines.promised("podman")
        to = f"docker://{name}"
        if way == "skopeo":
            words = ["skopeo", "copy", "--dest-tls-verify=false", f"oci:{plain}:gzip/app:1", to]
        else:
            short = tempfile.mkdtemp(prefix="tp-")  # podman takes no longer path for it
            own = ["--root", str(folder / "storage"), "--runroot", short, "--storage-driver", "vfs"]
            pulled = subprocess.run(
                ["podman", *own, "pull", "-q", f"oci:{plain}:gzip/app:1"], check=True, capture_output=True, text=True
            )
            words = ["podman", *own, "push", "-q", "--tls-verify=false", pulled.stdout.split()[-1], to]
        subprocess.run(words, check=True, capture_output=True)
        return
    with daemon_of(way, folder) as daemon:
        if way == "28 containerd":  # which keeps layers as they come, so that it has to make one
            (folder / "tar").write_bytes(tar())
            docker(daemon, "import", str(folder / "tar"), name)
            docker(daemon, "push", name)
            return
        env = {"DOCKER_HOST": daemon.host}
        run("export", "--from", f"oci:{plain}", "*", "-o", folder / "b", "-q")
        run("import", folder / "b", "-q", env=env)
        docker(daemon, "tag", "gzip/app:1", name)
        docker(daemon, "push", name)


@pytest.mark.parametrize("way", ["20.10", "28 containerd", "skopeo", "podman"])
def test_from_a_registry_into_another(way: str, registry: str, plain: Path, tmp_path: Path) -> None:
    name = f"{registry}/from/{way.replace(' ', '-')}:1"
    push(way, plain, name, tmp_path)
    run("export", f"docker://{name}", "-o", tmp_path / "apart", "-q", "--no-store")
    with Bundle(tmp_path / "apart") as opened:
        recipes = [each for each in opened.catalog().recipes.values() if each.encoding == TOGETHER]
        sizes = opened.catalog().size_of
        residual = sum(sizes[n] for each in recipes for n in opened.catalog().numbers(each.parts[0].payload))
        assert len(recipes) == (1 if way == "28 containerd" else 2)
        share = 14 if way == "28 containerd" else 2000  # Debian sid may build its Docker with another Go at any time
        assert residual < sum(each.size for each in recipes) / share + 600
    run("import", tmp_path / "apart", "--to", f"docker://{registry}/back", "--no-store", "-q")
    assert raw_digest(f"{registry}/back/from/{way.replace(' ', '-')}:1") == raw_digest(name)


@pytest.fixture(scope="module")
def bundle(registry: str, plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle out of the registry, of what Docker 20.10 pushed."""
    folder = tmp_path_factory.mktemp("pushed")
    push("20.10", plain, f"{registry}/gzip/app:1", folder)
    run("export", f"docker://{registry}/gzip/app:1", "-o", folder / "apart", "-q", "--no-store")
    return folder / "apart"


def test_a_classic_docker_takes_the_plain_layers_and_needs_no_codec(bundle: Path, tmp_path: Path) -> None:
    identity = json.loads(run("inspect", bundle, "--json"))["images"][0]["config_digest"]
    with daemon_of("20.10", tmp_path) as daemon:
        environment = {**os.environ, "DOCKER_HOST": daemon.host}
        words = ["import", str(bundle), "--no-store", "--json", "-q"]
        done = subprocess.run([sys.executable, "-c", WITHOUT, *words], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["bytes_unpacked"] > 6 << 20
        assert set(daemon.ids().values()) == {identity}
        again = json.loads(run("import", bundle, "--no-store", "--json", "-q", env={"DOCKER_HOST": daemon.host}))
        assert (again["layers_sent"], again["bytes_unpacked"]) == (0, 0)


def test_a_containerd_store_gets_the_bytes_of_the_registry(bundle: Path, tmp_path: Path) -> None:
    (name, digest), *_ = images_of(bundle).items()
    with daemon_of("28 containerd", tmp_path) as daemon:
        run("import", bundle, "--no-store", "-q", env={"DOCKER_HOST": daemon.host})
        assert set(daemon.ids().values()) == {digest}
        docker(daemon, "save", name, "-o", str(tmp_path / "saved.tar"))
    run("export", "--from", f"oci-archive:{tmp_path / 'saved.tar'}", "*", "-o", tmp_path / "again", "-q", "--no-store")
    assert digest in images_of(tmp_path / "again").values()
    with Bundle(bundle) as one, Bundle(tmp_path / "again") as two:
        assert one.images[0].layers == two.images[0].layers
