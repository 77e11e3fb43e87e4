"""What several commands share: their options as the objects that the flows take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transfer.bundle.library import Shelf
from transfer.bundle.reader import Bundle
from transfer.bundle.receipt import site_name
from transfer.engines.base import Found, ImageSource
from transfer.events import Observer
from transfer.flows import stores
from transfer.flows.select import open_source, select
from transfer.model import Platform


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


@dataclass(frozen=True, slots=True)
class Wished:
    """Which images an export takes, from where, how they are read and how hard they are compressed."""

    patterns: tuple[str, ...]
    source: str
    via: str
    platform: str
    level: int

    def open(self, observer: Observer) -> tuple[ImageSource, list[str]]:
        """The source, and the reference --from names, if any."""
        return open_source(self.source, via=self.via, observer=observer)

    def select(self, source: ImageSource, named: list[str], observer: Observer) -> list[Found]:
        platform = Platform.parse(self.platform) if self.platform else None
        return select(source, [*named, *self.patterns], platform, observer)
