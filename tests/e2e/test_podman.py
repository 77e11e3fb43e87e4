"""A real podman: the conformance suites, names and digests as after a pull from the real place, and what its storage says."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.sinks import HeldContent, Place, SinkSuite, saved_suite
from tests.conformance.sources import NAMES, OpenedSource, SourceSuite, suite_images
from tests.support import engines
from tests.support.gzipped import GZIP_LAYER, tar, zlib_stream
from tests.support.podmen import Store, podman
from tests.support.run import run, says
from tests.support.specimens import BROKEN, GOLDEN
from tests.support.zoo import Layout, layer, noise, zoo
from tests.unit.test_artifacts import everything
from transfer.engines.base import ImageSink
from transfer.engines.podman import PodmanSource, ReadWay
from transfer.engines.podman_client import RULES_VARIABLES, Podman
from transfer.engines.podman_sink import LoadWay, PodmanSink
from transfer.errors import Damaged
from transfer.flows.serving import Serving
from transfer.model import Image, Reference

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """One for each test: layers of an import that failed stay in it, and podman finds them again."""
    (tmp_path / "podman").mkdir()
    with podman(tmp_path / "podman") as store:
        for name, value in store.env.items():
            monkeypatch.setenv(name, value)
        yield store


def liar(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, case: str) -> None:
    """A program in PATH before the real one, which answers some commands itself."""
    (folder / "liar").mkdir()
    path = folder / "liar" / name
    path.write_text(f'#!/bin/sh\ncase " $* " in {case};; esac\nexec {shutil.which(name)} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")


def bundle(folder: Path, layout: Layout, name: str = "b") -> Path:
    layout.write(folder / f"{name}.oci")
    run("export", "--from", f"oci:{folder / name}.oci", "-o", folder / name, "-q", "--no-store")
    return folder / name


def into(*words: object, code: int = 0) -> dict[str, object]:
    printed = run("import", *words, "--to", "podman:", "--no-store", "--json", "-q", code=code)
    value = json.loads(printed) if printed else {}
    assert isinstance(value, dict)
    return value


def packed(layout: Layout, name: str, *plain: bytes) -> str:
    """An image of gzip layers; its manifest's digest."""
    layout.name(layout.image([zlib_stream(each) for each in plain], plain=plain, layer_kind=GZIP_LAYER), name)
    return str(layout.entries[-1]["digest"])


