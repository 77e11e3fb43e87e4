"""What several commands share: what they may build on, from their options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transfer.bundle.library import Shelf
from transfer.bundle.reader import Bundle
from transfer.bundle.receipt import site_name
from transfer.events import Observer
from transfer.flows import stores


@dataclass(frozen=True, slots=True)
class Behind:
    """What a command may build on: --base, --seed, --store, --no-store, --site."""

    base: tuple[str, ...]
    seeds: tuple[Path, ...]
    store: Path | None
    no_store: bool
    site: str

    def choice(self) -> stores.StoreChoice:
        return stores.choose_store(self.store, self.no_store)

    def shelf(self, choice: stores.StoreChoice) -> Shelf:
        return stores.library(self.seeds, choice.store)

    def bases(self, choice: stores.StoreChoice, observer: Observer) -> list[Bundle]:
        return stores.bases(self.base, self.shelf(choice), choice.store, observer)

    def __post_init__(self) -> None:
        for name in self.sites:
            site_name(name)

    @property
    def sites(self) -> list[str]:
        """The sites an export is for."""
        named = [text.removeprefix(stores.SITE) for text in self.base if text.startswith(stores.SITE)]
        return list(dict.fromkeys([*named, *([self.site] if self.site else [])]))
