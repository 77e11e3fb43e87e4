"""Names and layers in real daemons: names do not move in silence, an image has every name it is said to have, and a layer is there only as itself."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_docker import KINDS, daemon_of
from tests.support import engines
from tests.support.run import run, says
from tests.support.zoo import Layout, layer, noise
from transfer.model import OCI_LAYER

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
FULL = "io.containerd.image.name"


@pytest.fixture(scope="module", params=KINDS)
def daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Daemon]:
    with daemon_of(request.param, tmp_path_factory.mktemp("daemon")) as daemon:
        yield daemon


@pytest.fixture(autouse=True)
def empty(daemon: engines.Daemon) -> Iterator[None]:
    yield
    daemon.remove_all()


def bundle(folder: Path, layout: Layout, name: str) -> Path:
    layout.write(folder / f"{name}.oci")
    run("export", "--from", f"oci:{folder / name}.oci", "-o", folder / name, "-q", "--no-store")
    return folder / name


def one(folder: Path, name: str, content: bytes, *names: str) -> Path:
    layout = Layout()
    layout.name(layout.image([layer({"content": content})]), *names)
    return bundle(folder, layout, name)


def into(daemon: engines.Daemon, *words: object, code: int = 0) -> dict[str, object]:
    """An import; its JSON."""
    said = run("import", *words, "--no-store", "--json", "-q", code=code, env={"DOCKER_HOST": daemon.host})
    value = json.loads(said) if said else {}
    assert isinstance(value, dict)
    return value


def test_a_name_that_moves_is_told(daemon: engines.Daemon, tmp_path: Path) -> None:
    first, second = one(tmp_path, "a", b"the real one", "app:1"), one(tmp_path, "b", b"another", "app:1", "app:2")
    into(daemon, first)
    old = daemon.ids()["app:1"]
    env = {"DOCKER_HOST": daemon.host}
    plan = json.loads(run("import", second, "--dry-run", "--json", "--no-store", env=env))
    assert plan["images"][0]["moves"] == [["app:1", old]]
    assert daemon.ids() == {"app:1": old}
    assert "would move" in says("import", second, "--dry-run", "--no-store", env=env)[1]
    into(daemon, second, "--keep-tags")
    assert daemon.ids()["app:1"] == old
    new = daemon.ids()["app:2"]
    assert new != old
    into(daemon, one(tmp_path, "c", b"a third", "app:1"), "--keep-tags", code=2)
    assert daemon.ids() == {"app:1": old, "app:2": new}
    code, said = says("import", second, "--no-store", env=env)
    assert (code, f"the name app:1 moved from image {old[7:19]} to" in said) == (0, True), said
    assert daemon.ids() == {"app:1": new, "app:2": new}
    assert into(daemon, second)["images"][0]["moved"] == []  # type: ignore[index]


def test_two_spellings_are_one_name(daemon: engines.Daemon, tmp_path: Path) -> None:
    layout = Layout()
    layout.name(layout.image([layer({"one": b"1"})]), "nginx")
    layout.name(layout.image([layer({"two": b"2"})]), "docker.io/library/nginx:latest")
    layout.name(layout.image([layer({"three": b"3"})]), "fine:1")
    made = bundle(tmp_path, layout, "twins")
    done = into(daemon, made, code=3)
    assert sorted(str(each["status"]) for each in done["images"]) == ["failed", "failed", "imported"]  # type: ignore[attr-defined]
    assert set(daemon.ids()) == {"fine:1"}
    digest = layout.entries[0]["digest"][7:19]
    into(daemon, made, "--retag", f"{digest}=other:1")
    assert set(daemon.ids()) == {"fine:1", "other:1", "nginx:latest"}


def test_of_one_name_for_two_platforms_the_fitting_one_gets_it(daemon: engines.Daemon, tmp_path: Path) -> None:
    layout = Layout()
    for arch in ("arm64", "amd64"):
        layout.name(layout.image([layer({"arch": arch.encode()})], arch=arch), "app:1")
    into(daemon, bundle(tmp_path, layout, "both"), code=3)
    own = daemon.get("/images/app:1/json")["Architecture"]
    assert own == daemon.get("/version")["Arch"]


def test_a_name_by_digest_is_none(daemon: engines.Daemon, tmp_path: Path) -> None:
    layout = Layout()
    held = layout.image([layer({"a": noise(1, 100)})])
    layout.entries.append({**held, "annotations": {FULL: "reg.example/team/app@sha256:" + "1" * 64}})
    code, said = says("import", bundle(tmp_path, layout, "digest"), "--no-store", env={"DOCKER_HOST": daemon.host})
    assert (code, "no name there" in said) == (0, True), said
    found = daemon.get("/images/json", all="1")
    assert len(found) == 1
    assert "transfer-import" not in json.dumps(found)


@pytest.mark.parametrize("first", ["gzip", "plain"])
def test_the_same_layers_in_another_form_are_others(daemon: engines.Daemon, tmp_path: Path, first: str) -> None:
    """In a containerd store; in a classic one they are the same. Either way the image is whole, goes out and comes in again."""
    plain = [layer({"a": noise(1, 30_000)}), layer({"b": noise(2, 20_000)})]
    layouts = {"plain": Layout(), "gzip": Layout()}
    layouts["plain"].name(layouts["plain"].image(plain), "app:plain")
    packed = [gzip.compress(each, mtime=0) for each in plain]
    layouts["gzip"].name(layouts["gzip"].image(packed, plain=plain, layer_kind=OCI_LAYER + "+gzip"), "app:gzip")
    order = [first, "plain" if first == "gzip" else "gzip"]
    for name in order:
        into(daemon, bundle(tmp_path, layouts[name], name))
        into(daemon, tmp_path / name)
    assert set(daemon.ids()) == {"app:gzip", "app:plain"}
    for name in order:
        saved = tmp_path / f"{name}.tar"
        with saved.open("wb") as file:
            subprocess.run(["docker", "save", f"app:{name}"], stdout=file, check=True, env=daemon.environment())
        run("export", "--from", f"docker-archive:{saved}", "-o", tmp_path / f"{name}.saved", "-q", "--no-store")
        env = {"DOCKER_HOST": daemon.host}
        run("export", f"app:{name}", "-o", tmp_path / f"{name}.again", "-q", "--no-store", env=env)
        before, after = (
            json.loads(run("inspect", tmp_path / each, "--json"))["images"][0] for each in (name, f"{name}.again")
        )
        assert after["config_digest"] == before["config_digest"]
        if daemon.store == "containerd":
            assert after["digest"] == before["digest"]
            assert after["layers"] == before["layers"]


def test_a_containerd_store_keeps_no_name_for_what_failed(daemon: engines.Daemon, tmp_path: Path) -> None:
    """The layers' digests are right and their content is no tar: the daemon says yes, and cannot unpack it."""
    layout = Layout()
    layout.name(layout.image([b"no tar at all" * 100]), "bad:1")
    layout.name(layout.image([layer({"fine": b"1"})]), "good:1")
    into(daemon, bundle(tmp_path, layout, "bad"), code=3)
    assert set(daemon.ids()) == {"good:1"}


