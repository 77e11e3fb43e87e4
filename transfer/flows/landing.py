"""Images on their way in: in which order they begin, and as many at once as the sink takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from functools import partial

from transfer.engines.base import ImageSink, ImportedImage, OtherFailed
from transfer.errors import EngineError, OtherContent, TransferError, one_failure
from transfer.events import Noted, Observer
from transfer.flows.claims import Claims
from transfer.flows.content import BundleContent
from transfer.flows.naming import Move
from transfer.model import Descriptor, Digest, Image
from transfer.work import Pool


@dataclass(frozen=True, slots=True)
class Failed:
    """An image that did not make it, and why."""

    image: Image
    names: tuple[str, ...]
    error: TransferError


@dataclass(frozen=True, slots=True)
class Job:
    image: Image
    names: tuple[str, ...]
    missing: tuple[Descriptor, ...]
    """The layers that are to be sent, in order."""
    moves: tuple[Move, ...] = ()


def in_turns(jobs: Sequence[Job], work: Callable[[Descriptor], int], parallel: int) -> list[Job]:
    """In which order images that land beside each other begin: as they stand in the bundle, so that each frame is decoded once.

    One that makes more `work` than the others that are left make for each of the `parallel` lanes goes first, or in the end it would be
    alone; before it whatever brings a layer that it lacks as well, or that one would have to wait for it.
    """
    owner: dict[Digest, int] = {}
    sizes = [0] * len(jobs)
    for number, job in enumerate(jobs):
        for layer in job.missing:
            if owner.setdefault(layer.digest, number) == number:
                sizes[number] += work(layer)
    left = dict.fromkeys(range(len(jobs)))
    by_size = sorted(left, key=lambda number: (sizes[number], -number))
    rest, out = sum(sizes), []
    while left:
        while by_size[-1] not in left:
            by_size.pop()
        turn = by_size[-1] if (parallel + 1) * sizes[by_size[-1]] > rest else next(iter(left))
        for each in sorted({owner[layer.digest] for layer in jobs[turn].missing} | {turn}):
            if each in left:
                del left[each]
                rest -= sizes[each]
                out.append(jobs[each])
    return out


class Landing:
    """Images on their way in, as many at once as the sink takes."""

    def __init__(self, sink: ImageSink, content: BundleContent, observer: Observer, lanes: Pool, parallel: int) -> None:
        self._sink, self._content, self._observer = sink, content, observer
        self._lanes, self._parallel = lanes, parallel
        self._claims = Claims()
        self._landed: list[ImportedImage] = []
        self._failed: list[Failed] = []

    def run(
        self, todo: Sequence[tuple[Job, TransferError | None]], turns: Sequence[Job]
    ) -> tuple[list[ImportedImage], list[Failed]]:
        """All `turns`, in that order; the answer has the order of `todo`, and what failed there before."""
        self._failed = [Failed(job.image, job.names, error) for job, error in todo if error]
        waiting = list(turns)
        running: dict[Future[ImportedImage], Job] = {}
        while waiting or running:
            if waiting and len(running) < self._parallel:
                job, claimed = waiting.pop(0), threading.Event()
                running[self._lanes.submit(partial(self._one, job, claimed.set))] = job
                claimed.wait()
                continue
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                self._settle(running.pop(future), future)
        order = {id(job.image): n for n, (job, _) in enumerate(todo)}
        self._landed.sort(key=lambda each: order[id(each.image)])
        return self._landed, self._failed

    def _one(self, job: Job, claimed: Callable[[], None]) -> ImportedImage:
        try:
            landed = self._put(job, claimed)
            return replace(landed, moved=tuple((each.name, each.holder) for each in job.moves))
        except (OtherContent, EngineError):
            self._content.recheck(layer.digest for layer in job.missing)
            raise
        finally:
            claimed()

    def _put(self, job: Job, claimed: Callable[[], None]) -> ImportedImage:
        """Once more where another image failed that was to bring a layer of this one."""
        while True:
            try:
                with self._claims.turn(claimed) as turn:
                    return self._sink.put(job.image, job.names, self._content, turn)
            except OtherFailed:
                continue

    def _settle(self, job: Job, future: Future[ImportedImage]) -> None:
        """Note how it went."""
        try:
            landed = future.result()
        except Exception as unknown:  # noqa: BLE001 - whatever it is, it is this image's, and the others go on
            error = one_failure(unknown, job.image.label)
            self._failed.append(Failed(job.image, job.names, error))
            self._content.forgo(layer.digest for layer in job.missing)
            self._observer(Noted(f"{job.image.label} failed: {error.message}"))
            return
        self._landed.append(landed)
        verb = "is in place" if landed.status == "imported" else "is already present"
        self._observer(
            Noted(f"{job.image.label} {verb} ({landed.id.short})" + (f"; {landed.note}" if landed.note else ""))
        )
        for name, holder in landed.moved:
            self._observer(Noted(f"the name {name} moved from image {holder.short} to image {landed.id.short}"))
