"""Mirrors: whom podman's, Docker's and containerd's files say to ask, and what happens when a mirror fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fakeregistry import FakeRegistry, Fault
from tests.support.run import run, says
from tests.unit.test_registry import images
from transfer.engines import endpoints
from transfer.engines.endpoints import Blocked
from transfer.errors import UsageError
from transfer.model import Reference

Write = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transfer.engines.http.FIRST_PAUSE", 0.01)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes files of a host of its own."""
    monkeypatch.delenv("CONTAINERS_REGISTRIES_CONF", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(endpoints, "SYSTEM", tmp_path / "etc/containers/registries.conf")
    monkeypatch.setattr(endpoints, "DAEMON", tmp_path / "etc/docker/daemon.json")
    monkeypatch.setattr(endpoints, "CONTAINERD", tmp_path / "etc/containerd/certs.d")

    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")

    return write


def asked(name: str) -> list[str]:
    return [f"{each.host}/{each.path}" for each in endpoints.endpoints(Reference.parse(name))]


CASES = """
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "first:5000"
[[registry.mirror]]
location = "second:5000/hub"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "third:5000"
pull-from-mirror = "tag-only"

[[registry]]
prefix = "docker.io/team/app"
location = "internal:5000/apps"

[[registry]]
prefix = "*.example.com"
[[registry.mirror]]
location = "wild:5000"

[[registry]]
prefix = "old.hq"
location = "new.hq"
mirror-by-digest-only = true
[[registry.mirror]]
location = "m.hq"

[[registry]]
prefix = "bad.hq"
location = "bad.hq"
blocked = true
"""
DIGEST = "@sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nginx:1", ["first:5000/library/nginx", "third:5000/library/nginx", "docker.io/library/nginx"]),
        (f"nginx{DIGEST}", ["first:5000/library/nginx", "second:5000/hub/library/nginx", "docker.io/library/nginx"]),
        ("team/app:1", ["internal:5000/apps"]),
        ("team/app/sub:1", ["internal:5000/apps/sub"]),
        ("team/apple:1", ["first:5000/team/apple", "third:5000/team/apple", "docker.io/team/apple"]),
        ("a.example.com/x:1", ["wild:5000/x", "a.example.com/x"]),
        ("example.com/x:1", ["example.com/x"]),
        ("old.hq/x:1", ["new.hq/x"]),
        (f"old.hq/x{DIGEST}", ["m.hq/x", "new.hq/x"]),
        ("other.hq/x:1", ["other.hq/x"]),
    ],
)
def test_registries_conf_is_read_as_podman_reads_it(name: str, expected: list[str], root: Write) -> None:
    root("etc/containers/registries.conf", CASES)
    assert asked(name) == expected


def test_what_is_blocked_is_not_asked(root: Write) -> None:
    root("etc/containers/registries.conf", CASES)
    with pytest.raises(Blocked, match=r"bad\.hq"):
        asked("bad.hq/x")


def test_a_drop_in_replaces_an_entry_and_the_users_file_the_hosts(root: Write) -> None:
    root("etc/containers/registries.conf", CASES)
    root("etc/containers/registries.conf.d/50.conf", '[[registry]]\nprefix="old.hq"\nlocation="newest.hq"\n')
    assert asked("old.hq/x") == ["newest.hq/x"]
    root(
        "home/.config/containers/registries.conf",
        '[[registry]]\nlocation="a.hq"\n[[registry.mirror]]\nlocation="b.hq"\n',
    )
    assert asked("a.hq/x") == ["b.hq/x", "a.hq/x"]
    assert asked("nginx") == ["docker.io/library/nginx"]


def test_docker_asks_its_mirrors_for_docker_hub_alone(root: Write) -> None:
    root("etc/docker/daemon.json", json.dumps({"registry-mirrors": ["http://10.0.0.5:5000/", "https://m.hq/prefix/"]}))
    assert asked("nginx") == ["10.0.0.5:5000/library/nginx", "m.hq/prefix/library/nginx", "docker.io/library/nginx"]
    assert endpoints.endpoints(Reference.parse("nginx"))[0].plain
    assert asked("quay.io/x") == ["quay.io/x"]


