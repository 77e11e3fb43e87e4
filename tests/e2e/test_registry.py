"""Registries over Debian's docker-registry, looked at with skopeo."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.support import engines
from tests.support.fakeregistry import PERSONALITIES, FakeRegistry
from tests.support.run import run, says
from tests.support.wires import Proxy
from tests.support.zoo import Layout, layer, noise, zoo
from tests.unit.test_artifacts import everything

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


@pytest.fixture(scope="module")
def of_hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose images have names of Docker Hub."""
    place = tmp_path_factory.mktemp("hub")
    layout = zoo()
    for entry in layout.entries:
        name = entry["annotations"]["org.opencontainers.image.ref.name"]
        entry["annotations"]["org.opencontainers.image.ref.name"] = name.removeprefix("zoo/")
    layout.write(place / "oci")
    run("export", "--from", f"oci:{place}/oci", "gzip:1", "plain:1", "-o", place / "b", "-q", "--no-store")
    return place / "b"


def test_docker_pulls_original_names_through_what_is_served(of_hub: Path, tmp_path: Path) -> None:
    """The configuration is what `transfer mirrors` writes; Docker keeps the digest, which a load never gives it."""
    engines.promised("docker")
    with serving(of_hub) as url:
        run("mirrors", "docker", "--url", url, "--root", tmp_path / "root", "--write")
        config = json.loads((tmp_path / "root/etc/docker/daemon.json").read_text(encoding="utf-8"))
        with engines.docker(tmp_path, more=config) as daemon:
            pull = ["docker", "pull", "-q", "gzip:1"]
            subprocess.run(pull, env=daemon.environment(), check=True, capture_output=True)
            told = daemon.get("/images/gzip:1/json")
            assert told["RepoDigests"] == [f"gzip@{images_of(of_hub)['gzip:1']}"]


def test_podman_pulls_original_names_through_what_is_served(of_hub: Path, tmp_path: Path) -> None:
    engines.promised("podman")
    digest = images_of(of_hub)["plain:1"]
    with serving(of_hub) as url:
        run("mirrors", "podman", "--url", url, "--root", tmp_path / "root", "--write")
        file = tmp_path / "root/etc/containers/registries.conf.d/50-transfer.conf"
        short = tempfile.mkdtemp(prefix="tp-")  # podman takes no longer path for it
        own = ["--root", str(tmp_path / "storage"), "--runroot", short, "--storage-driver", "vfs"]
        env = {**os.environ, "CONTAINERS_REGISTRIES_CONF": str(file)}
        name = "docker.io/library/plain:1"
        subprocess.run(["podman", *own, "pull", "-q", name], env=env, check=True, capture_output=True)
        shown = subprocess.run(
            ["podman", *own, "image", "inspect", name], env=env, check=True, capture_output=True, text=True
        )
        shutil.rmtree(short, ignore_errors=True)
        assert f"docker.io/library/plain@{digest}" in json.loads(shown.stdout)[0]["RepoDigests"]


