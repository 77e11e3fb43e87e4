"""Shipping onto media that are small, full, worn out, counterfeit, pulled out, swapped or lost; and through one-way links."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import media
from tests.support.run import alone, run, says
from tests.support.zoo import noisy

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NAME = "night.bundle"
STICK = 72 << 20
"""Room for one pack of 48 MiB and a small one."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of 40 MB that do not compress, in four packs: three of three frames, one of the tenth."""
    folder = tmp_path_factory.mktemp("bundle")
    noisy(4).write(folder / "oci")
    run("export", "--from", f"oci:{folder}/oci", "-o", folder / NAME, "-q", "--no-store")
    return folder / NAME


@pytest.fixture
def fresh(bundle: Path, tmp_path: Path) -> Path:
    """The bundle, with nothing remembered of other tests' media."""
    copy = tmp_path / "here" / NAME
    shutil.copytree(bundle, copy, copy_function=os.link)
    return copy


@pytest.fixture
def sticks(tmp_path: Path) -> Iterator[Callable[[int, int], list[Path]]]:
    with contextlib.ExitStack() as stack:
        yield lambda count, size: [stack.enter_context(media.tmpfs(tmp_path, size)) for _ in range(count)]


def ids(folder: Path) -> dict[str, str]:
    listed = json.loads(run("images", "--from", f"oci:{folder}", "--json"))["images"]
    return {name: each["id"] for each in listed for name in each["names"]}


def packs(folder: Path) -> list[Path]:
    """The packs there; a file that gets its name while this looks is not one yet."""
    found = []
    for path in (folder / "blobs" / "sha256").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > 1 << 20:
                found.append(path)
    return found


def lands_whole(bundle: Path, *words: object, out: Path, store: Path) -> None:
    run("import", *words, "--to", f"oci:{out}", "--store", store)
    assert ids(out) == ids(bundle.parent / "oci")


def test_a_set_is_filled_one_by_one_and_taken_in_from_the_last(
    bundle: Path, fresh: Path, tmp_path: Path, sticks: Callable[[int, int], list[Path]]
) -> None:
    store, out, found = tmp_path / "store", tmp_path / "out", sticks(3, STICK)
    for number, stick in enumerate(found, 1):
        (stick / "holiday.jpg").write_bytes(b"mine")
        code, said = says("ship", fresh, stick)
        assert code == (0 if number == 3 else 14), said
        assert f"medium {number}," in said
        assert ("not written yet" in said) == (number < 3)
        assert alone(stick / NAME) == 0
        assert "one medium of a set" in run("verify", stick)
    for stick in reversed(found):
        assert (stick / "holiday.jpg").read_bytes() == b"mine"
        code, said = says("import", stick, "--to", f"oci:{out}", "--store", store)
        assert code == (0 if stick == found[0] else 14), said
    assert ids(out) == ids(bundle.parent / "oci")
    lands_whole(bundle, *found, out=tmp_path / "again", store=tmp_path / "other")


def test_a_medium_is_topped_up_and_a_full_set_begins_anew(
    fresh: Path, tmp_path: Path, sticks: Callable[[int, int], list[Path]]
) -> None:
    first, second, third = sticks(3, 300 << 20)
    run("ship", fresh, first)
    lost = packs(first / NAME)[0]
    lost.unlink()
    done = json.loads(run("ship", fresh, first, "--json"))
    assert lost.stat().st_size < done["media"][0]["bytes_written"] < lost.stat().st_size + 100_000
    done = json.loads(run("ship", fresh, second, "--json"))
    assert (done["media"][0]["number"], done["left_files"]) == (1, 0)
    run("import", second, "--to", f"oci:{tmp_path}/out", "--no-store")
    (first / NAME / "index.json").unlink()
    shutil.rmtree(first / NAME / "blobs")
    (fresh / "media.json").unlink()
    run("ship", fresh, first, third, "--anew")
    run("import", first, third, "--to", f"oci:{tmp_path}/more", "--no-store")


