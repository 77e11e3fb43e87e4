"""The whole road over files: export, verify, import, and the same again."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.run import alone, files, run, says
from tests.support.specimens import flip
from tests.support.zoo import Layout, layer, noise, zoo
from transfer.bundle.reader import Bundle
from transfer.bundle.rebuild import BlobReader
from transfer.cli.demo import make_layout
from transfer.engines.index import REF_NAME
from transfer.errors import Damaged
from transfer.work import Pool


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layout")
    make_layout(folder)
    return folder


@pytest.mark.parametrize("kind", ["oci", "docker-archive", "oci-archive"])
def test_images_go_through_every_kind_of_file_unchanged(layout: Path, tmp_path: Path, kind: str) -> None:
    bundle = tmp_path / "b"
    done = json.loads(run("export", "--from", f"oci:{layout}", "-o", bundle, "--json", "-q"))
    assert len(done["images"]) == 4
    run("import", bundle, "--to", f"{kind}:{tmp_path / 'out'}", "-q")
    again = tmp_path / "again"
    run("export", "--from", f"{kind}:{tmp_path / 'out'}", "-o", again, "-q")
    first, second = (json.loads(run("inspect", each, "--json"))["images"] for each in (bundle, again))
    assert first == second


def test_the_same_export_gives_the_same_bytes(layout: Path, tmp_path: Path) -> None:
    for name, jobs in (("a", 1), ("b", 2)):
        run("export", "--from", f"oci:{layout}", "-o", tmp_path / name, "-q", "--jobs", jobs)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_second_import_sends_nothing(layout: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "b"
    run("export", "--from", f"oci:{layout}", "-o", bundle, "-q")
    run("import", bundle, "--to", f"oci:{tmp_path / 'out'}", "-q")
    before = files(tmp_path / "out")
    done = json.loads(run("import", bundle, "--to", f"oci:{tmp_path / 'out'}", "-q", "--json"))
    assert (done["bytes_unpacked"], done["layers_sent"]) == (0, 0)
    assert {image["status"] for image in done["images"]} == {"present"}
    assert files(tmp_path / "out") == before


def test_damage_is_found_by_both_checkers(layout: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "b"
    run("export", "--from", f"oci:{layout}", "-o", bundle, "-q")
    run("verify", bundle, "--deep")
    assert alone(bundle) == 0
    for path in sorted((bundle / "blobs" / "sha256").iterdir()):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        run("verify", bundle, code=13)
        assert alone(bundle) == 13
        path.unlink()
        if _is_pack(data):
            assert not json.loads(run("verify", bundle, "--json", code=14))["sound"]
        else:
            run("verify", bundle, code=10)
        path.write_bytes(data)
    run("verify", bundle)


def _is_pack(data: bytes) -> bool:
    return data[:4] == b"\x89TPK"


def test_a_flipped_bit_is_found_before_it_goes_out(tmp_path: Path) -> None:
    """In a stored frame nothing but the CRC tells, as long as chunks are not compared with their names."""
    layout = Layout()
    layout.name(layout.image([layer({"data": noise(1, 1 << 20)})]), "app:1")
    layout.write(tmp_path / "oci")
    run("export", "--from", f"oci:{tmp_path}/oci", "-o", tmp_path / "b", "-q", "--no-store")
    with Bundle(tmp_path / "b") as bundle, Pool(0, "test") as pool:
        digest = bundle.images[0].layers[0].digest
        stream = BlobReader(bundle, [digest], pool=pool, jobs=1, checked=False).open(digest)
        path = bundle.path_of(bundle.header.packs[0])
        flip(path, path.stat().st_size // 2)
        with pytest.raises(Damaged, match=r"frame 0 at byte 16: the frame is damaged \(CRC\)"):
            while stream.read(1 << 20):
                pass


def test_retag_and_choice(layout: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "b"
    run("export", "--from", f"oci:{layout}", "demo/app:*", "-o", bundle, "-q")
    run("import", bundle, "demo/app:1", "--to", f"oci:{tmp_path / 'o'}", "--retag", "demo/app:1=mine:2", "-q")
    listed = json.loads(run("images", "--from", f"oci:{tmp_path / 'o'}", "--json"))["images"]
    assert [image["names"] for image in listed] == [["mine:2"]]
    run("import", bundle, "nothing", "--to", f"oci:{tmp_path / 'o'}", code=10)
    wrong = ["import", bundle, "--to", f"oci:{tmp_path / 'x'}", "-q", "--retag", "demo/app:1=mine:2"]
    run(*wrong, "--retag", "demo/app:1=mine:3", code=2)
    run(*wrong, "--retag", "demo/ap:1=mine:3", code=2)


def test_wrong_arguments_say_what_to_do(tmp_path: Path) -> None:
    run("export", "--from", "ftp:x", code=2)
    run("inspect", tmp_path, code=10)
    run("nonsense", code=2)
    run("export", "--from", f"oci:{tmp_path}", code=10)


def test_a_platform_is_picked_from_a_multi_platform_image(tmp_path: Path) -> None:
    run("export", "--from", f"oci:{zoo().write(tmp_path / 'o')}", "zoo/multi:1", "-o", tmp_path / "b", "-q")
    for wanted, layers in (("linux/amd64", 2), ("linux/arm64", 1)):
        target = tmp_path / f"{layers}.tar"
        run("import", tmp_path / "b", "--to", f"docker-archive:{target}", "--platform", wanted, "-q")
        with tarfile.open(target) as archive:
            saved = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert [len(each["Layers"]) for each in saved] == [layers]
    target = tmp_path / "none.tar"
    run("import", tmp_path / "b", "--to", f"docker-archive:{target}", "--platform", "linux/riscv64", code=10)
    assert not target.exists()
    run(
        "export",
        "--from",
        f"oci:{tmp_path / 'o'}",
        "zoo/multi:1",
        "--platform",
        "linux/arm64",
        "-o",
        tmp_path / "c",
        "-q",
    )
    image = json.loads(run("inspect", tmp_path / "c", "--json"))["images"][0]
    assert image["platforms"] == ["linux/arm64"]
    assert image["digest"] == json.loads(run("inspect", tmp_path / "b", "--json"))["images"][0]["digest"]


def test_an_import_destroys_nothing_that_lies_there(layout: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "b"
    run("export", "--from", f"oci:{layout}", "-o", bundle, "-q")
    run("import", bundle, "--to", f"oci:{bundle}", code=2)
    run("verify", bundle, "--deep", "-q")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("elsewhere")
    for target in (tmp_path / "fifo", tmp_path / "link", tmp_path, "."):
        run("import", bundle, "--to", f"docker-archive:{target}", code=2)
    assert (tmp_path / "fifo").is_fifo()


def test_two_images_never_land_under_one_name(layout: Path, tmp_path: Path) -> None:
    run("export", "--from", f"oci:{layout}", "demo/app:*", "-o", tmp_path / "b", "-q")
    rules = ["--retag", "demo/app:1=same:1", "--retag", "demo/app:2=same:1"]
    run("import", tmp_path / "b", "--to", f"docker-archive:{tmp_path / 'o.tar'}", *rules, code=2)
    assert not (tmp_path / "o.tar").exists()


def test_a_layout_may_have_one_name_for_several_images(layout: Path, tmp_path: Path) -> None:
    """As a source had them: image-spec#581. Each goes by its digest, and an engine takes them when they are renamed."""
    run("export", "--from", f"oci:{layout}", "-o", tmp_path / "b", "-q")
    rules = ["--retag", "demo/app:1=same:1", "--retag", "demo/app:2=same:1"]
    for _ in range(2):
        run("import", tmp_path / "b", "--to", f"oci:{tmp_path / 'o'}", *rules, "-q")
        listed = json.loads(run("images", "--from", f"oci:{tmp_path / 'o'}", "--json"))["images"]
        assert [each["names"] for each in listed].count(["same:1"]) == 2
    code, said = says("export", "--from", f"oci:{tmp_path / 'o'}", "same:1", "-o", tmp_path / "one")
    assert (code, "by its digest" in said) == (10, True)
    run("export", "--from", f"oci:{tmp_path / 'o'}", "-o", tmp_path / "all", "-q")
    first = next(each["id"][7:19] for each in listed if each["names"] == ["same:1"])
    out = f"docker-archive:{tmp_path / 'o.tar'}"
    run("import", tmp_path / "all", "--to", out, "--retag", f"{first}=another:1", "-q")


