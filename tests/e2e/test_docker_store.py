"""A Docker with the containerd store as a source: read in its content folder, every digest kept, and what is not all there is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_docker import daemon_of
from tests.e2e.test_registry import images_of
from tests.support import engines
from tests.support.gzipped import GZIP_LAYER, tar, zlib_stream
from tests.support.run import run, says
from tests.support.zoo import Layout, layer, zoo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.xdist_group("docker_store")]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Daemon]:
    with daemon_of("28 containerd", tmp_path_factory.mktemp("daemon")) as daemon:
        yield daemon


@pytest.fixture(autouse=True)
def empty(daemon: engines.Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DOCKER_HOST", daemon.host)
    yield
    daemon.remove_all()


def test_every_digest_comes_back_also_of_an_index_with_one_platform(daemon: engines.Daemon, tmp_path: Path) -> None:
    zoo(big=True).write(tmp_path / "oci")
    run("export", "--from", f"oci:{tmp_path}/oci", "-o", tmp_path / "b", "-q", "--no-store")
    code, said = says("import", tmp_path / "b", "-q", "--no-store")
    assert code == 3 and "1 of 9 images" in said and "zoo/odd:1" in said  # whose layers are no tars
    there = daemon.ids()
    code, said = says("export", "*", "-o", tmp_path / "files", "--no-store")
    assert code == 0 and "directly from" in said
    back = images_of(tmp_path / "files")
    assert back == there
    assert {name: digest for name, digest in images_of(tmp_path / "b").items() if name in back} == back
    names = {each: image["absent"] for image in _images(tmp_path / "files") for each in image["names"]}
    assert names["zoo/multi:1"], "the platform that the bundle lacked is still lacking"
    run("export", "*", "-o", tmp_path / "api", "-q", "--no-store", "--via", "api")
    assert images_of(tmp_path / "api").items() <= back.items()


def _images(bundle: Path) -> list[dict[str, list[str]]]:
    found = json.loads(run("inspect", bundle, "--json"))["images"]
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("via", ["auto", "api"])
def test_an_image_that_is_not_all_there_is_told(daemon: engines.Daemon, tmp_path: Path, via: str) -> None:
    """`docker save` of it ends well, with an archive that lacks the layer."""
    plain = [tar(files=3), layer({"own": b"own" * 1000})]
    layout = Layout()
    layout.name(layout.image([zlib_stream(each) for each in plain], plain=plain, layer_kind=GZIP_LAYER), "gone:1")
    layout.write(tmp_path / "oci")
    run("export", "--from", f"oci:{tmp_path}/oci", "-o", tmp_path / "b", "-q", "--no-store")
    run("import", tmp_path / "b", "-q", "--no-store")
    manifest = json.loads(layout.blobs[layout.entries[0]["digest"]])
    lost = manifest["layers"][1]["digest"]
    socket = Path(daemon.host.removeprefix("unix://")).parent / "exec/containerd/containerd.sock"
    engines.lose(["ctr", "-a", str(socket), "-n", "moby"], lost)
    code, said = says("export", "gone:1", "-o", tmp_path / "again", "--no-store", "--via", via)
    assert code == 20, said
    assert "gone:1" in said and "not all there" in said
    assert lost in said or via == "api"
    run("import", tmp_path / "b", "-q", "--no-store")
    run("export", "gone:1", "-o", tmp_path / "again", "-q", "--no-store", "--via", via)
