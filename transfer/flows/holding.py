"""How a bundle holds each layer: as plain files, as plain files and what makes the gzip stream of them again, or as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from transfer.bundle.catalog import OPAQUE, TOGETHER
from transfer.bundle.reader import Bundle
from transfer.errors import Damaged, MissingPart
from transfer.model import Digest

APART, PLAIN, AS_IT_IS = "apart", "plain", "as it is"


def held(bundle: Bundle) -> dict[Digest, str]:
    """For each layer "plain", "apart", or "as it is" and why; nothing of a delta whose catalog cannot be read without its base."""
    try:
        recipes = bundle.catalog().recipes
    except (MissingPart, Damaged):
        return {}
    why = bundle.header.held
    out = {}
    for layer in {layer.digest for image in bundle.images for layer in image.layers} & recipes.keys():
        encoding, reason = recipes[layer].encoding, why.get(layer, "")
        word = {TOGETHER: APART, OPAQUE: AS_IT_IS}.get(encoding, PLAIN)
        out[layer] = f"{word}: {reason}" if reason else word
    return out


def with_files_apart(bundle: Bundle, layers: Iterable[Digest]) -> set[Digest]:
    """Those of these layers that have compressed files which are taken apart. The catalog is not asked about none."""
    return {layer for layer in layers if any(recipe.folds for recipe in bundle.catalog().all_of((layer,)))}


def in_words(found: Mapping[Digest, str]) -> Iterator[str]:
    """A line for each way in which layers are held, but for plain ones."""
    for text, count in sorted(Counter(found.values()).items()):
        word, _, why = text.partition(": ")
        layers = f"{count} gzip layer" if word == APART else f"{count} layer"
        several = f"{layers} is" if count == 1 else f"{layers}s are"
        if word == APART:
            yield f"{several} taken apart: deltas are small, and the import makes the same bytes again" + (
                f" ({why})" if why else ""
            )
        elif word == AS_IT_IS:
            what = "held as it is" if count == 1 else "held as they are"
            yield f"{several} {what}" + (f": {why}" if why else "")
