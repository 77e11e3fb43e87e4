"""images: what an engine, a layout or an archive holds."""

from __future__ import annotations

from collections.abc import Sequence

from transfer.cli.exits import printable
from transfer.cli.render import age, amount, print_json
from transfer.engines.base import RegistryOptions
from transfer.errors import NotFound
from transfer.flows.select import listed_by, open_source, split_names


def images(patterns: Sequence[str], source: str, json: bool, registry: RegistryOptions) -> None:
    """What a source holds: all, or what names, globs and the beginnings of IDs pick. NotFound if one picks nothing."""
    source, wanted = split_names(source, patterns)
    opened, named = open_source(source, registry=registry)
    patterns = [*named, *wanted]
    try:
        found = (
            [each for pattern in patterns for each in opened.names(pattern)] if opened.traits.remote else opened.names()
        )
        listed = sorted(found, key=lambda each: (not each.names, each.names))
        if not opened.traits.remote:
            listed = listed_by(patterns, listed, opened.where)
        elif patterns and not listed:
            raise NotFound(f"{opened.where}: nothing is called {', '.join(patterns):.200}")
        where = opened.where
    finally:
        opened.close()
    if json:
        rows = [
            {"names": list(i.names), "id": str(i.id), "size": i.size, "created": i.created, "layers": i.layers}
            for i in listed
        ]
        print_json({"where": where, "images": rows})
        return
    if not listed:
        print(f"no images in {printable(where)}")
        return
    table = [("NAME", "ID", "SIZE", "AGE", "LAYERS")]
    for each in listed:
        for name in each.names or ("<none>",):
            table.append((printable(name), each.id.short, amount(each.size), age(each.created), str(each.layers)))
    widths = [max(len(row[column]) for row in table) for column in range(5)]
    for row in table:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