def test_a_name_that_docker_cannot_take_is_told_at_the_export(daemon: engines.Daemon, tmp_path: Path) -> None:
    layout = Layout()
    layout.name(layout.image([layer({"a": b"1"})]), "Site/App:1")
    layout.name(layout.image([layer({"b": b"1"})]), "v1.0")
    layout.write(tmp_path / "l")
    code, said = says("export", "--from", f"oci:{tmp_path / 'l'}", "-o", tmp_path / "b", "--no-store")
    assert (code, "'Site/App:1' is not a name that an engine accepts" in said) == (0, True), said
    env = {"DOCKER_HOST": daemon.host}
    code, said = says("import", tmp_path / "b", "--no-store", env=env)
    assert (code, "its name v1.0 is v1.0:latest there" in said) == (3, True), said
    into(daemon, tmp_path / "b", "--retag", "Site/App:1=site/app:1", "--retag", "v1.0=app:1.0")
    assert set(daemon.ids()) == {"site/app:1", "app:1.0", "v1.0:latest"}
    into(daemon, tmp_path / "b", "v1.0", "--to", "docker-daemon:named:1")
    assert "named:1" in daemon.ids()


def test_what_is_listed_and_cannot_be_read_stops_no_other(daemon: engines.Daemon, tmp_path: Path) -> None:
    """An image without layers, as `FROM scratch` with a LABEL makes it, beside an ordinary one."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL made=here\n")
    into(daemon, one(tmp_path, "good", b"good", "b06/good:1"))
    command = ["docker", "build", "-q", "-t", "b06/meta:1", str(tmp_path)]
    built = subprocess.run(
        command, env={**daemon.environment(), "DOCKER_BUILDKIT": "0"}, capture_output=True, check=False
    )
    if built.returncode:
        pytest.skip("this daemon builds nothing")
    env = {"DOCKER_HOST": daemon.host}
    code, said = says("export", "b06/*", "-o", tmp_path / "b", "--no-store", env=env)
    names = {each["names"][0] for each in json.loads(run("inspect", tmp_path / "b", "--json"))["images"]}
    assert "b06/good:1" in names
    assert (code == 0) == ("b06/meta:1" in names), said


def test_a_name_is_given_and_taken_and_never_of_an_image_in_use(daemon: engines.Daemon, tmp_path: Path) -> None:
    into(daemon, one(tmp_path, "a", b"the image", "app:1"))
    env = {"DOCKER_HOST": daemon.host}
    run("tag", "app:1", "app:prod", "reg.hq:5000/team/app:2", env=env)
    assert set(daemon.ids()) == {"app:1", "app:prod", "reg.hq:5000/team/app:2"}
    assert len(set(daemon.ids().values())) == 1
    whole = daemon.ids()["app:1"].removeprefix("sha256:")
    for identity in (whole[:12], whole):
        code, said = says("rm", identity, env=env)
        assert code == 2, said
    docker = ["docker", "-H", daemon.host]
    subprocess.run([*docker, "create", "--name", "keeps", "app:1", "/content"], check=True, capture_output=True)
    try:
        for name in ("app:1", "app:prod"):
            code, said = says("rm", name, env=env)
            assert (code, "keeps" in said) == (20, True), said
        assert len(daemon.ids()) == 3
    finally:
        subprocess.run([*docker, "rm", "-f", "keeps"], check=True, capture_output=True)
    assert "would be removed" in run("rm", "app:1", "--dry-run", env=env)
    found = json.loads(run("rm", "app:1", "app:prod", "app:none", "--json", env=env))
    assert [each["gone"] for each in found["names"]] == [False, False, True]
    assert set(daemon.ids()) == {"reg.hq:5000/team/app:2"}
    run("rm", "reg.hq:5000/team/app:2", env=env)
    assert not daemon.ids()
    assert "already gone" in run("rm", "reg.hq:5000/team/app:2", env=env)
