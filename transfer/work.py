"""Bounded, ordered parallel work. The one place threads are made; `jobs=0` runs everything inline, for tests."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_END = object()
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def keep_memory() -> None:
    """Set the process up for long work: memory is reused instead of given back, and nothing is searched for cycles.

    The pipeline passes through blocks of 1 to 32 MiB; mapped afresh each time, page faults cost 5 of 8 seconds for 2.7 GB
    (glibc only). It makes no cycles, and looking for them among some hundred thousand names costs another 2 %.
    """
    gc.disable()
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 16 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 64 << 20)  # at 1 GiB the peak is 32 MB higher, and nothing is faster
        libc.mallopt(_M_ARENA_MAX, 1)


def default_jobs() -> int:
    """As many threads as this process may use processors."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def background(call: Callable[[], object], name: str) -> threading.Thread:
    """A call that runs beside everything else and does not keep the program alive."""
    thread = threading.Thread(target=call, name=name, daemon=True)
    thread.start()
    return thread


class Pool:
    """Threads that run calls; with `jobs=0` a call runs at once in the caller."""

    def __init__(self, jobs: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix=name) if jobs else None

    @property
    def threaded(self) -> bool:
        return self._threads is not None

    def submit(self, call: Callable[[], R]) -> Future[R]:
        if self._threads:
            return self._threads.submit(call)
        future: Future[R] = Future()
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001 - handed on through the future, as a pool does
            future.set_exception(error)
        return future

    @contextlib.contextmanager
    def occupied(self, jobs: int) -> Iterator[None]:
        """One thread fewer works meanwhile, if there are more than one of `jobs`: whoever needs memory for itself."""
        if jobs < 2 or not self._threads:
            yield
            return
        over = threading.Event()
        self._threads.submit(over.wait)
        try:
            yield
        finally:
            over.set()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(cancel=kind is not None)

    def close(self, *, cancel: bool = False) -> None:
        """Wait for what runs; with `cancel`, what has not begun is left undone."""
        if self._threads:
            self._threads.shutdown(cancel_futures=cancel)


class OrderedPipeline(Generic[R]):
    """Ordered parallel map you push into: at most `ahead` calls queued or running, and `ahead` more results waiting.

    `deliver` sees the results in order, in a thread of its own: neither who pushes nor the next call waits for it, unless it falls
    behind. What a call or `deliver` raises is raised by the next `push` or `drain`. With an inline pool everything happens in `push`.
    """

    def __init__(self, pool: Pool, ahead: int, deliver: Callable[[R], None]) -> None:
        self._pool, self._deliver = pool, deliver
        self._room = threading.Semaphore(ahead)
        self._waiting: queue.Queue[Future[R] | None] = queue.Queue(ahead)
        self._failure: BaseException | None = None
        self._closed = False
        self._thread = background(self._run, "deliver") if pool.threaded else None

    def push(self, call: Callable[[], R]) -> None:
        if not self._thread:
            self._deliver(call())
            return
        self._check()
        self._room.acquire()
        future = self._pool.submit(call)
        future.add_done_callback(lambda _: self._room.release())
        self._waiting.put(future)

    def drain(self) -> None:
        """Wait until everything that is out has been delivered."""
        self._waiting.join()
        self._check()

    def close(self) -> None:
        """End the thread; what is still out is not delivered."""
        self._closed = True
        if self._thread:
            self._waiting.put(None)
            self._thread.join()

    def _check(self) -> None:
        if self._failure:
            raise self._failure

    def _run(self) -> None:
        while future := self._waiting.get():
            self._one(future)
            del future
            self._waiting.task_done()

    def _one(self, future: Future[R]) -> None:
        try:
            if self._closed or self._failure:
                future.cancel()
            else:
                self._deliver(future.result())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller
            self._failure = error


def ordered_map(call: Callable[[T], R], items: Iterable[T], pool: Pool, ahead: int) -> Iterator[R]:
    """`map` over the pool, results in order, at most `ahead` in flight."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
        waiting.append(pool.submit(lambda item=item: call(item)))  # type: ignore[misc]
    while waiting:
        yield waiting.popleft().result()


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def prefetch(items: Iterator[T], depth: int, *, threaded: bool = True) -> Iterator[T]:
    """The same items, made by a thread up to `depth` of them ahead of their use.

    The iterator is closed by the thread that ran it, also when the consumer stops early.
    """
    if not threaded:
        yield from items
        return
    waiting: queue.Queue[object] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: object) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            for item in items:
                if not put(item):
                    break
            else:
                put(_END)
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer
            put(_Failed(error))
        finally:
            close = getattr(items, "close", None)
            if close:
                close()

    thread = background(run, "ahead")
    try:
        while (item := waiting.get()) is not _END:
            if isinstance(item, _Failed):
                raise item.error
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def run_alongside(call: Callable[[T], object], depth: int, *, threaded: bool = True) -> Iterator[Callable[[T], object]]:
    """Gives a function that has `call`, which must not fail, made for item after item by a thread beside, at most `depth` behind.

    At the end of the block it has been made for all of them.
    """
    if not threaded:
        yield call
        return
    waiting: queue.Queue[object] = queue.Queue(depth)

    def run() -> None:
        while (item := waiting.get()) is not _END:
            call(item)  # type: ignore[arg-type]

    thread = background(run, "aside")
    try:
        yield waiting.put
    finally:
        waiting.put(_END)
        thread.join()
