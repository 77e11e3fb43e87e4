"""Bundles whose digests are all right and that lie in what they say: refused before anything is touched, cheaply, and without harm to others."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import hostile
from tests.support.hostile import Change, changed, of_pack, root_of, saying
from tests.support.measured import measured
from tests.support.run import SCRIPT, run, says
from transfer.bundle.reader import Bundle
from transfer.engines.archive import ArchiveSink
from transfer.engines.base import ImageSink
from transfer.engines.ocilayout import LayoutSink
from transfer.errors import Damaged, FormatError, TransferError
from transfer.events import silent
from transfer.flows.load_images import Loaded, LoadOptions, load_images
from transfer.flows.verify import check
from transfer.model import OCI_INDEX, blob_path

FALSE = "sha256:" + "5" * 64

STATEMENTS: dict[str, Change] = {
    "no layers": saying("app:1", layers=[], frames=""),
    "no documents": saying("app:1", documents=[]),
    "one layer less": lambda p: hostile.image(p)["layers"].pop(),
    "another layer's size": lambda p: hostile.image(p)["layers"][0].update(size=7),
    "another layer's type": lambda p: hostile.image(p)["layers"][0].update(mediaType="text/plain"),
    "another config": saying("app:1", config_digest=FALSE),
    "no config": saying("app:1", config_digest=None),
    "another root size": lambda p: hostile.image(p)["root"].update(size=999),
    "another root type": lambda p: hostile.image(p)["root"].update(mediaType="application/x"),
    "an index that is none": lambda p: hostile.image(p)["root"].update(mediaType=OCI_INDEX),
    "another platform": saying("app:1", platforms=["plan9/mips"]),
    "a child that is absent": saying("app:1", absent=[FALSE]),
    "a document that does not exist": lambda p: hostile.image(p)["documents"].append(FALSE),
    "half of an index": lambda p: hostile.image(p, "multi:1")["documents"].pop(1),
    "no manifest: a number": root_of("app:1", {"schemaVersion": 2, "config": 5, "layers": []}),
    "no manifest: layers": root_of("app:1", lambda old: {**old, "layers": 5}),
    "no manifest: manifests": root_of("app:1", {"manifests": 5}),
    "no manifest: an empty index": root_of("app:1", {"manifests": None}),
    "no manifest: a list": root_of("app:1", b"[1]"),
    "no manifest: no JSON": root_of("app:1", b"nonsense"),
    "no manifest: both": root_of("app:1", lambda old: {**old, "manifests": []}),
    "indexes without end": hostile.fan(40),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile.sound(tmp_path_factory.mktemp("sound"))


def landing(bundle: Path, sink: ImageSink, names: frozenset[str] = frozenset()) -> Loaded | TransferError:
    """What comes of an import of these images (all if none are named), or why it was refused as a whole."""
    try:
        with Bundle(bundle) as opened:
            images = [each for each in opened.images if not names or names & set(each.names)]
            return load_images(opened, images, tuple, sink, options=LoadOptions(jobs=0), observer=silent)
    except TransferError as error:
        return error


def is_sound(bundle: Path, *, deep: bool = False) -> bool:
    try:
        return check(bundle, deep=deep, jobs=0, observer=silent).sound
    except Damaged:
        return False


@pytest.mark.parametrize("what", STATEMENTS)
def test_what_a_header_says_is_held_against_the_documents(sound: Path, tmp_path: Path, what: str) -> None:
    """Verify and import say the same, nothing of the image is touched, and its neighbours come in."""
    bundle = changed(sound, tmp_path / "b", STATEMENTS[what])
    assert not is_sound(bundle)
    assert not is_sound(bundle, deep=True)
    names = frozenset({"multi:1" if what == "half of an index" else "app:1"})
    for sink in (LayoutSink(tmp_path / "o"), ArchiveSink(tmp_path / "a.tar", docker=True)):
        refused = landing(bundle, sink, names)
        assert isinstance(refused, FormatError), refused
    assert not list((tmp_path / "o").rglob("sha256/*"))
    assert [each.name for each in tmp_path.glob("*.tar")] == []
    done = landing(bundle, LayoutSink(tmp_path / "o"))
    assert isinstance(done, Loaded)
    assert (len(done.landed), len(done.failed)) == (2, 1)


def test_an_image_of_which_the_header_lies_is_told(sound: Path, tmp_path: Path) -> None:
    bundle = changed(sound, tmp_path / "b", STATEMENTS["no layers"])
    for words in (["verify", bundle], ["import", bundle, "app:1", "--to", f"oci:{tmp_path / 'o'}", "--no-store"]):
        code, said = says(*words)
        assert (code, "app:1" in said) == (13, True)
    assert says("import", bundle, "--to", f"oci:{tmp_path / 'o'}", "--no-store")[0] == 3


COUNTS: dict[str, Change] = {
    "more frames": of_pack(frames=9),
    "other bytes": of_pack(raw_size=1),
    "a pack twice": lambda p: (
        p.header["packs"].append(p.header["packs"][0]),
        p.manifest["layers"].append(p.manifest["layers"][-1]),
    )[0],
    "a frame that no pack has": saying("app:1", frames="0-99"),
    "falling frames": saying("app:1", frames="1,0"),
    "a catalog of another size": lambda p: (
        p.header["catalog"][0].update(size=99999),
        p.manifest["layers"][0].update(size=99999),
    )[0],
    "a catalog of nonsense": hostile.nonsense_catalog,
    "a pack by sha512": of_pack(digest="sha512:" + "5" * 128),
    "too many documents": saying("app:1", documents=[FALSE] * 4097),
}


@pytest.mark.parametrize("what", COUNTS)
def test_what_a_header_counts_is_held_against_the_catalog(sound: Path, tmp_path: Path, what: str) -> None:
    bundle = changed(sound, tmp_path / "b", COUNTS[what])
    assert not is_sound(bundle)
    assert not is_sound(bundle, deep=True)
    assert isinstance(landing(bundle, LayoutSink(tmp_path / "o")), Damaged)
    assert not list((tmp_path / "o").rglob("sha256/*"))


BOMBS: dict[str, Change] = {
    "a frame list for many images": hostile.many_images(40, "0-4194302"),
    "many frames in many images": lambda p: (of_pack(frames=1 << 22)(p), hostile.many_images(300, "0-4194303")(p))[0],
    "endless frames": of_pack(frames=1 << 59),
    "the frames of a pack that is lost": hostile.frames_of_a_lost_pack(1 << 22),
    "large documents": hostile.more_frames(hostile.big_document, 30),
    "a long recipe": hostile.more_frames(hostile.long_recipe, 60),
    "records without number": hostile.recataloged(lambda old: [*old, *[b"D"] * 900_000]),
    "indexes that name the next twice": hostile.fan(7),
    "indexes without end": hostile.fan(30),
    "packs that are nowhere": hostile.many_packs(20_000),
    "packs and images": lambda p: (hostile.many_packs(20_000)(p), hostile.many_images(2000, "0")(p))[0],
    "empty lists": hostile.bloated([[]] * 4_000_000),
    "small objects": hostile.bloated([{"": 0}] * 3_000_000),
    "a long name": hostile.bloated("\U0001f600" * 12_000_000),
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_few_bytes_ask_for_little_work(sound: Path, tmp_path: Path, what: str) -> None:
    """Every command that opens a bundle stays within the memory that is promised, and comes to an end."""
    bundle = changed(sound, tmp_path / "b", BOMBS[what])
    store = ["--store", tmp_path / "s"]
    commands: list[list[object]] = [
        ["verify", "--deep", bundle],
        ["import", bundle, "--stage", "--to", f"oci:{tmp_path / 'o'}", *store],
        ["ship", bundle, tmp_path],
        ["store", "check", *store],
    ]
    for words in commands:
        found = measured(*words)
        assert found.code in (0, 2, 3, 10, 13, 14), (words, found.said[-500:])
    assert measured(bundle, script=str(SCRIPT)).code in (0, 13, 14)


def test_one_bad_bundle_in_a_spool_stops_no_other(sound: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    documents = {"app:1": b"[1]", "other:1": b"[2]", "multi:1": b"[3]"}
    changed(sound, spool / "a.bundle", *(root_of(name, data) for name, data in documents.items()))
    shutil.copytree(sound, spool / "b.bundle")
    code, said = says("import", f"spool:{spool}", "--to", f"oci:{tmp_path / 'o'}", "--no-store")
    assert code == 13, said
    assert "a.bundle" in said
    assert len(json.loads(run("images", "--from", f"oci:{tmp_path / 'o'}", "--json"))["images"]) == 3


def test_what_is_refused_in_a_spool_is_not_waited_for(sound: Path, tmp_path: Path) -> None:
    """Whole and refused is 13: no further file makes it right. Cut off is 14, whichever file it is."""
    spool = tmp_path / "spool"
    spool.mkdir()
    changed(sound, spool / "a.bundle", lambda parts: hostile.image(parts).update(documents=5))
    words = ["import", f"spool:{spool}", "--to", f"oci:{tmp_path / 'o'}", "--no-store"]
    code, said = says(*words)
    assert code == 13, said
    shutil.rmtree(spool / "a.bundle")
    shutil.copytree(sound, spool / "b.bundle")
    with Bundle(sound) as bundle:
        header = blob_path(bundle.config.digest)
    for name in ("index.json", "oci-layout", header):
        path = spool / "b.bundle" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-5])
        code, said = says(*words)
        assert code == 14, (name, said)
        path.write_bytes(whole)
    assert says(*words)[0] == 0


def test_more_packs_than_files_may_be_open(tmp_path: Path) -> None:
    """The usual limit is 1024; a bundle of 64 MiB packs reaches it at 64 GB."""
    bundle = hostile.one_pack_a_layer(tmp_path / "b", 200)
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))\n"
        "from transfer.cli.main import main; main(sys.argv[1:])"
    )
    for words in (["verify", "--deep"], ["import", "--to", f"oci:{tmp_path / 'o'}", "--store", str(tmp_path / "s")]):
        subprocess.run([sys.executable, "-c", script, *words, str(bundle), "-q"], check=True)