def test_a_lost_medium_and_a_rotten_one_cost_nothing(
    bundle: Path, fresh: Path, tmp_path: Path, sticks: Callable[[int, int], list[Path]]
) -> None:
    found = sticks(6, 60 << 20)
    planned = json.loads(run("ship", fresh, *found, "--parity", "30%", "--dry-run", "--json"))
    assert (sum(each["files"] for each in planned["media"]), planned["left_files"]) == (6, 0)
    assert not (fresh / "recovery").exists()
    code, said = says("ship", fresh, *found, "--parity", "30%")
    assert code == 0, said
    assert "more than the recovery files make up for" not in said
    shutil.rmtree(found[1] / NAME)
    store, out = tmp_path / "store", tmp_path / "out"
    for stick in found[:1:-1]:
        assert says("import", stick, "--to", f"oci:{out}", "--store", store)[0] in (0, 14)
    lands_whole(bundle, found[0], out=out, store=store)
    # and now one of the five that are left has a bad spot as well, which the other recovery file still makes up for
    spoiled = packs(found[0] / NAME)[0]
    data = bytearray(spoiled.read_bytes())
    data[len(data) // 2] ^= 1
    spoiled.write_bytes(data)
    assert says("verify", found[0])[0] == 13
    code, said = says("import", found[0], *found[2:], "--to", f"oci:{tmp_path}/more", "--no-store")
    assert code == 0, said
    assert "rebuilt from the recovery files" in said
    assert ids(tmp_path / "more") == ids(bundle.parent / "oci")


def test_more_loss_than_was_provided_for_is_named(
    fresh: Path, tmp_path: Path, sticks: Callable[[int, int], list[Path]]
) -> None:
    found = sticks(4, 110 << 20)
    run("ship", fresh, *found, "--parity", "30%")
    code, said = says("import", *found[:1], "--to", f"oci:{tmp_path}/out", "--no-store")
    assert code == 14
    assert "more files of this set complete the bundle" in said
    assert "(for app:" in said
    assert not (tmp_path / "out").exists()


def test_rot_without_recovery_files_is_named(
    fresh: Path, tmp_path: Path, sticks: Callable[[int, int], list[Path]]
) -> None:
    (stick,) = sticks(1, 300 << 20)
    run("ship", fresh, stick)
    spoiled = packs(stick / NAME)[0]
    data = bytearray(spoiled.read_bytes())
    data[len(data) // 2] ^= 1
    spoiled.write_bytes(data)
    code, said = says("import", stick, "--to", f"oci:{tmp_path}/out", "--no-store")
    assert code in (3, 13), said
    assert spoiled.name in said


def test_a_medium_of_another_bundle_is_refused(
    bundle: Path, fresh: Path, tmp_path: Path, sticks: Callable[[int, int], list[Path]]
) -> None:
    one, other = sticks(2, 300 << 20)
    run("export", "--from", f"oci:{bundle.parent}/oci", "app:0", "-o", tmp_path / "x" / NAME, "-q", "--no-store")
    run("ship", tmp_path / "x" / NAME, one)
    code, said = says("ship", fresh, one)
    assert code == 2, said
    assert "another bundle" in said
    run("verify", one)
    run("ship", fresh, other)
    code, said = says("import", one, other, "--to", f"oci:{tmp_path}/out", "--no-store")
    assert code == 2, said
    assert "of bundle" in said
    shutil.copytree(tmp_path / "x" / NAME, other / "second.bundle")
    code, said = says("import", other, "--to", f"oci:{tmp_path}/out", "--no-store")
    assert (code, "several bundles" in said) == (2, True)


def test_no_medium_no_room_no_writing(fresh: Path, tmp_path: Path, sticks: Callable[[int, int], list[Path]]) -> None:
    code, said = says("ship", fresh, tmp_path / "not-mounted")
    assert (code, "mount" in said) == (10, True)
    assert not (tmp_path / "not-mounted").exists()
    (small,) = sticks(1, 4 << 20)
    code, said = says("ship", fresh, small)
    assert code == 23, said
    assert not packs(small / NAME) if (small / NAME).exists() else True
    (tmp_path / "ro").mkdir()
    with media.read_only(tmp_path / "ro") as sealed:
        code, said = says("ship", fresh, sealed)
        assert code == 13, said
        assert "ead-only" in said


def test_a_counterfeit_does_not_leave_the_building(fresh: Path, tmp_path: Path) -> None:
    with media.counterfeit(tmp_path, 512 << 20, 96 << 20) as stick:
        code, said = says("ship", fresh, stick)
        assert code == 13, said
        assert "counterfeit" in said
        assert not (stick / NAME / "index.json").exists()
    with media.tmpfs(tmp_path, 300 << 20) as good:
        run("ship", fresh, good)
        run("import", good, "--to", f"oci:{tmp_path}/out", "--no-store")


@pytest.mark.parametrize("kind", [media.loop_ext4, media.loop_exfat], ids=["ext4", "exfat"])
def test_a_medium_is_ejected_when_it_is_read_back(fresh: Path, tmp_path: Path, kind: media.Kind) -> None:
    with kind(tmp_path, 300 << 20) as stick:
        code, said = says("ship", fresh, stick, "--eject")
        assert code == 0, said
        assert "safe to remove" in said
        assert not stick.is_mount()


def test_exfat_carries_it(bundle: Path, fresh: Path, tmp_path: Path) -> None:
    with media.loop_exfat(tmp_path, 300 << 20) as stick:
        run("ship", fresh, stick, "--parity", "20")
        lands_whole(bundle, stick, out=tmp_path / "out", store=tmp_path / "store")


def test_pulled_out_while_it_is_written(bundle: Path, fresh: Path, tmp_path: Path) -> None:
    with media.loop_exfat(tmp_path, 300 << 20) as stick:
        words = [sys.executable, "-m", "transfer", "ship", str(fresh), str(stick)]
        shipping = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while not (stick / NAME / "blobs" / "sha256").is_dir() or not packs(stick / NAME):
            assert shipping.poll() is None
            time.sleep(0.005)
        served = subprocess.run(
            ["pgrep", "-f", f"mount.exfat-fuse .*{stick}"], capture_output=True, text=True, check=True
        )
        for pid in served.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        said, _ = shipping.communicate()
        assert shipping.returncode == 13, said
        assert "Traceback" not in said
    with media.tmpfs(tmp_path, 300 << 20) as good:
        run("ship", fresh, good)
        lands_whole(bundle, good, out=tmp_path / "out", store=tmp_path / "store")


def test_killed_again_and_again(bundle: Path, fresh: Path, tmp_path: Path) -> None:
    with media.loop_ext4(tmp_path, 300 << 20) as stick:
        for seconds in (0.3, 0.4, 0.5, 0.6):
            words = [sys.executable, "-m", "transfer", "ship", str(fresh), str(stick)]
            shipping = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                shipping.wait(seconds)
            shipping.kill()
            shipping.wait()
        run("ship", fresh, stick)
        assert alone(stick / NAME) == 0
        assert not list(stick.rglob("*.part"))
        lands_whole(bundle, stick, out=tmp_path / "out", store=tmp_path / "store")


def test_asks_for_the_next_medium(fresh: Path, sticks: Callable[[int, int], list[Path]]) -> None:
    found = sticks(3, STICK)
    master, slave = pty.openpty()
    words = [sys.executable, "-m", "transfer", "ship", str(fresh), str(found[0])]
    shipping = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    said, answers = "", [str(found[1]), "/not/there", str(found[2])]
    while shipping.poll() is None or select.select([master], [], [], 0)[0]:
        if not select.select([master], [], [], 0.1)[0]:
            continue
        try:
            said += os.read(master, 4096).decode(errors="replace")
        except OSError:
            break
        if said.endswith("q to stop: "):
            os.write(master, f"{answers.pop(0)}\n".encode())
            said += "|"
    os.close(master)
    assert shipping.wait() == 0, said
    assert not answers
    assert "/not/there is not there" in said
    assert all(alone(stick / NAME) == 0 for stick in found)


def test_a_spool_is_picked_up_whatever_got_lost(bundle: Path, fresh: Path, tmp_path: Path) -> None:
    out, sent, come = tmp_path / "out", tmp_path / "sent", tmp_path / "come"
    sent.mkdir()
    come.mkdir()
    code, said = says("import", f"spool:{come}", "--no-store")
    assert code == 10, said
    run("ship", fresh, f"spool:{sent}", "--parity", "40%")
    assert [each.name for each in sent.rglob(".*")] == [".arrived"]
    files = sorted((path for path in sent.rglob("[!.]*") if path.is_file()), key=lambda path: path.stat().st_mtime_ns)
    assert files[0].parent.parent.parent.name == NAME
    assert all("again" in path.parts for path in files[-8:])
    lost = {"index.json", "oci-layout", *(path.name for path in packs(sent / NAME)[:2])}
    for number, path in enumerate(files):
        if path.name in lost and "again" not in path.parts:
            continue
        there = come / path.relative_to(sent)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, there)
        if number == len(files) // 2:
            code, said = says("import", f"spool:{come}", "--to", f"oci:{out}", "--store", tmp_path / "store")
            assert code == 14, said
    run("import", f"spool:{come}", "--to", f"oci:{out}", "--store", tmp_path / "store")
    assert ids(out) == ids(bundle.parent / "oci")
