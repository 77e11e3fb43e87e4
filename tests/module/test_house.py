"""The house rules that a tool can hold: sizes, one table of engines, one spelling of what people read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in (ROOT / "transfer").rglob("*.py") if path.name != "standalone.py")
LINES_MAX, FUNCTION_MAX = 400, 60
ALONE = ("transports.py",)
MESSAGES = ROOT / "docs" / "messages.md"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_can_be_read_at_once(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES_MAX
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and path.parent.name != "commands":  # those are lists of options
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_MAX, node.name


def test_engines_are_named_in_their_table_alone() -> None:
    """No list of engines stands anywhere else: adding one is a file and a line."""
    for path in FILES:
        if path.name in ALONE:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.match(r"(docker-daemon|docker-archive|oci-archive):?$", node.value), (path, node.lineno)


def text_of(node: ast.expr) -> str:
    """A message as it stands in the code, with what is filled in by name."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "{" + _name(part) + "}"
            for part in node.values
        )
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    if isinstance(node, ast.IfExp):
        return f"{text_of(node.body)} | {text_of(node.orelse)}"
    return "{" + ast.unparse(node)[:40] + "}"


def _name(part: ast.expr) -> str:
    return ast.unparse(part.value)[:40] if isinstance(part, ast.FormattedValue) else ""


@cache
def raised() -> tuple[tuple[str, str, str], ...]:
    """`_raised`, read once."""
    return tuple(_raised())


def _raised() -> Iterator[tuple[str, str, str]]:
    """Every failure that is raised with words of its own: its class, message and hint."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in FILES]
    kinds = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    classes = {"TransferError"}
    for _ in range(5):  # deeper than any is derived
        classes |= {kind.name for kind in kinds if {ast.unparse(base) for base in kind.bases} & classes}
    for tree in trees:
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
                continue
            if node.func.id in classes or node.func.id == "Noted":
                hints = [text_of(word.value) for word in node.keywords if word.arg == "hint"]
                yield node.func.id, text_of(node.args[0]), hints[0] if hints else ""


def listed() -> str:
    """All messages, for whoever reviews their words."""
    lines = ["# Every message", "", "Made by tests/module/test_house.py; review a change of this page as prose.", ""]
    for kind, message, hint in sorted(set(raised())):
        lines.append(f"- {kind}: {message}" + (f" → {hint}" if hint else ""))
    return "\n".join(" ".join(line.split()) for line in lines) + "\n"


def test_every_message_is_on_the_page_that_is_reviewed() -> None:
    """After a change: WRITE_MESSAGES=1 make test T=tests/module/test_house.py, and read the difference."""
    import os

    if os.environ.get("WRITE_MESSAGES"):
        MESSAGES.write_text(listed(), encoding="utf-8")
    assert MESSAGES.read_text(encoding="utf-8") == listed()


@pytest.mark.parametrize("word", ["anew", "over there", "builds on", "goes on where", "not to be found"])
def test_words_that_a_reader_at_night_stumbles_over(word: str) -> None:
    found = [f"{message} -> {hint}" for _, message, hint in raised() if word in f"{message} {hint}"]
    assert found == []


def test_what_something_is_not_is_said_with_not() -> None:
    """\"X is not a store\", and never \"X is no store\"."""
    said = [f"{message} -> {hint}" for _, message, hint in raised()]
    assert [each for each in said if re.search(r"(?<!there) is no (?!longer)[a-z]", each)] == []