class TestPodmanSource(SourceSuite):
    @pytest.fixture(params=["files", "api"])
    def opened(self, request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> OpenedSource:
        way: ReadWay = request.param
        store.run("load", "--quiet", "--input", str(saved_suite(tmp_path / "a.tar")))
        for name in NAMES:  # it calls what it loads localhost/...
            store.run("tag", f"localhost/{name}", f"docker.io/{name}")
            store.run("untag", f"docker.io/{name}", f"localhost/{name}")
        source = PodmanSource(Podman(), way=way)
        assert source.traits.random_access == (way == "files")
        return OpenedSource(source, suite_images())


class TestPodmanSink(SinkSuite):
    @pytest.fixture(params=["pull", "load"])
    def place(self, request: pytest.FixtureRequest, store: Store) -> Iterator[Place]:
        way: LoadWay = request.param
        with contextlib.ExitStack() as stack:

            def opened(content: HeldContent) -> ImageSink:
                serving = Serving()
                serving.content = content
                stack.enter_context(serving.open())
                return PodmanSink(Podman(), way=way, offer=serving.offer)

            def holds() -> dict[str, str]:
                return {Reference.parse(name).familiar: digest for name, digest in store.ids().items()}

            yield Place(opened, holds, lambda image: str(image.config_digest))


def test_an_index_comes_under_its_own_name_with_every_digest(store: Store, tmp_path: Path) -> None:
    zoo(big=True).write(tmp_path / "oci")
    run("export", "--from", f"oci:{tmp_path}/oci", "-o", tmp_path / "b", "-q", "--no-store")
    code, said = says("import", tmp_path / "b", "--to", "podman:", "--no-store")
    assert code == 3 and "1 of 9 images" in said and "zoo/odd:1" in said  # whose layers are no tars
    shown = {
        name: each for each in json.loads(run("inspect", tmp_path / "b", "--json"))["images"] for name in each["names"]
    }
    for name, digest in store.ids().items():
        known = shown[Reference.parse(name).familiar]
        assert known["digest"] in store.digests(name)
        assert digest == known["config_digest"] or len(known["platforms"]) > 1
    assert len(store.ids()) == len(shown) - 1
    again = json.loads(run("import", tmp_path / "b", "--to", "podman:", "--no-store", "--json", "-q", code=3))
    assert again["layers_sent"] == 0


def test_a_plain_image_goes_there_and_back_with_its_digest(store: Store, tmp_path: Path) -> None:
    layout = Layout()
    layout.name(layout.image([tar(files=4), layer({"b": b"b"})]), "app/web:1")
    into(bundle(tmp_path, layout))
    run("export", "--from", "podman:", "app/web:1", "-o", tmp_path / "back", "-q", "--no-store")
    (image,) = json.loads(run("inspect", tmp_path / "back", "--json"))["images"]
    assert image["digest"] == layout.entries[0]["digest"]
    assert image["names"] == ["app/web:1"]


@pytest.mark.parametrize("encoder", ["go1.26--1", "go1.26-9", "zlib-6"])
def test_gzip_layers_are_made_again_where_their_encoder_is_known_so_well(
    store: Store, tmp_path: Path, encoder: str
) -> None:
    """Podman has their digest and size alone."""
    engines.promised("deflate")
    name = f"gzip/{encoder}:1"
    into(GOLDEN / "gzip", name)
    shown = {}
    for folder, via in (("auto", "auto"), ("files", "files")):
        code, said = says("export", "--from", "podman:", name, "-o", tmp_path / folder, "--no-store", "--via", via)
        assert code == 0, said
        (shown[via],) = json.loads(run("inspect", tmp_path / folder, "--json"))["images"]
        assert ("its digest is another" in said) == (shown[via]["digest"] not in store.digests(name))
    assert (shown["auto"]["digest"] in store.digests(name)) == encoder.startswith("go")
    assert shown["files"]["digest"] not in store.digests(name)
    assert shown["auto"]["config_digest"] == shown["files"]["config_digest"] == store.ids()[f"docker.io/{name}"]
    run("import", tmp_path / "auto", "--to", f"oci:{tmp_path}/oci", "-q", "--no-store")


def test_layers_that_podman_has_are_not_asked_for(store: Store, tmp_path: Path) -> None:
    base = tar(files=6)
    one, two = Layout(), Layout()
    packed(one, "app:1", base, layer({"one": b"1"}))
    packed(two, "app:2", base, layer({"two": noise(2, 5000)}))
    into(bundle(tmp_path, one, "one"))
    done = into(bundle(tmp_path, two, "two"))
    assert done["layers_sent"] == 1
    assert done["bytes_unpacked"] < 30_000  # type: ignore[operator]


def test_a_container_runs_and_its_image_cannot_be_removed(store: Store, tmp_path: Path) -> None:
    run("export", "--from", f"docker-archive:{engines.small_image(tmp_path)}", "-o", tmp_path / "b", "-q", "--no-store")
    into(tmp_path / "b")
    options = ["--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--name", "c1"]
    assert "tiny" in store.run("--cgroup-manager", "cgroupfs", "run", *options, engines.SMALL_IMAGE)
    code, text = says("rm", engines.SMALL_IMAGE, "--from", "podman:")
    assert code == 20 and "c1" in text
    code, text = says("rm", store.ids()[f"docker.io/{engines.SMALL_IMAGE}"][7:19], "--from", "podman:")
    assert code == 2 and "is an ID here" in text
    run("tag", engines.SMALL_IMAGE, "test/other:1", "--from", "podman:")
    assert len(set(store.ids().values())) == 1 and len(store.ids()) == 2
    store.run("rm", "c1")
    for name in ("test/other:1", engines.SMALL_IMAGE):
        run("rm", name, "--from", "podman:")
    assert store.ids() == {}
    code, text = says("rm", engines.SMALL_IMAGE, "--from", "podman:")
    assert code == 0 and "already gone" in text


def test_a_podman_that_says_yes_and_has_not_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in its place that takes everything and keeps nothing."""
    layout = Layout()
    layout.name(layout.image([layer({"a": b"a"})]), "app/web:1")
    folder = bundle(tmp_path, layout)
    liar(tmp_path, monkeypatch, "podman", '*" pull "*|*" load "*) cat >/dev/null; echo taken; exit 0')
    for via in ("pull", "load"):
        code, said = says("import", folder, "--to", "podman:", "--no-store", "--via", via)
        assert code == 20 and "reports success" in said


def test_a_bundle_of_which_an_image_failed_is_tried_once_in_a_run(store: Store, tmp_path: Path) -> None:
    """It stays staged, no import of another bundle tries it, and its own import again completes it."""
    first, other = Layout(), Layout()
    first.name(first.image([layer({"a": b"a"})]), "app/web:1")
    first.name(first.image([b"this is no tar" * 100]), "app/odd:1")
    packed(other, "app/other:1", layer({"b": b"b"}))
    words = ["--to", "podman:", "--store", tmp_path / "store"]
    code, said = says("import", bundle(tmp_path, first), *words)
    assert code == 3 and said.count("app/odd:1 failed") == 1 and "staged" not in said, said
    assert "1 of 2 images could not be imported" in said
    short = run("store", "ls", "--store", tmp_path / "store").splitlines()[1].split()[0]
    code, said = says("import", bundle(tmp_path, other, "other"), *words)
    assert code == 0 and "staged" not in said, said
    assert {"docker.io/app/web:1", "docker.io/app/other:1"} == set(store.ids())
    assert says("import", tmp_path / "b", *words)[0] == 3
    run("store", "drop", short, "--store", tmp_path / "store")


def half_odd(tmp_path: Path) -> Path:
    """A bundle of two images, one of which podman does not take."""
    layout = Layout()
    layout.name(layout.image([layer({"a": noise(1, 1 << 20)})]), "app/web:1")
    layout.name(layout.image([b"this is no tar" * 100]), "app/odd:1")
    return bundle(tmp_path, layout)


def test_a_bundle_that_others_build_on_can_be_given_up(store: Store, tmp_path: Path) -> None:
    """Images of it failed. Its data stays for the others, and no receipt names it."""
    first, newer = half_odd(tmp_path), Layout()
    newer.name(newer.image([layer({"a": noise(1, 1 << 20), "b": b"b"})]), "app/web:2")
    newer.write(tmp_path / "newer.oci")
    source = ["--from", f"oci:{tmp_path}/newer.oci"]
    run("export", *source, "--base", first, "-o", tmp_path / "delta", "-q", "--no-store")
    words = ["--to", "podman:", "--store", tmp_path / "store"]
    assert says("import", first, *words)[0] == 3
    short = run("store", "ls", "--store", tmp_path / "store").splitlines()[1].split()[0]
    assert says("import", tmp_path / "delta", *words)[0] == 0
    assert "is given up" in run("store", "drop", short, "--store", tmp_path / "store")
    code, said = says("import", tmp_path / "delta", *words)
    assert code == 0 and "app/odd:1" not in said, said
    run("store", "check", "--store", tmp_path / "store")
    run("export", "--from", "podman:", "app/web:2", "-o", tmp_path / "back", "-q", "--no-store")


def test_an_import_that_is_killed_is_in_no_receipt(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle is in the store before its images are in place; it counts as held when they are."""
    layout = Layout()
    packed(layout, "app/web:1", layer({"a": b"a"}))
    folder, own = bundle(tmp_path, layout), tmp_path / "store"
    with monkeypatch.context() as patch:
        liar(tmp_path, patch, "podman", '*" pull "*) sleep 60')
        words = ["import", str(folder), "--to", "podman:", "--store", str(own), "-q"]
        process = subprocess.Popen([sys.executable, "-m", "transfer", *words], start_new_session=True)
        while not list(own.glob("bundles/*.json")):
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(["pkill", "-f", f"^/bin/sh {tmp_path}/liar/podman"], check=False)
    assert store.ids() == {}
    for name, code in (("staged", 0), ("held", 0)):
        assert f"  {name}  " in run("store", "ls", "--store", own)
        run("receipt", "--site", "plant", "--store", own, "-o", tmp_path / name, code=code)
        (tmp_path / "store/site-name").unlink(missing_ok=True)
        assert len(json.loads((tmp_path / name).read_text())["bundles"]) == (name == "held")
        into_store = says("import", folder, "--to", "podman:", "--store", own)
        assert into_store[0] == 0, into_store
    assert list(store.ids()) == ["docker.io/app/web:1"]


def test_an_image_that_fails_holds_up_its_own_bundle_alone(store: Store, tmp_path: Path) -> None:
    other = Layout()
    packed(other, "app/other:1", layer({"b": b"b"}))
    (tmp_path / "in").mkdir()
    half_odd(tmp_path).rename(tmp_path / "in/1")
    bundle(tmp_path, other, "other").rename(tmp_path / "in/2")
    words = ["--done", "move", "--to", "podman:", "--store", tmp_path / "store"]
    shutil.copytree(tmp_path / "in", tmp_path / "again")
    code, said = says("import", f"spool:{tmp_path}/in", *words)
    assert code == 3 and said.count("app/odd:1 failed") == 1, said
    told = json.loads(run("import", f"spool:{tmp_path}/again", "--json", "-q", *words, code=3))
    assert told["failed"] == "some-images-failed" and len(told["bundles"]) == 2
    assert [each.name for each in (tmp_path / "in").iterdir() if not each.name.startswith(".")] == ["1"]
    assert [each.name for each in (tmp_path / "in/.done").iterdir()] == ["2"]


def test_a_full_store_is_told_and_leaves_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout()
    layout.name(layout.image([layer({"a": noise(1, 30 << 20)})]), "app/web:1")
    folder = bundle(tmp_path, layout)
    (tmp_path / "small").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "t", str(tmp_path / "small")], check=True)
    try:
        with podman(tmp_path / "small") as small:
            code, said = says("import", folder, "--to", "podman:", "--no-store", "--via", "pull", env=small.env)
            assert code == 23, said
            assert small.ids() == {}
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "small")], check=True)