def test_an_image_that_lacks_something_is_listed_and_its_lack_told(tmp_path: Path) -> None:
    held = zoo()
    held.write(tmp_path / "o")
    config = next(d for d, data in held.blobs.items() if b"rootfs" in data and b"amd64" in data)
    (tmp_path / "o" / "blobs" / "sha256" / config[7:]).unlink()
    assert "zoo/plain:1" in run("images", "--from", f"oci:{tmp_path / 'o'}")
    code, text = says("export", "--from", f"oci:{tmp_path / 'o'}", "-o", tmp_path / "b")
    assert code == 3
    assert config in text
    left = json.loads(run("inspect", tmp_path / "b", "--json"))["images"]
    assert {each["names"][0] for each in left} == {e["annotations"][REF_NAME] for e in held.entries} - {
        "zoo/plain:1",
        "zoo/plain:latest",
    }
    assert says("export", "--from", f"oci:{tmp_path / 'o'}", "-o", tmp_path / "c", "--strict")[0] == 10
    assert not (tmp_path / "c" / "index.json").exists()


class _Daemon(BaseHTTPRequestHandler):
    """What is at a DOCKER_HOST here."""

    def answer(self, data: bytes, code: int = 200) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@contextlib.contextmanager
def _serving(handler: type[_Daemon]) -> Iterator[dict[str, str]]:
    """The environment in which it is the Docker."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield {"DOCKER_HOST": f"tcp://127.0.0.1:{server.server_address[1]}"}
        server.shutdown()


@pytest.mark.parametrize("answer", [b"nope", b"[1]", b"{}", b'{"Id":5}', b'{"ApiVersion":5}', b'"\x1b"', b"null"])
def test_a_socket_that_is_no_docker_is_told(answer: bytes, tmp_path: Path) -> None:
    class Nonsense(_Daemon):
        def do_GET(self) -> None:
            self.answer(answer)

    with _serving(Nonsense) as env:
        for words in (["images"], ["export", "x", "-o", tmp_path / "b"]):
            code, text = says(*words, env=env)
            assert code in (10, 20), text
            assert "internal error" not in text


def test_a_docker_that_breaks_off_every_image_is_told(tmp_path: Path) -> None:
    """None waits for the turn of one that was broken off."""
    layout = Layout()
    for number in range(5):
        layout.name(layout.image([layer({"data": noise(number, 8 << 20)})]), f"app:{number}")
    layout.write(tmp_path / "oci")
    run("export", "--from", f"oci:{tmp_path}/oci", "-o", tmp_path / "b", "-q", "--no-store", "--level", "1")
    begun = []

    class Breaking(_Daemon):
        def do_GET(self) -> None:
            answer = {"/version": b"{}", "/info": b"{}", "/images/json": b"[]"}.get(self.path.partition("?")[0])
            self.answer(answer or b"{}", 200 if answer else 404)

        def do_POST(self) -> None:
            begun.append(self.path)
            self.rfile.read(1 << 20)
            self.close_connection = True

    with _serving(Breaking) as env:
        code, text = says("import", tmp_path / "b", "--no-store", "--jobs", "2", env=env)
    assert code == 75, text
    assert "broke off" in text
    assert len(begun) >= 5


def test_a_docker_that_wants_every_layer_gets_them_all(tmp_path: Path) -> None:
    """What it listed is gone when the archive comes, as when somebody prunes meanwhile."""
    layout = Layout()
    held = layout.image([layer({"below": b"1"}), layer({"above": b"2"})])
    layout.name(held, "app:1")
    layout.write(tmp_path / "oci")
    run("export", "--from", f"oci:{tmp_path}/oci", "-o", tmp_path / "b", "-q", "--no-store")
    config = json.loads(layout.blobs[held["digest"]])["config"]["digest"]
    layers = json.loads(layout.blobs[config])["rootfs"]["diff_ids"]
    there = {"sha256:" + "1" * 64: layers[:1]}
    brought: list[set[str]] = []

    class Forgetful(_Daemon):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            images = [{"Id": each} for each in there if ":" in each and each != "app:1"]
            known: dict[str, object] = {"/version": {}, "/info": {}, "/images/json": images}
            ids = {each: config if each == "app:1" else each for each in there}
            known |= {f"/images/{id}/json": {"Id": ids[id], "RootFS": {"Layers": has}} for id, has in there.items()}
            self.answer(json.dumps(known.get(path, {})).encode(), 200 if path in known else 404)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if "/load" in self.path:
                with tarfile.open(fileobj=io.BytesIO(body)) as archive:
                    blobs = [file.read() for each in archive if (file := archive.extractfile(each))]
                brought.append({f"sha256:{hashlib.sha256(blob).hexdigest()}" for blob in blobs} & set(layers))
                if brought[-1] != set(layers):
                    return self.answer(b'{"error":"layer does not exist"}')
                there[config] = there["app:1"] = layers
            return self.answer(b"{}")

    with _serving(Forgetful) as env:
        code, text = says("import", tmp_path / "b", "--no-store", "--via", "load", env=env)
    assert code == 0, text
    assert "sending all layers" in text
    assert brought == [set(layers[1:]), set(layers)]


@pytest.mark.parametrize(
    "host", ["tcp://[::1", "tcp://127.0.0.1:x", "tcp://a\nb:1", "tcp://\xe9..x:1", "unix://", "ftp://x"]
)
def test_a_docker_host_that_is_no_address_is_told(host: str) -> None:
    assert says("images", env={"DOCKER_HOST": host})[0] == 2


def test_an_archive_that_does_not_decompress_is_told(tmp_path: Path) -> None:
    for start in (b"\x28\xb5\x2f\xfd", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0"):
        (tmp_path / "a").write_bytes(start + b"\xff" * 50)
        code, text = says("export", "--from", f"docker-archive:{tmp_path / 'a'}", "-o", tmp_path / "b")
        assert code == 13
        assert "does not decompress" in text
