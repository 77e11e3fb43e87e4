"""How much is tried: `make check` tries everything, `make test` a sample that is spread over all of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
THOROUGH = os.environ.get("TRANSFER_THOROUGH", "") == "1"


def sample(items: Sequence[T], few: int) -> list[T]:
    """All of them in a thorough run; else so many: the first, the last, and some between."""
    if THOROUGH or len(items) <= few:
        return list(items)
    return [items[round(n * (len(items) - 1) / (few - 1))] for n in range(few)]
