"""What a containers/storage says is somebody's: nothing of it becomes a path, and what is no image or layer is left out."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from transfer.engines.cstorage import ContainerStorage
from transfer.errors import EngineError, FormatError, TransferError
from transfer.model import Digest
from transfer.streams import sha256

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
DIFF = f"sha256:{'1' * 64}"


def storage(root: Path, images: Any, layers: Any) -> ContainerStorage:
    for name, value in (("images", images), ("layers", layers)):
        folder = root / f"overlay-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return ContainerStorage(root)


def layer(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "diff-digest": DIFF, "diff-size": 10, **more}


@pytest.mark.parametrize(
    "wrong",
    [
        layer("../../etc"),
        layer(A, parent="../x"),
        layer(A, **{"diff-digest": None}),
        layer(A, **{"diff-digest": "sha256:x"}),
        layer(A, **{"diff-size": -1}),
        layer(A, **{"diff-size": "10"}),
        layer(A, **{"compressed-diff-digest": "what"}),
        "layer",
        None,
    ],
)
def test_a_layer_that_is_none_is_left_out(tmp_path: Path, wrong: Any) -> None:
    held = storage(tmp_path, [{"id": C, "layer": A}], [wrong, layer(B)])
    assert held.blobs() == {Digest(DIFF)}
    with pytest.raises(EngineError, match="other layers"):
        held.layers(held.images[C], [Digest(DIFF)])


@pytest.mark.parametrize("wrong", [{"id": "../x"}, {"id": A.upper()}, {"id": A, "layer": "../x"}, 7, {"id": None}])
def test_an_image_that_is_none_is_left_out(tmp_path: Path, wrong: Any) -> None:
    assert storage(tmp_path, [wrong, {"id": B}], []).images.keys() == {B}


def test_layers_that_lead_in_a_circle_end(tmp_path: Path) -> None:
    held = storage(tmp_path, [{"id": C, "layer": A}], [layer(A, parent=B), layer(B, parent=A)])
    with pytest.raises(EngineError):
        held.layers(held.images[C], [Digest(DIFF)] * 2)


def test_documents_are_found_by_digest_and_believed_when_hashed(tmp_path: Path) -> None:
    data = b'{"layers": []}'
    names = [f"manifest-{sha256(data)}", str(sha256(b"other")), "manifest", "../../x", f"signature-{A}", 7]
    held = storage(tmp_path, [{"id": C, "layer": "", "big-data-names": names}], [])
    image = held.images[C]
    assert image.documents.keys() == {sha256(data), sha256(b"other")}
    for key in names[:2]:
        path = tmp_path / f"overlay-images/{C}" / ("=" + base64.b64encode(str(key).encode()).decode())
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    assert held.document(image, sha256(data)) == data
    assert held.document(image, sha256(b"other")) is None  # there is something else under its name
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert held.document(image, sha256(b"other")) is None


@pytest.mark.parametrize("text", ["{}", "not json", "[" * 100_000, '[{"id": "' + "x" * 10])
def test_lists_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    storage(tmp_path, [], [])
    (tmp_path / "overlay-layers/layers.json").write_text(text, encoding="utf-8")
    with pytest.raises(FormatError):
        ContainerStorage(tmp_path)


def test_a_store_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(TransferError):
        ContainerStorage(tmp_path / "none")
