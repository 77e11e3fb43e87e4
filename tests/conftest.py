"""Tests keep no store unless they name one: nothing of the machine they run on is touched."""

from __future__ import annotations

import os

os.environ["TRANSFER_STORE"] = "none"
