"""What the program says of itself: help, examples, completion, man pages, doctor, log."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from tests.support.run import run, says
from tests.support.zoo import zoo
from transfer.cli import completing
from transfer.cli.main import app


def commands(command: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that people see, with the words that call it."""
    command = command or get_command(app)
    yield words, command
    for name, each in getattr(command, "commands", {}).items():
        if not each.hidden:
            yield from commands(each, (*words, name))


ALL = dict(commands())


def test_each_line_of_the_list_is_whole() -> None:
    for words in ((), ("store",), ("receipt",)):
        shown = run(*words, "--help", env={"COLUMNS": "80"})
        listed = shown.partition("Commands:")[2]
        assert "..." not in listed, listed


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_both_help_options_work_and_every_option_is_explained(words: tuple[str, ...]) -> None:
    assert run(*words, "-h") == run(*words, "--help")
    for parameter in ALL[words].params:
        assert parameter.help, parameter.name


@pytest.mark.parametrize(
    "words", [words for words in ALL if words and not hasattr(ALL[words], "commands")], ids=" ".join
)
def test_examples_are_commands_that_exist(words: tuple[str, ...]) -> None:
    """Each is parsed by the command it shows."""
    epilog = ALL[words].epilog or ""
    for line in epilog.split("\n")[2:]:
        typed = shlex.split(line)
        start = typed.index("transfer") + 1
        while typed[start].startswith("-"):
            start += 1
        command = get_command(app).commands[typed[start]]  # type: ignore[attr-defined]
        command.make_context(typed[start], typed[start + 1 :])


def test_a_usage_error_names_the_commands_own_help() -> None:
    code, said = says("store", "prune", "--nonsense")
    assert code == 2
    assert "transfer store prune --help" in said


def test_every_command_has_a_man_page(tmp_path: Path) -> None:
    tool = Path(__file__).parents[2] / "tools" / "manpages.py"
    subprocess.run([sys.executable, tool, tmp_path], check=True)
    for words, command in ALL.items():
        text = (tmp_path / f"{'-'.join(('transfer', *words))}.1").read_text(encoding="utf-8")
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--"):
                    assert option.replace("-", "\\-") in text, (words, option)
        assert not re.search(r"^[.'](?!TH|SH|TP|B |nf|fi)", text, re.MULTILINE)


def complete(words: str) -> list[str]:
    """What bash is offered for this line."""
    env = {"_TRANSFER_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    return says(env=env)[1].split()


def test_names_transports_and_bundles_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo().write(tmp_path / "oci")
    run("export", "--from", f"oci:{tmp_path}/oci", "-o", tmp_path / "b", "-q", "--no-store")
    assert "zoo/plain:1" in complete(f"transfer export to read an OCI layout, use --from oci:{tmp_path}/oci zoo/pl")
    assert complete("transfer export --from do") == ["docker-archive:", "docker-daemon:", "docker://"]
    assert complete("transfer import --via pu") == ["pull"]
    assert str(tmp_path / "b") in complete(f"transfer inspect {tmp_path}/")
    assert complete(f"transfer export to read an OCI layout, use --from oci:{tmp_path}/none x") == []


def test_completion_never_fails() -> None:
    assert completing.images(None, "x") == []  # type: ignore[arg-type]


def test_names_come_out_of_a_file(tmp_path: Path) -> None:
    zoo().write(tmp_path / "oci")
    (tmp_path / "names").write_text("# what plant 7 needs\nzoo/twice:1\n\n  zoo/gzip:1  # and this\n", encoding="utf-8")
    source = f"oci:{tmp_path}/oci"
    run("export", "--names", tmp_path / "names", "--from", source, "-o", tmp_path / "b", "-q", "--no-store")
    found = json.loads(run("inspect", tmp_path / "b", "--json"))["images"]
    assert sorted(name for each in found for name in each["names"]) == ["zoo/gzip:1", "zoo/twice:1"]
    (tmp_path / "empty").write_text("# nothing\n", encoding="utf-8")
    assert says("export", "--names", tmp_path / "empty", "--from", source, "-o", tmp_path / "c")[0] == 2


def test_a_wrong_tag_is_told_with_the_right_ones(tmp_path: Path) -> None:
    zoo().write(tmp_path / "oci")
    code, said = says("plan", "zoo/plain:2", "--from", f"oci:{tmp_path}/oci")
    assert code == 10
    assert "did you mean zoo/plain:1, zoo/plain:latest?" in said


def test_doctor_looks_at_everything(tmp_path: Path) -> None:
    env = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    found = json.loads(run("doctor", "--json", "--store", tmp_path / "s", env=env))["findings"]
    subjects = [each["subject"] for each in found]
    for subject in (
        "transfer",
        "Python",
        "libraries",
        "programs",
        "clock",
        "engine",
        "store",
        "this folder",
        "environment",
    ):
        assert subject in subjects
    assert next(each for each in found if each["subject"] == "engine")["advice"]
    assert "this folder" in run("doctor", "--store", tmp_path / "s", env=env)


def test_a_log_says_what_was_done(tmp_path: Path) -> None:
    zoo().write(tmp_path / "oci")
    words = ("export", "--from", f"oci:{tmp_path}/oci", "-o", tmp_path / "b", "-q", "--no-store")
    run(*words, env={"TRANSFER_LOG": str(tmp_path / "log")})
    text = (tmp_path / "log").read_text(encoding="utf-8")
    assert "transfer.flows.export: layer sha256:" in text
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0
    code, said = says("-v", *words[:-4], "-o", tmp_path / "c", "-q", "--no-store")
    assert code == 0
    assert "transfer.flows.export: layer" in said
    assert says("images", "--from", f"oci:{tmp_path}/oci", env={"TRANSFER_LOG": "/nowhere/log"})[0] == 2
