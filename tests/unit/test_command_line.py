"""What the command line promises whatever the command: exit codes, signals, closed pipes, bars, JSON."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import transfer as package
from tests.support.run import run, says, transfer
from tests.support.zoo import Layout, layer, noise
from transfer.cli.render import print_json
from transfer.errors import EXIT_CODES, TransferError, from_os_error

DOCS = Path(__file__).parents[2] / "docs"


def all_kinds(kind: type[TransferError] = TransferError) -> list[type[TransferError]]:
    return [kind, *(each for below in kind.__subclasses__() for each in all_kinds(below))]


def test_every_failure_has_a_code_that_is_in_the_table() -> None:
    for module in pkgutil.walk_packages(package.__path__, "transfer."):  # their kinds of failure too
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert {kind.exit_code for kind in all_kinds()} <= EXIT_CODES.keys()
    slugs = [kind.slug for kind in all_kinds() if "slug" in vars(kind)]
    assert len(set(slugs)) == len(slugs)


def test_the_guide_has_the_same_table() -> None:
    text = (DOCS / "operators-guide.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    rows = re.findall(r"^\| ([0-9]+) \| (.+?) \|$", text, re.MULTILINE)
    assert {int(code): words for code, words in rows} == EXIT_CODES


def test_no_permission_is_no_damage() -> None:
    assert from_os_error(PermissionError(13, "Permission denied"), "reading x").exit_code == 24
    assert from_os_error(OSError(5, "Input/output error"), "reading x").exit_code == 13


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough to be at work for a while."""
    made = Layout()
    for number in range(4):
        made.name(made.image([layer({f"f{n}": noise(100 * number + n, 2 << 20) for n in range(20)})]), f"app:{number}")
    return made.write(tmp_path_factory.mktemp("layout"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_with_a_word(number: signal.Signals, code: int, layout: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "transfer",
        "export",
        "--from",
        f"oci:{layout}",
        "-o",
        str(tmp_path / "b"),
        "--level",
        "12",
    ]

    def heed() -> None:  # the tests themselves may run under nohup, which ignores signals for all it starts
        signal.signal(number, signal.SIG_DFL)

    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    assert process.stderr
    while not list(tmp_path.glob("b/.transfer/pack-*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    said = process.stderr.read()
    assert process.wait() == code
    assert "stopped; run the same command again to resume" in said
    process.stderr.close()
    run("export", "--from", f"oci:{layout}", "-o", tmp_path / "b", "--level", "12", "-q")
    run("verify", tmp_path / "b", "-q")


def test_what_reads_the_output_may_go_away(layout: Path, tmp_path: Path) -> None:
    for words in (["images", "--from", f"oci:{layout}"], ["--help"], ["images", "--json", "--from", f"oci:{layout}"]):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            [sys.executable, "-m", "transfer", *words], stdout=write, stderr=subprocess.PIPE, check=False
        )
        os.close(write)
        assert (done.returncode, done.stderr) == (141, b""), words


def on_a_terminal(*words: object, columns: int, env: dict[str, str]) -> tuple[int, str]:
    """A command whose standard error is a terminal of so many columns (0: it does not say); exit code, and what it shows."""
    try:
        ours, theirs = pty.openpty()
    except OSError as error:
        pytest.skip(f"this machine has no terminals to give: {error}")  # a bare chroot without /dev/pts
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
    command = [sys.executable, "-m", "transfer", *map(str, words)]
    process = subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL, env={**os.environ, **env})
    os.close(theirs)
    shown = bytearray()
    while select.select([ours], [], [], 60)[0]:
        try:
            shown += os.read(ours, 65536)
        except OSError:
            break
    os.close(ours)
    return process.wait(), shown.decode(errors="replace")


@pytest.mark.parametrize("columns", [80, 0])
def test_a_bar_is_drawn_on_every_terminal(columns: int, layout: Path, tmp_path: Path) -> None:
    words = ["export", "--from", f"oci:{layout}", "-o", tmp_path / "b", "--level", "1"]
    code, shown = on_a_terminal(*words, columns=columns, env={"LC_ALL": "C"})
    assert code == 0, shown
    assert "reading:" in shown
    assert shown.isascii()


def test_a_bar_that_cannot_be_drawn_ends_nothing(layout: Path, tmp_path: Path) -> None:
    words = ["export", "--from", f"oci:{layout}", "-o", tmp_path / "b", "--level", "1"]
    code, shown = on_a_terminal(*words, columns=80, env={"TQDM_ASCII": "1", "TQDM_MININTERVAL": "no"})
    assert code == 0, shown


def test_a_usage_error_names_the_help_of_its_command() -> None:
    assert "see transfer images --help" in says("images", "--nonsense")[1]
    assert says("images", "-h")[0] == 0


def test_json_has_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": "\x1b[2J \x9b \u202e \udcff \u2028 é"})
    said = capsys.readouterr().out
    assert said.rstrip("\n").isprintable()
    assert json.loads(said)["a"] == "\x1b[2J \x9b \u202e \udcff \u2028 é"
    said.encode()


def test_a_folder_whose_name_is_no_text_is_told_in_json(layout: Path, tmp_path: Path) -> None:
    run("export", "--from", f"oci:{layout}", "app:0", "-o", tmp_path / "b", "-q", "--level", "1")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/n\xff")
    (tmp_path / "b").rename(odd)
    command = [sys.executable, "-m", "transfer", "verify", "--json", odd]
    done = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(done.stdout.decode("utf-8", "strict"))["sound"]


def test_images_are_picked_by_pattern(layout: Path) -> None:
    listed = json.loads(run("images", "*:1", "app:2", "--from", f"oci:{layout}", "--json"))["images"]
    assert sorted(each["names"][0] for each in listed) == ["app:1", "app:2"]
    assert transfer("images", "nothing", "--from", f"oci:{layout}").returncode == 10


def test_a_plan_says_the_bytes_of_the_folder(layout: Path, tmp_path: Path) -> None:
    """Also where a finished bundle lies at the output."""
    words = ["--from", f"oci:{layout}", "--level", "1"]
    run("export", "app:0", *words, "-o", tmp_path / "base", "-q")
    plan = json.loads(run("plan", *words, "--base", tmp_path / "base", "-o", tmp_path / "base", "--json"))
    run("export", *words, "--base", tmp_path / "base", "-o", tmp_path / "b", "-q")
    size = sum(path.stat().st_size for path in (tmp_path / "b").rglob("*") if path.is_file())
    assert plan["bytes_needed"] == plan["delta"]["bytes_folder"] == size


@pytest.mark.parametrize("lost", ["2>/dev/full", "2> >(exec true)", "2>&-"])
def test_complaints_that_nobody_can_read_end_nothing(tmp_path: Path, lost: str) -> None:
    layout = Layout()
    for number in range(3):
        layout.name(layout.image([layer({"a": b"%d" % number})]), f"app/{number}:1")
    layout.write(tmp_path / "oci")
    for words, code in (
        (["export", "--from", f"oci:{tmp_path}/oci", "*", "-o", f"{tmp_path}/b", "--no-store"], 0),
        (["import", f"{tmp_path}/b", "--to", f"oci:{tmp_path}/images", "--no-store"], 0),
        (["verify", f"{tmp_path}/nothing"], 10),
    ):
        command = ["bash", "-c", f'sleep 0.1; "$@" {lost}', "bash", sys.executable, "-m", "transfer", *words]
        assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == code, words