def test_images_of_another_store_that_podman_reads_from(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout()
    layout.name(layout.image([tar(files=3)]), "app/web:1")
    into(bundle(tmp_path, layout))
    (tmp_path / "other").mkdir()
    with podman(tmp_path / "other") as other:
        config = tmp_path / "other/storage.conf"
        more = f'[storage.options]\nadditionalimagestores = ["{store.root}"]\n'
        config.write_text(config.read_text(encoding="utf-8") + more, encoding="utf-8")
        words = [
            "export",
            "--from",
            "podman:",
            "app/web:1",
            "-o",
            tmp_path / "back",
            "-q",
            "--no-store",
            "--via",
            "files",
        ]
        run(*words, env=other.env)
    (image,) = json.loads(run("inspect", tmp_path / "back", "--json"))["images"]
    assert image["digest"] == layout.entries[0]["digest"]


def test_what_was_built_here_is_found_by_its_short_name(store: Store, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(
        "FROM scratch\nCOPY Containerfile /made\nLABEL made=here\n", encoding="utf-8"
    )
    store.run("build", "--quiet", "--network", "none", "-t", "built:1", str(tmp_path))
    (full,) = store.ids()
    assert full == "localhost/built:1"
    for name in ("built:1", "localhost/built:1"):
        run("export", "--from", "podman:", name, "-o", tmp_path / name.replace("/", "-"), "-q", "--no-store")
    (image,) = json.loads(run("inspect", tmp_path / "built:1", "--json"))["images"]
    assert image["names"] == ["localhost/built:1"]
    assert image["config_digest"] == store.ids()[full]


def test_without_its_records_podman_is_asked(store: Store, tmp_path: Path) -> None:
    layout = Layout()
    layout.name(layout.image([tar(files=4)]), "app:1")
    into(bundle(tmp_path, layout))
    for path in (store.root / "overlay-layers").glob("*.tar-split.gz"):
        path.unlink()
    code, said = says("export", "--from", "podman:", "app:1", "-o", tmp_path / "back", "--no-store", "--via", "files")
    assert code == 10 and "tar-split" in said


def test_another_driver_is_read_through_podman(tmp_path: Path) -> None:
    layout = Layout()
    layout.name(layout.image([tar(files=4), layer({"b": b"b"})]), "app/web:1")
    folder = bundle(tmp_path, layout)
    with podman(tmp_path, "vfs") as other:
        run("import", folder, "--to", "podman:", "--no-store", "-q", env=other.env)
        run("export", "--from", "podman:", "app/web:1", "-o", tmp_path / "back", "-q", "--no-store", env=other.env)
    (image,) = json.loads(run("inspect", tmp_path / "back", "--json"))["images"]
    assert image["config_digest"] == json.loads(layout.blobs[layout.entries[0]["digest"]])["config"]["digest"]


def test_layers_that_the_config_does_not_name_are_refused(store: Store) -> None:
    """Podman takes them."""
    content = HeldContent()
    layout = content.held = Layout()
    right, wrong = layer({"a": b"a"}), layer({"a": b"b"})
    layout.name(layout.image([gzip.compress(wrong, mtime=0)], plain=[right], layer_kind=GZIP_LAYER), "app:1")
    serving = Serving()
    serving.content = content
    with serving.open():
        sink = PodmanSink(Podman(), offer=serving.offer)
        with pytest.raises(Damaged, match="config"):
            sink.put(content.image("app:1"), ["app:1"], content)
    assert store.ids() == {}


def test_layers_that_podman_itself_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As podman 5.4 refuses them: nothing else is tried, and the bundle is to blame, not the engine."""
    layout = Layout()
    layout.name(layout.image([layer({"a": b"a"})]), "app/web:1")
    folder = bundle(tmp_path, layout)
    said = """writing blob: layer 0 (blob "sha256:97"/""/"sha256:8c") does not match config's DiffID "sha256:22\""""
    (tmp_path / "said").write_text(f"Error: {said}\n", encoding="utf-8")
    liar(tmp_path, monkeypatch, "podman", f'*" pull "*) cat {tmp_path}/said >&2; exit 125')
    code, text = says("import", folder, "--to", "podman:", "--no-store")
    assert code == 13 and "not those its config names" in text and "trying a load" not in text, text


@pytest.mark.parametrize("via", ["auto", "pull", "load"])
def test_a_wrong_chunk_is_refused_and_its_frame_named(store: Store, via: str) -> None:
    """All digests of the bundle are right but for one chunk's name: podman sees that the layer is wrong, and which frame it is comes after."""
    words = [
        "import",
        BROKEN / "other-content" / "bundle",
        "zoo/plain:1",
        "--to",
        "podman:",
        "--no-store",
        "--via",
        via,
    ]
    code, said = says(*words)
    assert code == 13, said
    assert "frame 0 at byte 16: a chunk does not match its name" in said
    assert store.ids() == {}


def test_artifacts_have_no_place_there(tmp_path: Path) -> None:
    layout, names, _ = everything()
    for name, root in names.items():
        layout.name(root, name)
    statuses = {each["status"] for each in into(bundle(tmp_path, layout))["images"]}  # type: ignore[attr-defined]
    assert statuses == {"imported", "unheld"}


IN_A_MOUNT_NAMESPACE = 'mount -t tmpfs t /etc/containers/registries.conf.d && %s && exec "$@"'


def changed(setup: str, *words: object) -> subprocess.CompletedProcess[str]:
    """A transfer command on a host whose files in /etc/containers are other ones."""
    command = ["unshare", "--mount", "sh", "-c", IN_A_MOUNT_NAMESPACE % setup, "sh", sys.executable, "-m", "transfer"]
    return subprocess.run([*command, *map(str, words)], capture_output=True, text=True, check=False)


def test_the_hosts_own_rules_for_a_name_are_not_followed(store: Store, tmp_path: Path) -> None:
    """Nothing is asked of a mirror; where a rule is exactly as long as ours and would win, the image is loaded instead."""
    layout = Layout()
    layout.name(layout.image([layer({"a": b"a"})]), "app/web:1")
    folder = bundle(tmp_path, layout)
    for number, prefix in enumerate(("docker.io", "docker.io/app/web")):
        rule = f'[[registry]]\nprefix = "{prefix}"\nlocation = "127.0.0.1:1"\ninsecure = true\n'
        (tmp_path / "rule.conf").write_text(rule, encoding="utf-8")
        setup = f"cp {tmp_path}/rule.conf /etc/containers/registries.conf.d/50.conf"
        done = changed(setup, "import", folder, "--to", "podman:", "--no-store")
        assert done.returncode == 0, done.stderr
        assert ("has a rule for app/web" in done.stderr) == (number == 1)
        assert "127.0.0.1:1" not in done.stderr
        assert list(store.ids()) == ["docker.io/app/web:1"]
        store.empty()


def test_a_policy_is_not_gone_round_in_silence(store: Store, tmp_path: Path) -> None:
    layout = Layout()
    layout.name(layout.image([layer({"a": b"a"})]), "app/web:1")
    folder = bundle(tmp_path, layout)
    rule = {"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": {"": [{"type": "reject"}]}}}
    (tmp_path / "policy.json").write_text(json.dumps(rule), encoding="utf-8")
    setup = f"mount --bind {tmp_path}/policy.json /etc/containers/policy.json"
    done = changed(setup, "import", folder, "--to", "podman:", "--no-store")
    assert done.returncode == 20 and "policy" in done.stderr and "--via load" in done.stderr
    assert store.ids() == {}
    done = changed(setup, "import", folder, "--to", "podman:", "--no-store", "--via", "load")
    assert done.returncode == 0, done.stderr
    assert list(store.ids()) == ["docker.io/app/web:1"]


def test_a_full_temporary_folder_is_named(tmp_path: Path) -> None:
    layout = Layout()
    layout.name(layout.image([layer({"a": noise(1, 3 << 20)})]), "app/web:1")
    folder = bundle(tmp_path, layout)
    (tmp_path / "small").mkdir()
    script = f'mount -t tmpfs -o size=1m t {tmp_path}/small && TMPDIR={tmp_path}/small exec "$@"'
    words = ["import", folder, "--to", "podman:", "--no-store", "--via", "load"]
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-m", "transfer", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 23, done.stderr
    assert f"{tmp_path}/small" in done.stderr


@pytest.mark.parametrize("after", [0.5, 0.9, 1.3])
def test_a_killed_import_leaves_what_the_next_one_completes(store: Store, tmp_path: Path, after: float) -> None:
    layout = Layout()
    digest = packed(layout, "app/web:1", layer({"a": noise(1, 30 << 20)}), layer({"b": noise(2, 1 << 20)}))
    folder = bundle(tmp_path, layout)
    words = [sys.executable, "-m", "transfer", "import", str(folder), "--to", "podman:", "--no-store", "-q"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=after)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    time.sleep(0.5)  # podman notices that nobody answers
    into(folder)
    assert digest in store.digests("app/web:1")


def test_a_listing_that_meets_an_image_which_is_being_written_is_made_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As podman 4.3 says it of an image that another pull has just begun to write."""
    layout = Layout()
    digest = packed(layout, "app/web:1", layer({"a": b"a"}))
    folder = bundle(tmp_path, layout)
    said = 'Error: checking if image "7f" is dangling: locating item named "manifest" for image with ID "7f": file does not exist'
    (tmp_path / "said").write_text(f"{said}\n", encoding="utf-8")
    once = f"[ -e {tmp_path}/met ] || {{ : > {tmp_path}/met; cat {tmp_path}/said >&2; exit 125; }}"
    liar(tmp_path, monkeypatch, "podman", f'*" images "*) {once}')
    code, text = says("import", folder, "--to", "podman:", "--no-store")
    assert code == 0 and (tmp_path / "met").exists(), text
    assert digest in store.digests("app/web:1")


@pytest.mark.parametrize("rules", ["older", "none", "complains"])
def test_a_podman_that_would_ask_the_real_registry_is_not_asked_to_pull(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rules: str
) -> None:
    """Podman 3.0 reads its rules from another variable; one that reads none is not given the name."""
    layout = Layout()
    packed(layout, "app/web:1", layer({"a": b"a"}))
    folder = bundle(tmp_path, layout)
    gone, (newer, older) = " ".join(f"-u {each}" for each in RULES_VARIABLES), RULES_VARIABLES
    noted = f'*" pull "*) echo "$@" >> {tmp_path}/pulled;; esac; case " $* " in '
    cases = {
        "older": f'*) export {newer}="${older}"',
        "none": f'*) exec env {gone} {shutil.which("podman")} "$@"',
        "complains": f'*" info "*) if [ "${newer}" ]; then echo "Failed to parse it"; fi',
    }
    liar(tmp_path, monkeypatch, "podman", noted + cases[rules])
    if rules != "older":
        code, said = says("import", folder, "--to", "podman:", "--via", "pull", "--no-store")
        assert code == 20 and "would ask the real registry" in said, said
    code, said = says("import", folder, "--to", "podman:", "--no-store")
    assert code == 0 and ("trying a load instead" in said) == (rules != "older"), said
    assert (tmp_path / "pulled").exists() == (rules == "older")


def test_a_drop_in_with_registries_to_search_is_in_nobodys_way(store: Store, tmp_path: Path) -> None:
    layout = Layout()
    digest = packed(layout, "app/web:1", layer({"a": b"a"}))
    folder = bundle(tmp_path, layout)
    (tmp_path / "search.conf").write_text('unqualified-search-registries = ["docker.io"]\n', encoding="utf-8")
    setup = f"cp {tmp_path}/search.conf /etc/containers/registries.conf.d/"
    done = changed(setup, "import", folder, "--to", "podman:", "--no-store", "--via", "pull")
    assert done.returncode == 0, done.stderr
    assert digest in store.digests("app/web:1")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_nothing_elses(store: Store, tmp_path: Path, closed: str) -> None:
    """The file with the rules, or a pipe, would have got the number of a stream, and podman other rules than ours."""
    layout = Layout()
    digests = {name: packed(layout, name, layer({"a": name.encode()})) for name in ("app/a:1", "app/b:1", "app/c:1")}
    folder = bundle(tmp_path, layout)
    words = [sys.executable, "-m", "transfer", "import", folder, "--to", "podman:", "--no-store", "--via", "pull"]
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *map(str, words)], check=False)
    assert done.returncode == 0
    for name, digest in digests.items():
        assert digest in store.digests(name)


def test_a_podman_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "storage.conf").write_text("this is no toml", encoding="utf-8")
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(tmp_path / "storage.conf"))
    code, text = says("images", "--from", "podman:")
    assert code == 20 and "podman" in text


def test_the_image_is_as_it_was_in_every_way(store: Store, tmp_path: Path) -> None:
    """Two manifests of one config: as gzip, and plain. Each name comes out with a digest that is one of them."""
    layout = Layout()
    plain = [tar(files=3), layer({"x": b"x"})]
    one = packed(layout, "app:gzip", *plain)
    layout.name(layout.image(plain), "app:plain")
    into(bundle(tmp_path, layout))
    assert {one, str(layout.entries[-1]["digest"])} <= store.digests("app:plain")
    assert isinstance(Image, type)