def test_containerd_pulls_original_names_through_what_is_served(tmp_path: Path) -> None:
    """With the hosts.toml that `transfer mirrors` writes, nothing else is asked: not for Docker Hub, and not for another registry."""
    engines.promised("containerd")
    layout = zoo()
    for entry in layout.entries:
        name = entry["annotations"]["org.opencontainers.image.ref.name"]
        entry["annotations"]["org.opencontainers.image.ref.name"] = f"reg.invalid/{name}"
    layout.write(tmp_path / "oci")
    run("export", "--from", f"oci:{tmp_path}/oci", "*/gzip:1", "*/multi:1", "-o", tmp_path / "b", "-q", "--no-store")
    wanted = images_of(tmp_path / "b")
    with serving(tmp_path / "b") as url, engines.containerd(tmp_path) as ctr:
        run("mirrors", "containerd", "--url", url, "--root", tmp_path / "root", "--write")
        hosts = ["--hosts-dir", str(tmp_path / "root/etc/containerd/certs.d")]
        for name, digest in wanted.items():
            pull = [*ctr, "images", "pull", *hosts, "--snapshotter", "native", "--platform", "linux/amd64", name]
            done = subprocess.run(pull, check=False, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            listed = subprocess.run([*ctr, "images", "ls"], check=True, capture_output=True, text=True).stdout
            assert any(line.startswith(name) and digest in line for line in listed.splitlines()), listed
        other = [*ctr, "images", "pull", *hosts, "docker.io/zoo/gzip:1"]  # held, but of another registry
        assert subprocess.run(other, check=False, capture_output=True).returncode != 0


def test_signatures_and_charts_from_registry_to_registry(registry: str, tmp_path: Path) -> None:
    """Debian's registry has no list of referrers: the tag that stands for it is written, and read."""
    layout, names, referring = everything()
    for name, root in names.items():
        layout.name(root, name)
    for root in referring:
        layout.name(root, f"app/web@{root['digest']}")
    layout.write(tmp_path / "oci")
    run("export", "--from", f"oci:{tmp_path}/oci", "-o", tmp_path / "a", "-q", "--no-store")
    run("import", tmp_path / "a", "--to", f"docker://{registry}/hq", "-q", "--no-store")
    wanted = [f"docker://{registry}/hq/{name}" for name in names if not name.endswith(".sig")]
    words = ["--platform", "all", "--referrers", "--no-store", "-q"]
    run("export", *wanted, "-o", tmp_path / "b", *words)
    run("import", tmp_path / "b", "--to", f"docker://{registry}/plant", "--no-store", "-q")
    for name, root in names.items():
        assert raw_digest(f"{registry}/plant/hq/{name}") == root["digest"], name
    for root in referring:
        assert raw_digest(f"{registry}/plant/hq/app/web@{root['digest']}") == root["digest"]
        subject = json.loads(layout.blobs[root["digest"]])["subject"]["digest"].replace(":", "-")
        index = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry}/plant/hq/app/web:{subject}"]
        kept = json.loads(subprocess.run(index, capture_output=True, check=True).stdout)
        assert [each["digest"] for each in kept["manifests"]] == [root["digest"]]
    said = run("import", tmp_path / "b", "--to", f"docker://{registry}/plant", "--no-store", "--json")
    assert {each["status"] for each in json.loads(said)["images"]} == {"present"}


@contextlib.contextmanager
def serving(bundle: Path) -> Iterator[str]:
    """The address at which a bundle is served."""
    words = [sys.executable, "-m", "transfer", "serve", str(bundle), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.communicate()


@pytest.mark.parametrize("kind", ["docker-registry 2.8", "keeps what came"])
def test_a_push_that_is_cut_twenty_times_ends_right(kind: str, registry: str, tmp_path: Path) -> None:
    """The bytes sent beyond the layers are printed: little where the registry keeps an upload that was cut, much where it forgets it."""
    layout = Layout()
    for number in range(4):
        layout.name(layout.image([layer({"data": noise(number, 6_000_000)})]), f"cut/app:{number}")
    layout.write(tmp_path / "oci")
    run("export", "--from", f"oci:{tmp_path}/oci", "-o", tmp_path / "b", "-q", "--no-store")
    wanted, size = images_of(tmp_path / "b"), sum(map(len, layout.blobs.values()))
    random = Random(20)
    keeps = FakeRegistry(PERSONALITIES["dist31"]())
    with keeps.running(), contextlib.ExitStack() as stack:
        host, port = (registry if kind.startswith("docker") else keeps.host).split(":")
        proxy = stack.enter_context(Proxy((host, int(port))))
        proxy.cut_after(*(random.randrange(200_000, 1_500_000) for _ in range(20)))
        to = ["--to", f"docker://127.0.0.1:{proxy.port}/twenty", "--plain-http", "--no-store", "-q", "--jobs", "1"]
        for _ in range(20):
            code, said = says("import", tmp_path / "b", *to)
            if code == 0:
                break
            assert code in (3, 21, 75), said
        assert code == 0, said
        print(f"{kind}: {proxy.sent} bytes sent for {size}: {proxy.sent - size} beyond")
        if kind.startswith("docker"):
            found = {name: raw_digest(f"{registry}/twenty/{name}") for name in wanted}
        else:
            found = {name.removeprefix("twenty/"): digest for name, digest in keeps.names().items()}
            assert proxy.sent < size + 20 * 600_000  # what was on the line, and the requests
    assert found == wanted
