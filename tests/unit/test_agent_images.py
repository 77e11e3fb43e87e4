"""The folder from which k3s, RKE2 and k0s take images: whole sets by rename, the newest last."""

from __future__ import annotations

import ctypes
import json
import os
import tarfile
from pathlib import Path

from tests.support.run import run, says
from tests.support.zoo import Layout, layer, zoo


def bundle(folder: Path, name: str, layout: Layout) -> Path:
    layout.write(folder / f"{name}.oci")
    run("export", "--from", f"oci:{folder / name}.oci", "-o", folder / name, "-q", "--no-store")
    return folder / name


def one(folder: Path, name: str, content: bytes, tag: str = "app:1") -> Path:
    layout = Layout()
    layout.name(layout.image([layer({"a": content})]), tag)
    return bundle(folder, name, layout)


def into(folder: Path, place: Path) -> dict[str, object]:
    value = json.loads(run("import", folder, "--to", f"agent-images:{place}", "--no-store", "-q", "--json"))
    assert isinstance(value, dict)
    return value


def sets(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_a_set_is_a_whole_archive_with_full_names(tmp_path: Path) -> None:
    place = tmp_path / "images"
    into(bundle(tmp_path, "b", zoo()), place)
    (name,) = sets(place)
    assert name.startswith("transfer-000001-") and name.endswith(".tar")
    with tarfile.open(place / name) as tar:
        index = tar.extractfile("index.json")
        assert index
        names = {each["annotations"].get("io.containerd.image.name") for each in json.load(index)["manifests"]}
    assert "docker.io/zoo/plain:1" in names
    run("export", "--from", f"oci-archive:{place / name}", "*", "-o", tmp_path / "back", "-q", "--no-store")


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    place = tmp_path / "images"
    folder = one(tmp_path, "b", b"a")
    into(folder, place)
    before = sets(place)
    again = into(folder, place)
    assert again["layers_sent"] == 0
    assert [each["status"] for each in again["images"]] == ["present"]  # type: ignore[attr-defined]
    assert sets(place) == before


def test_a_newer_set_stands_after_the_older_one_and_that_may_go(tmp_path: Path) -> None:
    place = tmp_path / "images"
    into(one(tmp_path, "one", b"a"), place)
    (old,) = sets(place)
    code, said = says("import", one(tmp_path, "two", b"b"), "--to", f"agent-images:{place}", "--no-store")
    assert code == 0 and old in said and "can be deleted" in said
    assert "app:1" in said  # the name moved
    names = sets(place)
    assert names[0] == old and names[1].startswith("transfer-000002-")
    code, said = says("import", tmp_path / "one", "--to", f"agent-images:{place}", "--no-store", "--keep-tags")
    assert code != 0 and "app:1" in said
    assert len(sets(place)) == 2


def test_a_watcher_sees_whole_files_alone(tmp_path: Path) -> None:
    """k3s takes a file as soon as one appears: none but the finished one may end in .tar."""
    place = tmp_path / "images"
    place.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(fd, os.fsencode(place), 0x100 | 0x80) >= 0  # created, moved here
    into(one(tmp_path, "b", b"a" * 100_000), place)
    data, seen = os.read(fd, 1 << 16), []
    os.close(fd)
    while data:
        mask, size = int.from_bytes(data[4:8], "little"), int.from_bytes(data[12:16], "little")
        seen.append((mask, data[16 : 16 + size].rstrip(b"\0").decode()))
        data = data[16 + size :]
    assert [mask for mask, name in seen if not name.startswith(".")] == [0x80]
    assert seen[-1][1] == sets(place)[0]


def test_a_failed_import_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "images"
    folder = one(tmp_path, "b", os.urandom(300_000))
    pack = max(folder.rglob("blobs/sha256/*"), key=lambda each: each.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    code, _ = says("import", folder, "--to", f"agent-images:{place}", "--no-store")
    assert code == 13
    assert sets(place) == []


def test_another_file_there_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "images"
    place.mkdir()
    (place / "vendor.tar").write_bytes(b"not ours")
    (place / "transfer-000007-0123456789ab.tar").write_bytes(b"damaged")
    code, said = says("import", one(tmp_path, "b", b"a"), "--to", f"agent-images:{place}", "--no-store")
    assert code == 0 and "transfer-000007" in said
    assert [name[:15] for name in sets(place)] == ["transfer-000007", "transfer-000008", "vendor.tar"]


def test_where_no_agent_is_the_folder_has_to_be_named(tmp_path: Path) -> None:
    folder = one(tmp_path, "b", b"a")
    code, said = says("import", folder, "--to", "agent-images:", "--no-store")
    assert code == 20 and "agent-images:DIR" in said
    code, said = says("images", "--from", "agent-images:")
    assert code == 2 and "cannot be read" in said
    (tmp_path / "file").write_text("x", encoding="utf-8")
    code, said = says("import", folder, "--to", f"agent-images:{tmp_path}/file", "--no-store")
    assert code == 2
