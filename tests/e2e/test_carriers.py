"""The bundle is a plain OCI artifact: skopeo carries it through a real registry and back, and nothing of it changes."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import engines
from tests.support.run import run
from tests.support.zoo import zoo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("carriers")
    run("export", "--from", f"oci:{zoo(big=True).write(folder / 'o')}", "-o", folder / "b", "-q")
    return folder / "b"


def blobs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "blobs" / "sha256").iterdir()}


def test_sha256sum_agrees_with_every_blob_name(bundle: Path) -> None:
    for name, data in blobs(bundle).items():
        assert hashlib.sha256(data).hexdigest() == name
    paths = [str(path) for path in (bundle / "blobs" / "sha256").iterdir()]
    said = subprocess.run(["sha256sum", *paths], check=True, capture_output=True, text=True).stdout
    assert all(line.split()[0] == line.rsplit("/", 1)[1] for line in said.splitlines())


def test_through_a_registry_and_back(bundle: Path, tmp_path: Path) -> None:
    engines.promised("registry")
    if not shutil.which("skopeo"):
        pytest.skip("skopeo not installed")
    with engines.registry(tmp_path / "registry") as address:
        there = f"docker://{address}/carried/night:1"
        insecure = ["--dest-tls-verify=false"]
        copy = ["skopeo", "copy", "--preserve-digests", "--insecure-policy"]
        subprocess.run([*copy, *insecure, f"oci:{bundle}", there], check=True, capture_output=True)
        insecure = ["--src-tls-verify=false"]
        subprocess.run([*copy, *insecure, there, f"oci:{tmp_path / 'back'}"], check=True, capture_output=True)
    assert blobs(tmp_path / "back") == blobs(bundle)
    index = json.loads((tmp_path / "back" / "index.json").read_bytes())
    digest = json.loads((bundle / "index.json").read_bytes())["manifests"][0]["digest"]
    assert index["manifests"][0]["digest"] == digest
    run("verify", tmp_path / "back", "--deep", "-q")
    run("import", tmp_path / "back", "--to", f"oci:{tmp_path / 'out'}", "-q")


def test_skopeo_reads_what_an_import_wrote(bundle: Path, tmp_path: Path) -> None:
    if not shutil.which("skopeo"):
        pytest.skip("skopeo not installed")
    run("import", bundle, "--to", f"oci:{tmp_path / 'o'}", "-q")
    run("import", bundle, "zoo/plain:1", "--to", f"docker-archive:{tmp_path / 'a.tar'}", "-q")
    for place in (f"oci:{tmp_path / 'o'}:zoo/gzip:1", f"docker-archive:{tmp_path / 'a.tar'}"):
        subprocess.run(["skopeo", "inspect", place], check=True, capture_output=True)
