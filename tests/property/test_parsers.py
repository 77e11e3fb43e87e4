"""Whatever comes in, a parser gives a value or says FormatError (or Damaged, for what is cut short): never anything else."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.zoo import layer, noise, zoo
from transfer.bundle import header as head
from transfer.bundle.catalog import CatalogReader, document_record, recipe_records
from transfer.bundle.journal import Journal, Seen, _encode
from transfer.bundle.ranges import Ranges
from transfer.chunks.frame import encode_frame, parse_frame_header
from transfer.chunks.name import Kind, chunk_id
from transfer.chunks.packer import New
from transfer.chunks.varint import get_varints, put_varints
from transfer.engines.index import Roots
from transfer.engines.members import Forward, follow, inside, members
from transfer.engines.savefile import parse_saved
from transfer.engines.savestream import SaveStream
from transfer.engines.tree import diff_ids, walk
from transfer.errors import Damaged, FormatError, NotFound, TransferError, UsageError
from transfer.model import Descriptor, Digest, Part, Platform, Recipe, Reference
from transfer.streams import blocks, parse_json, sha256
from transfer.tarfmt import make_header, parse_header, parse_pax

settings.register_profile(
    "here", deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("here")

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(
        ["sha256:" + "a" * 64, "sha256:../../x", "md5:" + "a" * 32, "SHA256:" + "a" * 64, "../../etc", "a\0b"]
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=8)
            | st.sampled_from(
                [
                    "mediaType",
                    "digest",
                    "size",
                    "manifests",
                    "layers",
                    "config",
                    "rootfs",
                    "diff_ids",
                    "platform",
                    "annotations",
                    "images",
                    "packs",
                    "catalog",
                    "names",
                    "root",
                    "documents",
                    "frames",
                    "features",
                    "totals",
                    "prerequisites",
                    "format",
                    "version",
                    "level",
                    "created",
                    "os",
                    "Config",
                    "Layers",
                    "RepoTags",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)


def tolerant(call: Callable[[], object]) -> None:
    """The call may only succeed or find its input malformed."""
    with contextlib.suppress(Damaged):
        call()


def header_value() -> dict[str, Any]:
    made = head.Header(1, "transfer 0", 3, (), (), (head.Blob(sha256(b""), 1, 1, 1),), (), {"chunks": 0})
    value: dict[str, Any] = json.loads(made.encode())
    return value


@given(st.binary(max_size=3000))
@example(b"\0" * 512)
def test_tar_header_and_pax(data: bytes) -> None:
    parse_header(data.ljust(512, b"\0")[:512])
    tolerant(lambda: parse_pax(data))


@given(st.binary(min_size=12, max_size=12), st.sampled_from(b"01235LKxgSD7\0"))
def test_a_tar_size_is_never_negative(size: bytes, kind: int) -> None:
    record = bytearray(make_header("name", 5))
    record[124:136], record[156] = size, kind
    record[148:156] = b"%06o\0 " % (sum(record[:148]) + sum(record[156:]) + 8 * 32)
    found = parse_header(bytes(record))
    assert found is None or found.size >= 0


@given(st.binary(max_size=400))
def test_varints(data: bytes) -> None:
    tolerant(lambda: get_varints(data, 0, 7, "here"))
    tolerant(lambda: get_varints(data, 0, 1 << 40, "here"))


@given(st.lists(st.integers(0, (1 << 63) - 1), max_size=40))
def test_varints_come_back(values: list[int]) -> None:
    data = put_varints(values)
    assert get_varints(data, 0, len(values), "here") == (values, len(data))


@given(st.binary(max_size=300), st.integers(0, 200), st.binary(max_size=6))
def test_frame_header(noise_: bytes, at: int, put: bytes) -> None:
    tolerant(lambda: parse_frame_header(noise_, "here"))
    sound = encode_frame(Kind.TEXT, b"abc" * 50, [100, 50], 3)[0].encode()
    assert parse_frame_header(sound, "here").sizes == (100, 50)
    spoiled = sound[:at] + put + sound[at + len(put) :]
    if spoiled != sound:
        with pytest.raises(FormatError):
            parse_frame_header(spoiled, "here")


def records() -> list[bytes]:
    part = Part(chunk_id(b"s"), chunk_id(b"p") * 2, (1, 0, 2))
    recipe = Recipe(sha256(b"x"), 9, 0, (part,))
    frame = b"F" + put_varints([0, 16, 100, 5, 3, 2, 1, 1, 0]) + chunk_id(b"p") + put_varints([3])
    return [document_record(sha256(b"{}"), b"{}"), *recipe_records(recipe), frame]


@given(st.sampled_from(records()) | st.binary(max_size=80), st.integers(0, 150), st.binary(max_size=4), st.booleans())
def test_catalog_records(record: bytes, at: int, put: bytes, cut: bool) -> None:
    changed = record[:at] + put + (b"" if cut else record[at + len(put) :])

    def read() -> None:
        reader = CatalogReader("here")
        reader.add(changed)
        reader.finish()

    tolerant(read)


@given(JSON)
def test_documents_of_every_shape(value: object) -> None:
    data = json.dumps(value).encode()
    digest = sha256(data)
    for call in (
        lambda: head.parse_header(data, "here"),
        lambda: head.parse_manifest(data, "here"),
        lambda: head.parse_index(data, "here"),
        lambda: Roots.parse(data, "here"),
        lambda: parse_saved(data, "here"),
        lambda: diff_ids(data, "here"),
        lambda: Descriptor.parse(value, "here"),
        lambda: Digest.parse(value),
    ):
        tolerant(call)
    with contextlib.suppress(Damaged, NotFound):
        root = Descriptor("application/vnd.oci.image.index.v1+json", digest, len(data))
        walk(root, lambda each: data if each.digest == digest else None, Platform("linux", "amd64"))


@given(st.sampled_from(["images", "packs", "catalog", "totals", "prerequisites", "features", "created", "level"]), JSON)
def test_a_header_with_one_odd_member(key: str, odd: object) -> None:
    value = header_value()
    assert head.parse_header(json.dumps(value).encode(), "here").level == 3
    value[key] = odd
    tolerant(lambda: head.parse_header(json.dumps(value).encode(), "here"))


@given(
    JSON, st.sampled_from(["root", "names", "layers", "documents", "platforms", "frames", "absent", "config_digest"])
)
def test_a_header_with_one_odd_image(odd: object, key: str) -> None:
    root = {"mediaType": "a/b", "digest": "sha256:" + "a" * 64, "size": 1}
    image: dict[str, object] = {
        "names": ["a:1"], "root": root, "config_digest": None, "documents": [], "layers": [root], "platforms": [], "absent": [], "frames": "",
    }  # fmt: skip
    value = header_value()
    value["images"] = [image]
    assert head.parse_header(json.dumps(value).encode(), "here").images[0].names == ("a:1",)
    image[key] = odd
    tolerant(lambda: head.parse_header(json.dumps(value).encode(), "here"))


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda t: t.encode("utf-8", "replace")))
@example(b'{"a":1,"a":2}')
@example(b"\xef\xbb\xbf{}")
@example(b"NaN")
@example(b'"\\ud800"')
@example(b"[" * 100_000)
@example(b"1" * 10_000)
@example(b"1e999999999")
def test_strict_json(data: bytes) -> None:
    tolerant(lambda: parse_json(data, "here"))


@pytest.mark.parametrize(
    "data",
    [b'{"a":1,"a":2}', b"\xef\xbb\xbf{}", b"NaN", b"-Infinity", b'"\\ud800"', b"[" * 100_000, b"1" * 21, b"\xff"],
)
def test_json_that_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_json(data, "here")


@given(
    st.text(max_size=60)
    | st.sampled_from(["../x", "/etc/passwd", "a\\b", "./a/../..", "a" * 5000, "", "a\0b", "..", "a/../../b"])
)
def test_a_member_name_never_leaves_the_archive(name: str) -> None:
    try:
        clean = inside(name, "here")
    except FormatError:
        return
    assert (
        not clean.startswith(("/", "../")) and ".." not in clean.split("/") and "\0" not in clean and "\\" not in clean
    )


@given(st.dictionaries(st.sampled_from("abcdefghij"), st.sampled_from("abcdefghij")))
def test_links_end(links: dict[str, str]) -> None:
    tolerant(lambda: follow("a", links, "here"))


def tar_of(pieces: list[bytes]) -> bytes:
    return b"".join(pieces) + bytes(1024)


TAR_PIECE = st.one_of(
    st.binary(max_size=600),
    st.sampled_from(
        [
            make_header("manifest.json", 2) + b"[]".ljust(512, b"\0"),
            make_header("index.json", 2) + b"{}".ljust(512, b"\0"),
            make_header("blobs/sha256/" + "a" * 64, 600) + noise(1, 600).ljust(1024, b"\0"),
            make_header("x", 20, kind=b"x") + b"20 size=999999999999".ljust(512, b"\0"),
            make_header("x", 16, kind=b"x") + b"16 path=../../x\n".ljust(512, b"\0"),
            make_header("x", 30, kind=b"L") + b"name/of/a/long/kind".ljust(512, b"\0"),
            make_header("x", 2 << 20, kind=b"x"),
            make_header("dev", 0, kind=b"3"),
            make_header("../../etc/passwd", 0),
            make_header("loop", 0, kind=b"2")[:157] + b"loop",
            bytes(512),
        ]
    ),
)


@given(st.lists(TAR_PIECE, max_size=8))
def test_a_hostile_archive_is_refused_or_read(pieces: list[bytes]) -> None:
    data = tar_of(pieces)

    def read() -> None:
        for _, content in members(Forward(io.BytesIO(data), "here")):
            assert sum(map(len, blocks(content))) <= len(data)

    def offers() -> None:
        stream = SaveStream("here")
        for offer in stream.read(io.BytesIO(data)):
            for _ in blocks(offer.open(0)):
                pass
        stream.images([], {}, {})

    tolerant(read)
    tolerant(offers)


@given(st.integers(0, 20_000), st.binary(min_size=1, max_size=8))
def test_a_spoiled_archive_never_surprises(at: int, put: bytes) -> None:
    sound = layer({"manifest.json": b"[]", "blobs/sha256/" + "b" * 64: noise(4, 2000), "a.json": b"{}"})
    data = sound[: at % len(sound)] + put + sound[at % len(sound) + len(put) :]

    def read() -> None:
        for _, content in members(Forward(io.BytesIO(data), "here")):
            for _ in blocks(content):
                pass

    tolerant(read)


@given(st.text(max_size=80))
@example("Foo/bar")
@example("a" * 64)
@example("[::1]:5000/x")
@example("index.docker.io/nginx")
def test_references(text: str) -> None:
    try:
        first = Reference.parse(text)
    except (UsageError, FormatError):
        return
    assert Reference.parse(first.familiar) == first
    assert Reference.parse(str(first)) == first


@given(st.lists(st.integers(0, 300), max_size=60))
def test_frame_lists_come_back(numbers: list[int]) -> None:
    written = Ranges.of(numbers)
    assert tuple(Ranges.parse(str(written), "here")) == tuple(sorted(set(numbers)))
    assert len(written) == len(set(numbers)) and Ranges.parse(str(written), "here") == written


@given(st.text(alphabet="0123456789-,", max_size=30))
def test_frame_lists(text: str) -> None:
    tolerant(lambda: Ranges.parse(text, "here"))


@given(spoil=st.integers(0, 10_000), put=st.binary(min_size=1, max_size=5))
@settings(max_examples=60)
def test_a_spoiled_journal_is_only_a_shorter_one(
    spoil: int, put: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path: Path = tmp_path_factory.mktemp("j") / "journal"
    journal = Journal(path, {"level": 3})
    for number in range(5):
        part = Part(b"", chunk_id(b"%d" % number), (0, 0))
        journal.add(
            Seen(
                Recipe(sha256(b"%d" % number), 1, 0, (part,)),
                (New(chunk_id(b"%d" % number), 1, Kind.TEXT, (7, number)),),
            )
        )
    whole = dict(journal.seen)
    journal.close()
    data = path.read_bytes()
    at = spoil % len(data)
    path.write_bytes(data[:at] + put + data[at + len(put) :])
    again = Journal(path, {"level": 3})
    again.close()
    assert all(repr(_encode(whole[digest])) == repr(_encode(seen)) for digest, seen in again.seen.items())


@given(data=st.binary(max_size=300))
@settings(max_examples=40)
def test_a_journal_of_noise(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path: Path = tmp_path_factory.mktemp("j") / "journal"
    path.write_bytes(data)
    journal = Journal(path, {"level": 3})
    journal.close()
    assert not journal.resumed


@given(at=st.integers(0, 1 << 20), put=st.binary(min_size=1, max_size=4))
@settings(max_examples=60)
def test_a_spoiled_layout_never_surprises(at: int, put: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    from transfer.engines.ocilayout import LayoutSource

    folder: Path = zoo().write(tmp_path_factory.mktemp("zoo"))
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    path = files[at % len(files)]
    data = path.read_bytes()
    spot = at % len(data)
    path.write_bytes(data[:spot] + put + data[spot + len(put) :])
    with contextlib.suppress(TransferError):
        source = LayoutSource(folder)
        found = [source.resolve(name, None) for each in source.names() for name in each.names]
        for offer in source.read(found):
            for _ in blocks(offer.open(0)):
                pass