def test_containerds_files(root: Write) -> None:
    root(
        "etc/containerd/certs.d/docker.io/hosts.toml",
        'server = "https://registry-1.docker.io"\n[host."http://10.0.0.5:5000"]\ncapabilities = ["pull", "resolve"]\n'
        '[host."https://digests.hq"]\ncapabilities = ["pull"]\nca = "ca.pem"\n',
    )
    root("etc/containerd/certs.d/_default/hosts.toml", 'server = "http://only.hq:5000"\n')
    root("etc/containerd/certs.d/odd.hq_444_/hosts.toml", '[host."https://odd.mirror"]\n')
    assert asked("nginx:1") == ["10.0.0.5:5000/library/nginx", "docker.io/library/nginx"]
    found = endpoints.endpoints(Reference.parse(f"nginx{DIGEST}"))
    assert [each.host for each in found] == ["10.0.0.5:5000", "digests.hq", "docker.io"]
    assert (found[0].namespace, found[1].authorities[0].name, found[2].namespace) == ("docker.io", "ca.pem", "")
    assert asked("any.hq/x:1") == ["only.hq:5000/x"]
    assert endpoints.endpoints(Reference.parse("any.hq/x"))[0].namespace == "any.hq"
    assert asked("odd.hq:444/x") == ["odd.mirror/x", "odd.hq:444/x"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("etc/containers/registries.conf", "[[registry]\n"),
        ("etc/containers/registries.conf", "[[registry]]\ninsecure = true\n"),
        ("etc/containers/registries.conf", '[[registry]]\nprefix="docker.io"\nlocation="a b/../x"\n'),
        ("etc/containers/registries.conf", "\xff"),
        ("etc/docker/daemon.json", "{"),
        ("etc/containerd/certs.d/docker.io/hosts.toml", "x"),
        ("etc/containerd/certs.d/docker.io/hosts.toml", 'server = "http://["'),
    ],
)
def test_a_file_that_is_none_is_named(path: str, text: str, root: Write) -> None:
    root(path, text)
    with pytest.raises(UsageError, match=r"registries.conf|daemon.json|hosts.toml|mirror"):
        asked("nginx")


def test_a_mirror_that_fails_is_passed_over(root: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Down, without the tag, with wrong bytes: each time the next place is asked, and the digests are the same."""
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "etc/containers/registries.conf"))
    empty, wrong, whole = FakeRegistry(), FakeRegistry(), FakeRegistry()
    for each in (wrong, whole):
        each.hold(images(), lambda name: (name.partition(":")[0], name.partition(":")[2]))
    wrong.faults += [Fault("GET", "/blobs/", "503", 99)]
    with empty.running(), wrong.running(), whole.running():
        mirrors = "".join(
            f'[[registry.mirror]]\nlocation="{host}"\ninsecure=true\n'
            for host in ("127.0.0.1:1", empty.host, wrong.host)
        )
        root(
            "etc/containers/registries.conf",
            f'[[registry]]\nprefix="reg.hq"\nlocation="{whole.host}"\ninsecure=true\n{mirrors}',
        )
        code, said = says("export", "docker://reg.hq/app/one:1", "-o", tmp_path / "b", "--no-store")
        assert code == 0, said
        assert f"reg.hq through {wrong.host}" in said
        image = json.loads(run("inspect", tmp_path / "b", "--json"))["images"][0]
        assert image["names"] == ["reg.hq/app/one:1"]
        assert image["digest"] == whole.names()["app/one:1"]
        assert empty.asked and wrong.asked and any("/blobs/" in path for _, path in whole.asked)
        code, said = says("export", "docker://reg.hq/app/one:1", "-o", tmp_path / "c", "--no-store", "--no-mirrors")
        assert code == 21, said
