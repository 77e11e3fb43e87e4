"""A real containerd: the conformance suites, names, what is whole and what only says so, and how Kubernetes sees it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.sinks import HeldContent, Place, SinkSuite, saved_suite
from tests.conformance.sources import OpenedSource, SourceSuite, suite_images
from tests.conformance.test_sinks import digest, listed
from tests.e2e.test_podman import liar
from tests.support import engines
from tests.support.gzipped import GZIP_LAYER, tar, zlib_stream
from tests.support.run import run, says
from tests.support.specimens import BROKEN
from tests.support.zoo import Layout, layer, noise
from tests.unit.test_artifacts import everything
from transfer.engines.containerd import ContainerdSource
from transfer.engines.containerd_sink import ContainerdSink
from transfer.engines.ctr import Ctr

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", params=["1.6", "2"])
def ctr(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """This machine's, and the one that comes with the Docker of a newer Debian."""
    engines.promised("containerd" if request.param == "1.6" else "docker28")
    root = None if request.param == "1.6" else engines.docker28_root()
    with engines.containerd(tmp_path_factory.mktemp("containerd"), root=root) as words:
        said(words, "namespaces", "create", "default")  # whichever test is the first here
        yield words


@pytest.fixture(autouse=True)
def here(ctr: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CONTAINERD_ADDRESS", ctr[2])
    if "/" in ctr[0]:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/ctr").symlink_to(ctr[0])
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    yield
    for space in said(ctr, "namespaces", "ls", "-q").split():
        names = said(ctr, "-n", space, "images", "ls", "-q").split()
        if names:
            said(ctr, "-n", space, "images", "rm", *names)
    engines.collect(ctr)  # also what a failed import left and no name held


def said(ctr: list[str], *words: str) -> str:
    return subprocess.run([*ctr, *words], capture_output=True, text=True, check=True).stdout


def named(ctr: list[str], space: str = "default") -> dict[str, str]:
    rows = [line.split() for line in said(ctr, "-n", space, "images", "ls").splitlines()[1:]]
    return {row[0]: row[2] for row in rows}


def bundle(folder: Path, layout: Layout, name: str = "b") -> Path:
    layout.write(folder / f"{name}.oci")
    run("export", "--from", f"oci:{folder / name}.oci", "-o", folder / name, "-q", "--no-store")
    return folder / name


def one(folder: Path, name: str, *layers: bytes, tag: str = "app:1") -> tuple[Path, Layout]:
    layout = Layout()
    layout.name(layout.image(layers), tag)
    return bundle(folder, layout, name), layout


def into(*words: object, code: int = 0) -> dict[str, object]:
    printed = run("import", *words, "--no-store", "--json", "-q", code=code)
    value = json.loads(printed) if printed else {}
    assert isinstance(value, dict)
    return value


class TestContainerdSource(SourceSuite):
    @pytest.fixture(params=["folder", "ctr"])
    def opened(
        self, request: pytest.FixtureRequest, ctr: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> OpenedSource:
        said(ctr, "images", "import", "--all-platforms", str(saved_suite(tmp_path / "a.tar")))
        if request.param == "ctr":
            monkeypatch.setattr(Ctr, "content", lambda *_: None)
        source = ContainerdSource(Ctr("default"))
        assert source.traits.ranges == (request.param == "folder")
        return OpenedSource(source, suite_images())


class TestContainerdSink(SinkSuite):
    @pytest.fixture
    def place(self, ctr: list[str]) -> Iterator[Place]:
        def holds() -> dict[str, str]:
            assert not [name for name in named(ctr) if "transfer-import" in name]
            return listed(ContainerdSource(Ctr("default")))

        yield Place(lambda _: ContainerdSink(Ctr("default")), holds, digest)


def test_there_and_back_every_digest_is_the_same(tmp_path: Path) -> None:
    """Indexes, artifacts, gzip and plain layers, names with digests; in a namespace that was not there."""
    layout, names, _ = everything()
    for name, root in names.items():
        layout.name(root, name)
    folder = bundle(tmp_path, layout)
    first = into(folder, "--to", "containerd:far.away/")
    assert {each["status"] for each in first["images"]} == {"imported"}  # type: ignore[attr-defined]
    again = into(folder, "--to", "containerd:far.away/")
    assert again["layers_sent"] == 0
    run("export", "--from", "containerd:far.away/", "*", "-o", tmp_path / "back", "-q", "--no-store")
    wanted, back = (json.loads(run("inspect", each, "--json"))["images"] for each in (folder, tmp_path / "back"))
    assert {each["digest"] for each in back} == {each["digest"] for each in wanted}
    held = {name: each["digest"] for each in wanted for name in each["names"]}
    assert {name: each["digest"] for each in back for name in each["names"]}.items() >= held.items()


def test_a_container_runs_from_it(ctr: list[str], tmp_path: Path) -> None:
    archive = engines.small_image(tmp_path)
    run("export", "--from", f"docker-archive:{archive}", "-o", tmp_path / "b", "-q", "--no-store")
    into(tmp_path / "b", "--to", "containerd:")
    words = ["run", "--rm", "--runc-binary", "runc", f"docker.io/{engines.SMALL_IMAGE}", "t1"]
    assert "tiny" in said(ctr, *words)


def test_kubernetes_sees_it_pinned_and_rm_asks_for_more(ctr: list[str], tmp_path: Path) -> None:
    folder, _ = one(tmp_path, "b", layer({"a": b"a"}))
    into(folder, "--to", "containerd:k8s.io/")
    labels = said(ctr, "-n", "k8s.io", "images", "ls")
    assert "io.cri-containerd.image=managed" in labels and "io.cri-containerd.pinned=pinned" in labels
    code, text = says("rm", "app:1", "--from", "containerd:k8s.io/", "--dry-run")
    assert code == 20 and "pinned" in text and "--pinned" in text
    code, text = says("rm", next(iter(named(ctr, "k8s.io").values()))[7:19], "--from", "containerd:k8s.io/")
    assert code == 2 and "is an ID here" in text
    run("tag", "app:1", "app:prod", "--from", "containerd:k8s.io/")
    digest = next(iter(named(ctr, "k8s.io").values()))
    tags = ["docker.io/library/app:1", "docker.io/library/app:prod"]
    assert sorted(named(ctr, "k8s.io")) == sorted([*tags, f"docker.io/library/app@{digest}"])  # as a pull leaves it
    for name in ("app:1", "app:prod"):
        run("rm", name, "--from", "containerd:k8s.io/", "--pinned")
    assert named(ctr, "k8s.io") == {}
    into(folder, "--to", "containerd:k8s.io/", "--no-pin")
    assert "pinned" not in said(ctr, "-n", "k8s.io", "images", "ls")


def test_a_delta_sends_what_is_not_there(ctr: list[str], tmp_path: Path) -> None:
    """Also a plain layer of which containerd has the gzip: that is another blob, and an image without it could never be exported."""
    base = tar(files=5)
    packed, plain = Layout(), Layout()
    packed.name(packed.image([zlib_stream(base)], plain=[base], layer_kind=GZIP_LAYER), "app:1")
    plain.name(plain.image([base, layer({"more": noise(1, 5000)})]), "app:2")
    into(bundle(tmp_path, packed, "one"), "--to", "containerd:")
    done = into(bundle(tmp_path, plain, "two"), "--to", "containerd:")
    assert done["layers_sent"] == 2
    checked = said(ctr, "images", "check").splitlines()[1:]
    assert len(checked) == 2 and all("complete (" in line and line.rstrip().endswith(" true") for line in checked)
    run("export", "--from", "containerd:", "*", "-o", tmp_path / "back", "-q", "--no-store")


def test_a_base_that_goes_meanwhile_is_sent_after_all(ctr: list[str], tmp_path: Path) -> None:
    """Collected between the plan and the import."""
    base, own = layer({"base": noise(2, 40_000)}), layer({"own": noise(3, 4000)})
    first, _ = one(tmp_path, "one", base, tag="app:1")
    second, layout = one(tmp_path, "two", base, own, tag="app:2")
    into(first, "--to", "containerd:")

    class Taking(HeldContent):
        def __init__(self) -> None:
            super().__init__()
            self.held = layout

        def open(self, descriptor, start=0):  # type: ignore[no-untyped-def]
            if "docker.io/library/app:1" in named(ctr):
                said(ctr, "images", "rm", "--sync", "docker.io/library/app:1")
            yield from super().open(descriptor, start)

    content = Taking()
    landed = ContainerdSink(Ctr("default")).put(content.image("app:2"), ["app:2"], content)
    assert (landed.status, landed.layers_sent) == ("imported", 2)
    assert list(named(ctr)) == ["docker.io/library/app:2"]
    assert "complete (3/3)" in said(ctr, "images", "check")
    run("export", "--from", "containerd:", "*", "-o", tmp_path / "back", "-q", "--no-store")
    del second


def test_what_containerd_has_of_no_name_is_no_image(ctr: list[str], tmp_path: Path) -> None:
    """An import that was killed leaves its own name; the next one takes that away, and nobody is shown it."""
    folder, layout = one(tmp_path, "b", layer({"a": b"a"}))
    root = layout.entries[0]["digest"]
    into(folder, "--to", "containerd:")
    temporary = f"localhost/transfer-import/{root.removeprefix('sha256:')}:new"
    said(ctr, "images", "tag", "docker.io/library/app:1", temporary)
    said(ctr, "images", "rm", "docker.io/library/app:1")
    assert json.loads(run("images", "--from", "containerd:", "--json"))["images"] == []
    into(folder, "--to", "containerd:")
    assert list(named(ctr)) == ["docker.io/library/app:1"]


def test_layers_that_were_thrown_away_are_told(ctr: list[str], tmp_path: Path) -> None:
    folder, layout = one(tmp_path, "b", layer({"a": b"a"}), layer({"b": b"b"}))
    into(folder, "--to", "containerd:")
    gone = json.loads(layout.blobs[layout.entries[0]["digest"]])["layers"][1]["digest"]
    engines.lose(ctr, gone)
    code, text = says("export", "--from", "containerd:", "app:1", "-o", tmp_path / "back", "--no-store")
    assert code == 20 and gone in text and "discard_unpacked_layers" in text
    assert into(folder, "--to", "containerd:")["layers_sent"] == 1
    run("export", "--from", "containerd:", "app:1", "-o", tmp_path / "back", "--no-store", "-q")


def test_a_wrong_chunk_is_refused_and_its_frame_named(ctr: list[str]) -> None:
    """All digests of the bundle are right but for one chunk's name: containerd sees it, and which frame it is comes after."""
    code, said = says("import", BROKEN / "other-content" / "bundle", "zoo/plain:1", "--to", "containerd:", "--no-store")
    assert code == 13, said
    assert "frame 0 at byte 16: a chunk does not match its name" in said
    assert named(ctr) == {}


def test_a_containerd_that_says_yes_and_has_not_is_found(
    ctr: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program in the place of ctr that takes everything and keeps nothing."""
    folder, _ = one(tmp_path, "b", layer({"a": b"a"}))
    liar(tmp_path, monkeypatch, "ctr", '*" import "*) cat >/dev/null; exit 0')
    code, said = says("import", folder, "--to", "containerd:", "--no-store")
    assert code == 20 and "does not have it" in said
    assert named(ctr) == {}


def test_a_full_disk_under_containerd_is_told_and_leaves_no_name(
    ctr: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = one(tmp_path, "b", layer({"a": noise(1, 30 << 20)}))
    (tmp_path / "small").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "t", str(tmp_path / "small")], check=True)
    try:
        root = Path(ctr[0]).parents[2] if "/" in ctr[0] else None
        with engines.containerd(tmp_path / "small", root=root) as small:
            monkeypatch.setenv("CONTAINERD_ADDRESS", small[2])
            code, said = says("import", folder, "--to", "containerd:", "--no-store")
            assert code == 23, said
            assert "free space" in said
            assert named(small) == {}
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "small")], check=True)


@pytest.mark.parametrize("ctr", ["1.6"], indirect=True, scope="module")
@pytest.mark.parametrize("after", [0.4, 0.7, 1.0])
def test_a_killed_import_leaves_what_the_next_one_completes(ctr: list[str], tmp_path: Path, after: float) -> None:
    folder, layout = one(tmp_path, "b", layer({"a": noise(1, 30 << 20)}), layer({"b": noise(2, 1 << 20)}))
    words = [sys.executable, "-m", "transfer", "import", str(folder), "--to", "containerd:", "--no-store", "-q"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=after)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert {name for name in named(ctr) if "transfer-import" not in name} <= {"docker.io/library/app:1"}
    into(folder, "--to", "containerd:")
    assert named(ctr) == {"docker.io/library/app:1": layout.entries[0]["digest"]}


def test_a_name_that_claims_another_digest_is_not_given(ctr: list[str], tmp_path: Path) -> None:
    layout = Layout()
    image = layout.image([layer({"a": b"a"})])
    layout.name(image, "app:1", "app@sha256:" + "1" * 64)
    into(bundle(tmp_path, layout), "--to", "containerd:")
    assert list(named(ctr)) == ["docker.io/library/app:1"]


def test_names_that_move_are_told_and_may_stay(ctr: list[str], tmp_path: Path) -> None:
    first, _ = one(tmp_path, "one", layer({"a": b"a"}))
    second, layout = one(tmp_path, "two", layer({"a": b"b"}))
    into(first, "--to", "containerd:")
    code, text = says("import", second, "--to", "containerd:", "--no-store", "--keep-tags")
    assert code != 0 and "app:1" in text
    code, text = says("import", second, "--to", "containerd:", "--no-store")
    assert code == 0 and "app:1" in text
    assert named(ctr) == {"docker.io/library/app:1": layout.entries[0]["digest"]}


def test_who_answers_is_told(ctr: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = says("images", "--from", "containerd:nowhere/")
    assert code == 10 and "default" in text
    code, text = says("images", "--from", "containerd:no way/")
    assert code == 2
    monkeypatch.setenv("CONTAINERD_ADDRESS", str(tmp_path / "none.sock"))
    code, text = says("images", "--from", "containerd:")
    assert code == 20 and "none.sock" in text
    monkeypatch.setenv("CONTAINERD_ADDRESS", ctr[2])
    monkeypatch.setenv("CONTAINERD_NAMESPACE", "other")
    code, text = says("images", "--from", "containerd:")
    assert code == 10 and "other" in text


def test_images_for_other_platforms_are_kept_and_not_unpacked(ctr: list[str], tmp_path: Path) -> None:
    layout = Layout()
    layout.name(layout.image([layer({"a": b"a"})], arch="s390x"), "far:1")
    into(bundle(tmp_path, layout), "--to", "containerd:")
    assert list(named(ctr)) == ["docker.io/library/far:1"]
    run("export", "--from", "containerd:", "far:1", "-o", tmp_path / "back", "--no-store", "-q")
