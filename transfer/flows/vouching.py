"""A bundle's header held against its documents: by export before it says done, by verify, and by import before it touches anything."""

from __future__ import annotations

from transfer.bundle.reader import Bundle
from transfer.engines.tree import true_to
from transfer.errors import FormatError
from transfer.model import Digest, Image


def vouch(bundle: Bundle, image: Image) -> None:
    """FormatError if a bundle's header does not say of an image what its documents say, or a layer has no recipe of its size."""

    def document(digest: Digest) -> bytes:
        data = bundle.document(digest)
        bundle.effort.spend(len(data))
        return data

    true_to(image, document)
    recipes = bundle.catalog().recipes
    for layer in image.layers:
        found = recipes.get(layer.digest)
        if found is None or found.size != layer.size:
            why = "has no recipe" if found is None else f"has {layer.size} bytes, its recipe makes {found.size}"
            raise FormatError(f"{image.label}: layer {layer.digest} {why}", hint="export the image again")
