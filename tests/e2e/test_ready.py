"""`transfer ready`: a compose file and a chart as Helm renders it, over real engines: right yes, right no, right reasons."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_docker import daemon_of
from tests.support import engines
from tests.support.podmen import podman
from tests.support.run import run, says
from tests.support.zoo import Layout, layer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

COMPOSE = """
services:
  web: {image: "app/web:1"}
  db: {image: "app/db:2"}
  job: {image: "app/job:${VERSION:-3}", profiles: [batch]}
"""
CHART = """---
# Source: web/templates/deploy.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      initContainers: [{name: wait, image: "app/db:2", imagePullPolicy: IfNotPresent}]
      containers: [{name: web, image: "app/web:1", imagePullPolicy: %s}]
"""


@pytest.fixture(params=["containerd", "podman", "docker 20.10", "docker 28 containerd"])
def engine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the images go."""
    (tmp_path / "engine").mkdir()
    if request.param == "containerd":
        engines.promised("containerd")
        with engines.containerd(tmp_path / "engine") as ctr:
            monkeypatch.setenv("CONTAINERD_ADDRESS", ctr[2])
            yield "containerd:k8s.io/"
    elif request.param == "podman":
        with podman(tmp_path / "engine") as store:
            for name, value in store.env.items():
                monkeypatch.setenv(name, value)
            yield "podman:"
    else:
        with daemon_of(request.param.removeprefix("docker "), tmp_path / "engine") as daemon:
            monkeypatch.setenv("DOCKER_HOST", daemon.host)
            yield ""


def bundle(folder: Path, name: str, images: dict[str, bytes], arch: str = "amd64") -> tuple[Path, dict[str, str]]:
    layout = Layout()
    for tag, content in images.items():
        layout.name(layout.image([layer({"content": content})], arch=arch), tag)
    layout.write(folder / f"{name}.oci")
    run("export", "--from", f"oci:{folder / name}.oci", "-o", folder / name, "-q", "--no-store")
    key = "org.opencontainers.image.ref.name"
    return folder / name, {each["annotations"][key]: each["digest"] for each in layout.entries}


def looked(engine: str, *words: object) -> tuple[int, dict[str, dict[str, object]]]:
    """The exit code, and what is said of each image."""
    code, said = says("ready", *words, *(["--to", engine] if engine else []), "--json")
    (line,) = [each for each in said.splitlines() if each.startswith("{")]
    value = json.loads(line)
    assert value["ready"] == (code == 0)
    return code, {each["name"]: each for each in value["images"]}


def put(engine: str, folder: Path, *words: object, store: Path) -> None:
    run("import", folder, *(["--to", engine] if engine else []), "--store", store, "-q", *words)


def test_what_a_compose_file_needs(engine: str, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE, encoding="utf-8")
    words = ["-f", tmp_path / "compose.yaml", "--store", tmp_path / "store"]
    first, _ = bundle(tmp_path, "first", {"app/web:1": b"web", "app/other:1": b"other"})
    second, digests = bundle(tmp_path, "second", {"app/db:2": b"db", "app/job:3": b"job"})
    code, found = looked(engine, *words, second)
    assert code == 10
    assert found.keys() == {"app/web:1", "app/db:2"}
    assert [found["app/web:1"]["bundle"], found["app/db:2"]["bundle"]] == [None, str(second)]
    assert found["app/web:1"]["reasons"] == ["is not there"]
    put(engine, first, store=tmp_path / "store")
    put(engine, second, "app/job:3", store=tmp_path / "store")
    code, found = looked(engine, *words, "--profile", "batch")
    assert code == 10
    assert {name: each["ready"] for name, each in found.items()} == {
        "app/web:1": True,
        "app/db:2": False,
        "app/job:3": True,
    }
    put(engine, second, store=tmp_path / "store")
    code, found = looked(engine, *words)
    assert code == 0
    code, said = says("ready", *words, *(["--to", engine] if engine else []))
    assert "2 images would start" in said
    newer, _ = bundle(tmp_path, "newer", {"app/web:1": b"the next web"})
    code, found = looked(engine, *words, newer)
    assert code == 0
    assert any("newest bundle" in note for note in found["app/web:1"]["notes"])  # type: ignore[attr-defined]
    keeps = engine.startswith(("containerd", "podman"))
    code, found = looked(engine, "--name", f"app/db@{digests['app/db:2']}", "--store", tmp_path / "store")
    (answer,) = found.values()
    assert code == 0 or ("digest" in str(answer["reasons"]) and not keeps)


