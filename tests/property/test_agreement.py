"""Verify and import say the same of every bundle, whatever is changed in it: what one takes, the other does not refuse."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import hostile
from tests.support.specimens import Patient
from transfer.bundle.catalog import document_record
from transfer.bundle.reader import Bundle
from transfer.engines.ocilayout import LayoutSink, LayoutSource
from transfer.engines.tree import walk
from transfer.errors import TransferError
from transfer.events import silent
from transfer.flows.load_images import Loaded, LoadOptions, load_images
from transfer.flows.verify import check
from transfer.streams import sha256

ODD: list[Any] = [
    None,
    True,
    0,
    1,
    -1,
    1 << 31,
    1 << 63,
    1.5,
    "",
    " ",
    "x",
    "../../x",
    "\x1b[2J",
    "sha256:" + "0" * 64,
    [],
    {},
    [1],
    "0-9,3",
    "5-2",
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile.sound(tmp_path_factory.mktemp("sound"))


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every member of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(each for key, below in inner for each in places(below, (*at, key)))]


@st.composite
def changes(draw: st.DrawFn, value: Any) -> Any:
    """The value with one thing in it removed, replaced, repeated, or exchanged for another part of it."""
    value = copy.deepcopy(value)
    *way, key = draw(st.sampled_from([each for each in places(value) if each]))
    parent = value
    for step in way:
        parent = parent[step]
    how = draw(st.sampled_from(["remove", "odd", "more", "repeat", "other"]))
    if how == "remove":
        del parent[key]
    elif how == "odd":
        parent[key] = draw(st.sampled_from(ODD))
    elif how == "more" and type(parent[key]) is int:
        parent[key] += draw(st.sampled_from([-1, 1, 512, 1 << 20]))
    elif how == "repeat" and isinstance(parent, list):
        parent.insert(0, copy.deepcopy(parent[key]))
    else:
        at = value
        for step in draw(st.sampled_from(places(value))):
            at = at[step]
        parent[key] = copy.deepcopy(at)
    return value


def imported(bundle: Path, target: Path) -> bool:
    """Whether all of it came in. What did is whole: every blob each image reaches, by its digest."""
    try:
        with Bundle(bundle) as opened:
            done: Loaded = load_images(
                opened, opened.images, tuple, LayoutSink(target), options=LoadOptions(jobs=0), observer=silent
            )
    except TransferError:
        return False
    source = LayoutSource(target) if done.landed else None
    for each in done.landed:
        assert source
        tree = walk(each.image.root, source.document)
        for layer in tree.layers:
            assert str(sha256((target / "blobs" / "sha256" / layer.digest.hex).read_bytes())) == str(layer.digest)
    return not done.failed


def is_sound(bundle: Path) -> bool:
    try:
        return check(bundle, deep=True, jobs=0, observer=silent).sound
    except TransferError:
        return False


def agreed(sound: Path, change: hostile.Change) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bundle = hostile.changed(sound, Path(folder) / "b", change)
        assert is_sound(bundle) == imported(bundle, Path(folder) / "o")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.data())
def test_they_agree_on_every_header(sound: Path, data: st.DataObject) -> None:
    def change(patient: Patient) -> None:
        changed = data.draw(changes(patient.header))
        patient.header.clear()
        patient.header.update(changed)
        for entries in (patient.header.get("packs"), patient.header.get("catalog")):
            if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
                return

    agreed(sound, change)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.data())
def test_they_agree_on_every_document(sound: Path, data: st.DataObject) -> None:
    def change(patient: Patient) -> None:
        image = data.draw(st.sampled_from(patient.header["images"]))
        digest = data.draw(st.sampled_from(image["documents"]))
        record = next(r for r in patient.records if r[:1] == b"D" and digest.encode() in r[:90])
        new = json.dumps(data.draw(changes(json.loads(record[2 + record[1] :])))).encode()
        replaced = {digest: new}
        order = list(image["documents"])
        for above in reversed(order):  # what names it, too
            old = next(r for r in patient.records if r[:1] == b"D" and above.encode() in r[:90])
            text = replaced.get(above, old[2 + old[1] :])
            for before, after in [*replaced.items()]:
                text = text.replace(before.encode(), str(sha256(after)).encode())
            if text != old[2 + old[1] :]:
                replaced[above] = text
        image["documents"] = [str(sha256(replaced[d])) if d in replaced else d for d in order]
        for key, value in (("root", image["root"]["digest"]), ("config_digest", image["config_digest"])):
            if value in replaced:
                now = str(sha256(replaced[value]))
                image[key] = {**image["root"], "digest": now, "size": len(replaced[value])} if key == "root" else now
        patient.recatalog([*(document_record(sha256(each), each) for each in replaced.values()), *patient.records])

    agreed(sound, change)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.data())
def test_they_agree_on_every_catalog(sound: Path, data: st.DataObject) -> None:
    def change(patient: Patient) -> None:
        records = list(patient.records)
        at = data.draw(st.integers(0, len(records) - 1))
        how = data.draw(st.sampled_from(["remove", "repeat", "byte", "cut"]))
        if how == "remove":
            del records[at]
        elif how == "repeat":
            records.insert(data.draw(st.integers(0, len(records))), records[at])
        elif how == "cut":
            records[at] = records[at][: data.draw(st.integers(1, len(records[at])))]
        else:
            place = data.draw(st.integers(0, len(records[at]) - 1))
            changed = bytearray(records[at])
            changed[place] ^= 1 << data.draw(st.integers(0, 7))
            records[at] = bytes(changed)
        patient.recatalog(records)

    agreed(sound, change)
