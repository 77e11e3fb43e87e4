"""Little that asks for much, again and again: each item is within its limit, and the sum of them is not."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.support import hostile, saved
from tests.support.hostile import carrying, changed
from tests.support.measured import measured
from tests.support.run import run, says
from tests.support.specimens import Patient
from tests.support.zoo import Layout, layer, noise
from transfer.chunks.varint import put_varints
from transfer.engines import streamed
from transfer.engines.archive import open_archive
from transfer.events import silent
from transfer.flows.export import export
from transfer.flows.select import select
from transfer.model import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST

ZEROS = bytes(4 << 20)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile.sound(tmp_path_factory.mktemp("sums"))


def shared_index(roots: int, manifests: int) -> Layout:
    """Many indexes that all name one, which names many manifests."""
    made = Layout()
    config = made.blob(saved.config([]), OCI_CONFIG)
    plain = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX}
    children = [made.document({**plain, "n": number}, OCI_MANIFEST) for number in range(manifests)]
    shared = made.document({**index, "manifests": children}, OCI_INDEX)
    made.entries = [made.document({**index, "manifests": [shared], "n": n}, OCI_INDEX) for n in range(roots)]
    return made


@pytest.mark.parametrize("form", ["folder", "tar", "tar.zst"])
def test_many_roots_of_one_large_index(form: str, tmp_path: Path) -> None:
    made = shared_index(200, 2000)
    source = f"oci:{made.write(tmp_path / 'a')}"
    if form != "folder":
        source = f"oci-archive:{saved.write(tmp_path / f'a.{form}', saved.of_layout(made), form)}"
    assert measured("images", "--from", source).code == 0
    one = measured("export", "--from", f"{source}:{made.entries[7]['digest']}", "-o", tmp_path / "b", "--no-store")
    assert one.code == 0
    everything = measured("export", "--from", source, "-o", tmp_path / "all", "--no-store", "-q")
    assert everything.code in (3, 13)
    assert "more documents than" in everything.said


@pytest.mark.parametrize("form", ["tar", "tar.gz"])
def test_one_member_that_is_named_again_and_again(form: str, tmp_path: Path) -> None:
    packed = gzip.compress(noise(1, 1 << 20))
    config = saved.config([b""] * 4000)
    large = json.dumps(json.loads(config) | {"x": 0}).encode() + b" " * (7 << 20)
    entries = [{"Config": "c.json", "RepoTags": [f"a:{n}"], "Layers": ["l"] * 4000} for n in range(5)]
    entries += [{"Config": "d.json", "RepoTags": [f"b:{n}"], "Layers": ["l"]} for n in range(3000)]
    members = [("manifest.json", json.dumps(entries).encode()), ("c.json", config), ("d.json", large), ("l", packed)]
    path = saved.write(tmp_path / f"a.{form}", members, form)
    found = measured("images", "--from", f"docker-archive:{path}")
    assert found.code in (0, 13)
    assert measured("export", "--from", f"docker-archive:{path}", "-o", tmp_path / "b", "--no-store", "-q").code in (
        3,
        13,
    )


def endless(patient: Patient) -> None:
    """A layer of 4.6 GB out of one chunk of zeros."""
    digest = b"sha256:" + b"7" * 64
    head = put_varints([1100 * len(ZEROS), 0, 0, 1, 0, 1100])
    record = b"R" + bytes([len(digest)]) + digest + head + bytes(32) * 1100 + bytes(1101)
    recatalog = patient.recatalog
    patient.recatalog = lambda records: recatalog([*records, record])  # type: ignore[method-assign]
    carrying({bytes(32): ZEROS})(patient)


def test_a_layer_without_an_end(sound: Path, tmp_path: Path) -> None:
    bomb = changed(sound, tmp_path / "b", endless)
    for words in (["verify"], ["verify", "--deep"], ["import", "--to", f"oci:{tmp_path}/o", "--no-store"]):
        found = measured(words[0], bomb, *words[1:])
        assert (found.code, "may not become" in found.said) == (13, True), found.said
    if not shutil.which("zstd") and sys.version_info < (3, 14):
        return  # the script cannot decompress here
    script = str(sound / "verify.py")
    assert "may become" in measured(bomb, "--rebuild", tmp_path / "out", script=script).said


def test_an_image_that_is_listed_twice(sound: Path, tmp_path: Path) -> None:
    def twice(patient: Patient) -> None:
        patient.header["images"].append(patient.header["images"][0])

    code, said = says("verify", changed(sound, tmp_path / "b", twice))
    assert (code, "listed twice" in said) == (13, True)


def test_a_pack_of_another_size_than_its_frames(sound: Path, tmp_path: Path) -> None:
    """A request and an answer must not make a file of 2^50 bytes of it."""

    def grown(size: int) -> hostile.Change:
        def change(patient: Patient) -> None:
            patient.header["packs"][0]["size"] = size
            digest = patient.header["packs"][0]["digest"]
            next(each for each in patient.manifest["layers"] if each["digest"] == digest)["size"] = size

        return change

    for size in (1 << 50, 100 << 20):
        bad = changed(sound, tmp_path / "b", grown(size))
        pack = json.loads(run("inspect", sound, "--json"))["digest"]
        told = {"format": "transfer.answer", "version": 1, "bundle": pack, "blobs": [], "frames": {}}
        (bad / "answer.json").write_text(json.dumps(told), encoding="utf-8")
        assert measured("verify", bad).code == 13
        assert measured("import", bad, "--to", f"oci:{tmp_path}/o", "--no-store").code == 13


def test_layers_that_stand_against_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "HOLD_ONE", 1000)
    layers = [layer({f"f{n}": noise(n, 5000)}) for n in range(7)]
    members = saved.old(("a:1", layers), ("b:1", layers[:1]))
    path = saved.write(tmp_path / "a.tar.gz", members[::-1], "tar.gz")
    source = open_archive(path)
    found = select(source, [], None, silent)
    done = export(source, found, tmp_path / "b", level=1, jobs=0, observer=silent, strict=False)
    source.close()
    assert [each.label for each in done.failed] == ["a:1"]
    assert "decompress" in (done.failed[0].error.hint or "")
    assert (tmp_path / "b" / "index.json").exists()


def test_all_that_match_are_taken_however_they_are_spelled(tmp_path: Path) -> None:
    """A name in two spellings, and a name that reads as the digest of another image."""
    made = Layout()
    first, *others = [made.image([layer({"a": b"%d" % n})]) for n in range(4)]
    made.name(first)
    for image, name in zip(others, ("nginx", "nginx:latest", first["digest"]), strict=True):
        made.name(image, name)
    run("export", "--from", f"oci:{made.write(tmp_path / 'a')}", "-o", tmp_path / "b", "-q", "--no-store")
    found = {each["digest"] for each in json.loads(run("inspect", tmp_path / "b", "--json"))["images"]}
    assert found == {first["digest"], *(each["digest"] for each in others)}


def test_a_dry_run_says_what_would_not_come(sound: Path, tmp_path: Path) -> None:
    bad = changed(sound, tmp_path / "b", hostile.saying("app:1", layers=[]))
    found = json.loads(run("import", bad, "--to", f"oci:{tmp_path}/o", "--dry-run", "--json", "--no-store"))
    assert {each["name"]: bool(each["error"]) for each in found["images"]} == {
        "app:1": True,
        "other:1": False,
        "multi:1": False,
    }


@pytest.mark.parametrize("content", [b"{}", b"\xff\x00", b"[]"])
def test_a_list_of_media_that_cannot_be_read_is_no_damage(sound: Path, tmp_path: Path, content: bytes) -> None:
    bundle = changed(sound, tmp_path / "b")
    (bundle / "medium.json").write_bytes(content)
    run("verify", bundle)
    run("import", bundle, "--to", f"oci:{tmp_path}/o", "--no-store", "-q")


@pytest.mark.parametrize("form", ["folder", "tar", "tar.gz"])
@pytest.mark.parametrize("bad", [{"digest": "sha256:" + "0" * 64, "size": 5}, 7, {"mediaType": OCI_MANIFEST}])
def test_a_malformed_entry_does_not_stop_the_others(form: str, bad: object, tmp_path: Path) -> None:
    made = Layout()
    made.name(made.image([layer({"a": b"1"})]), "good:1")
    named = {**bad, "annotations": {"org.opencontainers.image.ref.name": "bad:1"}} if isinstance(bad, dict) else bad
    made.entries.insert(0, named)  # type: ignore[arg-type]
    source = f"oci:{made.write(tmp_path / 'a')}"
    if form != "folder":
        source = f"oci-archive:{saved.write(tmp_path / f'a.{form}', saved.of_layout(made), form)}"
    code, said = says("export", "--from", source, "-o", tmp_path / "b", "--no-store")
    assert (code, "entry 1" in said) == (3, True), said
    assert ("bad:1" in said) == isinstance(bad, dict)
    (image,) = json.loads(run("inspect", tmp_path / "b", "--json"))["images"]
    assert image["names"] == ["good:1"]


@pytest.mark.parametrize("form", ["tar", "tar.gz"])
@pytest.mark.parametrize("bad", [{"Config": None}, {"Layers": ["../x"]}, {"Layers": [""]}, {"RepoTags": [5]}, 7])
def test_a_malformed_entry_of_docker_save_does_not_stop_the_others(form: str, bad: object, tmp_path: Path) -> None:
    members = saved.old(("good:1", [layer({"a": b"1"})]))
    listed = dict(members)
    entries = json.loads(listed["manifest.json"])
    entries.append({**entries[0], "RepoTags": ["bad:1"], **bad} if isinstance(bad, dict) else bad)
    listed["manifest.json"] = json.dumps(entries).encode()
    path = saved.write(tmp_path / f"a.{form}", list(listed.items()), form)
    code, said = says("export", "--from", f"docker-archive:{path}", "-o", tmp_path / "b", "--no-store")
    assert (code, "entry 2" in said) == (3, True), said
    (image,) = json.loads(run("inspect", tmp_path / "b", "--json"))["images"]
    assert image["names"] == ["good:1"]


def test_one_child_whose_platform_nobody_says_is_the_image(tmp_path: Path) -> None:
    made = Layout()
    image = made.image([layer({"a": b"1"})], arch="")
    manifest = json.loads(made.blobs[image["digest"]])
    config = json.loads(made.blobs[manifest["config"]["digest"]])
    del config["os"], config["architecture"]
    manifest["config"] = made.document(config, OCI_CONFIG)
    child = made.document(manifest, OCI_MANIFEST)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}
    made.name(made.document(index, OCI_INDEX), "plain:1")
    run("export", "--from", f"oci:{made.write(tmp_path / 'a')}", "-o", tmp_path / "b", "-q", "--no-store")
    run("import", tmp_path / "b", "--to", f"docker-archive:{tmp_path}/d.tar", "--no-store", "-q")
    (found,) = json.loads(run("images", "--from", f"docker-archive:{tmp_path}/d.tar", "--json"))["images"]
    assert found["names"] == ["plain:1"]