def test_what_a_chart_needs_and_what_would_ask_the_network(engine: str, tmp_path: Path) -> None:
    for policy in ("IfNotPresent", "Always"):
        (tmp_path / f"{policy}.yaml").write_text(CHART % policy, encoding="utf-8")
    folder, _ = bundle(tmp_path, "b", {"app/web:1": b"web", "app/db:2": b"db"})
    put(engine, folder, store=tmp_path / "store")
    words = ["--store", tmp_path / "store"]
    assert looked(engine, "-f", tmp_path / "IfNotPresent.yaml", *words)[0] == 0
    code, found = looked(engine, "-f", tmp_path / "Always.yaml", *words)
    assert code == 10
    assert found["app/db:2"]["ready"]
    assert "imagePullPolicy: Always" in str(found["app/web:1"]["reasons"])


def test_another_platform_is_not_ready(engine: str, tmp_path: Path) -> None:
    folder, _ = bundle(tmp_path, "far", {"app/far:1": b"far"}, arch="s390x")
    put(engine, folder, "--platform", "linux/s390x", store=tmp_path / "store")
    code, found = looked(engine, "--name", "app/far:1", "--store", tmp_path / "store")
    assert code == 10
    assert "is for linux/s390x" in str(found["app/far:1"]["reasons"])
    assert looked(engine, "--name", "app/far:1", "--platform", "linux/s390x", "--store", tmp_path / "store")[0] == 0


def test_an_image_that_is_not_pinned_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines.promised("containerd")
    (tmp_path / "engine").mkdir()
    folder, _ = bundle(tmp_path, "b", {"app/web:1": b"web"})
    with engines.containerd(tmp_path / "engine") as ctr:
        monkeypatch.setenv("CONTAINERD_ADDRESS", ctr[2])
        put("containerd:k8s.io/", folder, "--no-pin", store=tmp_path / "store")
        code, found = looked("containerd:k8s.io/", "--name", "app/web:1", "--store", tmp_path / "store")
        assert code == 10 and "not pinned" in str(found["app/web:1"]["reasons"])
        put("containerd:k8s.io/", folder, store=tmp_path / "store")
        assert looked("containerd:k8s.io/", "--name", "app/web:1", "--store", tmp_path / "store")[0] == 0
        lost = subprocess.run([*ctr, "-n", "k8s.io", "content", "ls", "-q"], capture_output=True, text=True, check=True)
        layers = json.loads(run("inspect", folder, "--json"))["images"][0]
        assert layers
        for digest in lost.stdout.split():
            engines.lose([*ctr, "-n", "k8s.io"], digest)
        code, found = looked("containerd:k8s.io/", "--name", "app/web:1", "--store", tmp_path / "store")
        assert code == 10 and "not all there" in str(found["app/web:1"]["reasons"])


def test_nothing_runs_in_a_folder(tmp_path: Path) -> None:
    layout = Layout()
    layout.name(layout.image([layer({"a": b"a"})]), "app:1")
    layout.write(tmp_path / "oci")
    code, said = says("ready", "--name", "app:1", "--to", f"oci:{tmp_path}/oci", "--no-store")
    assert code == 2 and "nothing runs there" in said
    code, said = says("ready", "--no-store")
    assert code == 2 and "-f" in said
