"""What `transfer mirrors` writes, read back by parsers; engines themselves are in tests/e2e."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tests.support.run import run, says


def test_docker_keeps_what_its_file_has(tmp_path: Path) -> None:
    path = tmp_path / "etc/docker/daemon.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"log-level": "warn", "registry-mirrors": ["https://old/"]}', encoding="utf-8")
    words = ["mirrors", "docker", "--url", "http://10.0.0.5:5000", "--root", tmp_path]
    assert "10.0.0.5:5000" in run(*words)
    assert "10.0.0.5" not in path.read_text(encoding="utf-8")
    for _ in range(2):
        run(*words, "--write")
        value = json.loads(path.read_text(encoding="utf-8"))
        assert value == {
            "log-level": "warn",
            "registry-mirrors": ["http://10.0.0.5:5000/", "https://old/"],
            "insecure-registries": ["10.0.0.5:5000"],
        }
    assert json.loads(path.with_name("daemon.json.before-transfer").read_text(encoding="utf-8"))[
        "registry-mirrors"
    ] == ["https://old/"]


def test_podman_and_containerd_files_are_what_their_formats_say(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\n", encoding="ascii")
    more = ["--url", "https://h:5000", "--ca", tmp_path / "ca.crt", "--root", tmp_path, "--write"]
    run("mirrors", "podman", *more, "--registry", "docker.io", "--registry", "registry.hq")
    value = tomllib.loads((tmp_path / "etc/containers/registries.conf.d/50-transfer.conf").read_text(encoding="utf-8"))
    assert [each["prefix"] for each in value["registry"]] == ["docker.io", "registry.hq"]
    assert value["registry"][1]["mirror"] == [{"location": "h:5000/registry.hq", "insecure": False}]
    assert (tmp_path / "etc/containers/certs.d/h:5000/ca.crt").is_file()
    run("mirrors", "containerd", *more)
    value = tomllib.loads((tmp_path / "etc/containerd/certs.d/_default/hosts.toml").read_text(encoding="utf-8"))
    assert value["host"]["https://h:5000"]["capabilities"] == ["pull", "resolve"]
    run("mirrors", "k3s", *more)
    assert '"*":' in (tmp_path / "etc/rancher/k3s/registries.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words",
    [
        ["nothing", "--url", "http://h"],
        ["docker", "--url", "ftp://h"],
        ["docker", "--url", 'http://h"\n[x]'],
        ["podman", "--url", "http://h/path"],
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], tmp_path: Path) -> None:
    assert says("mirrors", *words, "--root", tmp_path, "--write")[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_a_broken_file_is_named_and_left(tmp_path: Path) -> None:
    path = tmp_path / "etc/docker/daemon.json"
    path.parent.mkdir(parents=True)
    path.write_text("{", encoding="utf-8")
    code, said = says("mirrors", "docker", "--url", "http://127.0.0.1:5000", "--root", tmp_path, "--write")
    assert code == 2 and "daemon.json" in said
    assert path.read_text(encoding="utf-8") == "{"
