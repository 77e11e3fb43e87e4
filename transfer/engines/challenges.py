"""What a registry asks for before it answers: challenges read, and the tokens that come of them."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transfer.errors import EngineError

TOKEN_SECONDS = 60
"""How long a token lives that does not say so (distribution-spec, token authentication)."""
_CHALLENGE = re.compile(r'([A-Za-z][A-Za-z0-9_-]*)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,"]+)')


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a 401 asks for: the scheme in lower case, and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def challenges(values: list[str]) -> list[Challenge]:
    """WWW-Authenticate headers, several challenges each (RFC 9110, 11.6.1): commas may stand inside quotes."""
    out: list[Challenge] = []
    for value in values:
        rest = value
        while match := re.match(r"\s*,?\s*([A-Za-z][A-Za-z0-9_-]*)(?=\s+[A-Za-z]|\s*$|\s*,)", rest):
            rest = rest[match.end() :]
            found: dict[str, str] = {}
            while pair := re.match(rf"\s*,?\s*{_CHALLENGE.pattern}", rest):
                text = pair[2]
                found.setdefault(pair[1].lower(), re.sub(r"\\(.)", r"\1", text[1:-1]) if text[0] == '"' else text)
                rest = rest[pair.end() :]
            out.append(Challenge(match[1].lower(), found))
    return out


@dataclass
class Token:
    """A bearer token and until when it counts (monotonic seconds), with a fifth of its life kept back."""

    value: str
    until: float


def token_of(value: Any, where: str) -> Token:
    """The token of a token service's answer. EngineError if it has none."""
    token = value.get("token") or value.get("access_token") if isinstance(value, dict) else None
    if not isinstance(token, str) or not token.isprintable() or " " in token:
        raise EngineError(f"{where}: its token service gave no token")
    seconds = value.get("expires_in")
    life = seconds if type(seconds) is int and 0 < seconds < 10**7 else TOKEN_SECONDS
    return Token(token, time.monotonic() + 0.8 * life)
