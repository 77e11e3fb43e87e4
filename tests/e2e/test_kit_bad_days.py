"""The installer on bad days. The kits are small, their installer is the real one; so are the hosts, and what kills it."""

from __future__ import annotations

import io
import os
import pty
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import bare, engines, kits
from tests.support.bare import Bare

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.xdist_group("kit")]
INSTALL = "sh /media/stick/KIT/install.sh"
OLD, NEW = "1.0-aaaa", "2.0-bbbb"


@pytest.fixture
def host() -> Iterator[Bare]:
    engines.promised("kit")
    with bare.bare(bare.EMPTY) as made:
        yield made


@pytest.fixture
def debian() -> Iterator[Bare]:
    """Its shell starts a program for everything, where busybox does much in itself."""
    engines.promised("kit")
    with bare.bare("debian:12") as made:
        yield made


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    return kits.small(tmp_path / "KIT", NEW)


def installed(host: Bare, prefix: str = "opt/transfer") -> str:
    """The version in use, which is whole; "" if none is."""
    link = host.place / prefix
    if not link.is_symlink():
        assert not link.exists()
        return ""
    assert (link.parent / link.readlink() / "bin/transfer").is_file()
    return str(link.readlink()).removeprefix(f"{link.name}-")


def left_over(host: Bare) -> list[str]:
    """What is beside the versions and the links to them: not even a lock."""
    known = re.compile(r"transfer(\.before)?|transfer-[12]\.0-[ab]{4}")
    return [path.name for path in (host.place / "opt").glob("*") if not known.fullmatch(path.name)]


# 59: a kit that is not what it was


def flip(kit: Path, name: str) -> None:
    data = bytearray((kit / name).read_bytes())
    data[len(data) // 2] ^= 1
    (kit / name).write_bytes(data)


def shorten(kit: Path) -> None:
    lines = (kit / "SHA256SUMS").read_text().splitlines(keepends=True)
    (kit / "SHA256SUMS").write_text("".join(line for line in lines if "transfer-" not in line))


def malform(kit: Path) -> None:
    """A line that some programs only warn about, and another program."""
    lines = (kit / "SHA256SUMS").read_text().splitlines()
    (kit / "SHA256SUMS").write_text("".join(f"{'z' + line[1:] if 'tar.gz' in line else line}\n" for line in lines))
    flip(kit, next(kit.glob("transfer-*")).name)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte of the program": (lambda kit: flip(kit, next(kit.glob("transfer-*")).name), "transfer-"),
    "a byte of a document": (lambda kit: flip(kit, "docs/install.md"), "docs/install.md"),
    "a byte of the list": (lambda kit: flip(kit, "SHA256SUMS"), "SHA256SUMS"),
    "the list is shorter": (shorten, "not in its list"),
    "a malformed line": (malform, "SHA256SUMS is malformed"),
    "a name with a line break": (lambda kit: (kit / "docs/install.md\nkit.txt").write_text("x"), "line break"),
    "a file with two dots": (lambda kit: (kit / "..evil").write_text("x"), "..evil"),
    "the list is empty": (lambda kit: (kit / "SHA256SUMS").write_text(""), "not in its list"),
    "no list": (lambda kit: (kit / "SHA256SUMS").unlink(), "not a whole kit"),
    "one file more": (lambda kit: (kit / "docs/evil.sh").write_text("x"), "docs/evil.sh"),
    "a hidden file more": (lambda kit: (kit / "docs/.evil").write_text("x"), "docs/.evil"),
    "a link more": (lambda kit: (kit / "docs/link").symlink_to("/etc"), "docs/link"),
    "a file is gone": (lambda kit: (kit / "docs/install.md").unlink(), "docs/install.md"),
    "a link instead": (lambda kit: relink(kit / "docs/install.md"), "docs/install.md"),
}


def relink(path: Path) -> None:
    shutil.copy(path, path.parents[2] / "elsewhere")
    path.unlink()
    path.symlink_to("../../elsewhere")


@pytest.mark.parametrize("what", SPOILT)
def test_a_kit_that_is_not_what_it_was(host: Bare, kit: Path, what: str) -> None:
    spoil, named = SPOILT[what]
    spoil(kit)
    said = host.run(INSTALL, kit=kit)
    assert said.code == 13 and named in said.text and " -> " in said.text, said.text
    assert installed(host) == "" and left_over(host) == []


def test_bundles_that_were_put_into_it_are_nobody_elses_business(host: Bare, kit: Path) -> None:
    (kit / "bundles/feb.bundle").mkdir(parents=True)
    (kit / "bundles/feb.bundle/index.json").write_text("{}")
    assert "transfer import /media/stick/KIT/bundles/feb.bundle" in host.fine(INSTALL, kit=kit)


# 60: killed at every step, two at once, up and down and back

SHIM = """#!/bin/sh
n=$(/bin/cat /shim/count); n=$((n + 1)); echo $n > /shim/count
if [ $n = "$(/bin/cat /shim/at)" ]; then kill -9 "$(/bin/cat /shim/installer)"; exit 1; fi
exec /bin/%s "$@"
"""
STEPS = [*bare.APPLETS, "touch", "rmdir"]


def shims(host: Bare) -> None:
    """Every program that the installer starts counts, and kills the installer at one count."""
    folder = host.place / "shim/bin"
    folder.mkdir(parents=True)
    for name in STEPS:
        if name != "sh":
            (folder / name).write_text(SHIM % name)
            (folder / name).chmod(0o755)


KILLED = """
echo 0 > /shim/count; echo %d > /shim/at
PATH=/shim/bin:$PATH sh -c 'echo $$ > /shim/installer; exec sh /media/stick/KIT/install.sh' > /shim/said 2>&1
"""


def test_killed_at_every_step_of_an_upgrade(debian: Bare, kit: Path, tmp_path: Path) -> None:
    """At each of them the old or the new version is in use, whole; and the next run finishes."""
    old = kits.small(tmp_path / "OLD", OLD)
    shims(debian)
    debian.fine(INSTALL, kit=old)
    seen, steps = set(), 0
    for at in range(1, 100):
        steps += 1
        debian.run(KILLED % at, kit=kit)
        seen.add(installed(debian))
        whole = int((debian.place / "shim/count").read_text()) < at
        debian.fine(INSTALL, kit=kit)
        assert installed(debian) == NEW and left_over(debian) == []
        assert (debian.place / "opt/transfer.before").readlink() == Path(f"transfer-{OLD}")
        if whole:
            break
        debian.fine(INSTALL + " --rollback", kit=kit)
        debian.fine(f"rm -rf /opt/transfer-{NEW} /opt/transfer.before", kit=kit)
        assert installed(debian) == OLD
    assert seen == {OLD, NEW} and 15 < steps < 99


def test_it_calls_nobody(debian: Bare, kit: Path, tmp_path: Path) -> None:
    """Every connect(2) of the installer and of what it starts. (The real kit and the engine's packages: test_kit.py.)"""
    debian.fine(INSTALL, kit=kit, connects=tmp_path / "calls")
    calls = (tmp_path / "calls").read_text()
    assert "exited with 0" in calls and "AF_INET" not in calls


def test_two_at_once(host: Bare, kit: Path) -> None:
    """One is done, the other says so, or finds all done."""
    said = host.run(f"{INSTALL} > /one 2>&1 & {INSTALL} > /two 2>&1; echo $?; wait", kit=kit)
    texts = [(host.place / name).read_text() for name in ("one", "two")]
    assert any("installed: /opt/transfer" in text for text in texts), (texts, said.text)
    assert all("installed: /opt/transfer" in text or "another installation is under way" in text for text in texts), (
        texts
    )
    assert installed(host) == NEW and left_over(host) == []


def test_up_down_and_a_version_that_does_not_work(host: Bare, kit: Path, tmp_path: Path) -> None:
    old = kits.small(tmp_path / "OLD", OLD)
    broken = kits.small(
        tmp_path / "BROKEN", "3.0-cccc", '#!/bin/sh\n[ "$1" = --version ] || { echo "no such luck"; exit 1; }\n'
    )
    dead = kits.small(tmp_path / "DEAD", "4.0-dddd", "#!/bin/nothing\n")
    host.fine(INSTALL, kit=kit)
    host.fine(INSTALL, kit=old)
    assert installed(host) == OLD
    for each in (broken, dead):
        said = host.run(INSTALL, kit=each)
        assert said.code == 1 and " -> " in said.text, said.text
        assert installed(host) == OLD and left_over(host) == []
    assert "no such luck" in host.run(INSTALL, kit=broken).text
    host.fine(f"{INSTALL} --rollback", kit=old)
    assert installed(host) == NEW


def test_a_version_that_runs_is_not_taken_away(host: Bare, tmp_path: Path) -> None:
    """A sync that began before two upgrades reads its own files to its end."""
    with_loop = kits.small(tmp_path / "LOOP", OLD)
    host.fine(INSTALL, kit=with_loop)
    (host.place / f"opt/transfer-{OLD}/bin/busybox").write_bytes((host.place / "bin/busybox").read_bytes())
    (host.place / f"opt/transfer-{OLD}/bin/busybox").chmod(0o755)
    script = f"/opt/transfer-{OLD}/bin/busybox sleep 100 & sh /media/beside/{{}}/install.sh; sh /media/beside/{{}}/install.sh; ls /opt"
    kits.small(tmp_path / "TWO", NEW)
    kits.small(tmp_path / "THREE", "1.0-abab")
    said = host.fine(script.format("TWO", "THREE"), beside=tmp_path)
    assert f"transfer-{OLD}" in said.splitlines()
    host.fine("sh /media/beside/TWO/install.sh; sh /media/beside/THREE/install.sh", beside=tmp_path)
    assert not (host.place / f"opt/transfer-{OLD}").exists()


def test_what_somebody_else_made_stays(host: Bare, kit: Path, tmp_path: Path) -> None:
    """Neighbours with names like ours, another prefix, another program of the same name."""
    mine = ["transfer-2024-photos/a", "transfer-2024-photos.part.1/a", "transfer.lock/a", "transfer.new/a"]
    mine += ["transfer-9.9-eeee/bin/transfer", "transfer-9.9-eeee/share/install.sh"]
    for name in mine:
        (host.place / "opt" / name).parent.mkdir(parents=True, exist_ok=True)
        (host.place / "opt" / name).write_text("mine")
    (host.place / "usr/local/bin").mkdir(parents=True)
    (host.place / "usr/local/bin/transfer").symlink_to("/opt/transfer-venv/bin/transfer")
    other = kits.small(tmp_path / "OLD", OLD)
    host.fine(f"{INSTALL} --prefix /opt/transfer-2", kit=kit)
    said = host.fine(INSTALL, kit=other)
    assert "is another program, and stays" in said and "  /opt/transfer/bin/transfer images" in said
    host.fine(INSTALL, kit=kit)
    assert installed(host) == NEW and installed(host, "opt/transfer-2") == NEW
    host.fine(f"{INSTALL} --uninstall", kit=kit)
    assert installed(host) == "" and installed(host, "opt/transfer-2") == NEW
    assert all((host.place / "opt" / name).read_text() == "mine" for name in mine)
    assert (host.place / "usr/local/bin/transfer").is_symlink()


def test_the_same_kit_again_where_its_demo_fails(host: Bare, tmp_path: Path) -> None:
    """For a passing reason, such as a full disk: what is installed stays, and is replaced when it can be."""
    program = '#!/bin/sh\n[ "$1" != demo ] || [ ! -e /nodemo ]\n'
    kit = kits.small(tmp_path / "KIT", NEW, program)
    host.fine(INSTALL, kit=kit)
    (host.place / "nodemo").write_text("")
    assert host.run(INSTALL, kit=kit).code == 1
    assert installed(host) == NEW and left_over(host) == []
    (host.place / "nodemo").unlink()
    (host.place / f"opt/transfer-{NEW}/bin/transfer").write_text("#!/bin/sh\nexit 1\n")  # a bad sector
    assert "unpacking" in host.fine(INSTALL, kit=kit)
    assert (host.place / f"opt/transfer-{NEW}/bin/transfer").read_text() == program


STALE = """
mkdir -p /opt/transfer.work/tree; ln -s '999999 nobody 1' /opt/transfer.work/lock
for n in 1 2 3; do sh /media/stick/KIT/install.sh > /said.$n 2>&1 & done; wait
grep -h '^unpacking' /said.*; grep -hv -e '^[a-z ]*installed: ' -e '^unpacking' -e '^trying' -e '^no systemd' -e '^next:' -e '^  ' /said.* || true
sh /media/stick/KIT/install.sh --uninstall
"""


@pytest.mark.parametrize("root", [bare.EMPTY, "debian:12"])
def test_a_lock_whose_owner_is_gone_and_three_who_want_it(root: str, kit: Path) -> None:
    """One gets it; the others say that it is at work, or come after it and find all done. (What the killed run left has no mark any more.)"""
    engines.promised("kit")
    with bare.bare(root) as host:
        if root == bare.EMPTY:
            (host.place / "bin/grep").symlink_to("busybox")
        for _ in range(8):
            said = host.fine(STALE, kit=kit).splitlines()
            assert said[0] == "unpacking transfer 2.0-bbbb" and said[-1].startswith("transfer is removed"), said
            assert all("another installation is under way" in line for line in said[1:-1]), said
            assert left_over(host) == []


def test_rollback_and_uninstall_of_a_copy_and_after_kills(host: Bare, kit: Path, tmp_path: Path) -> None:
    """The copy in a version knows its own prefix; one place has one name; a rollback that was killed half-way is done again."""
    old = kits.small(tmp_path / "OLD", OLD)
    host.fine(INSTALL, kit=kit)
    (host.place / "srv").mkdir()
    for each in (old, kit):
        host.fine(f"{INSTALL} --prefix /srv/../srv/my-transfer", kit=each)
    (host.place / "srv/my-transfer.before").unlink()
    (host.place / "srv/my-transfer.before").symlink_to(f"my-transfer-{NEW}")
    host.fine("sh /srv/my-transfer/share/install.sh --rollback")
    assert installed(host, "srv/my-transfer") == OLD
    host.fine("sh /srv/my-transfer/share/install.sh --uninstall")
    assert list((host.place / "srv").iterdir()) == [] and installed(host) == NEW
    said = host.run("sh /opt/transfer/share/install.sh")
    assert said.code == 2 and "run install.sh in a kit" in said.text
    host.fine(
        "mkdir -p /opt/transfer.work; ln -s '9 x 1' /opt/transfer.work/lock; sh /opt/./transfer/share/install.sh --uninstall"
    )
    assert list((host.place / "opt").iterdir()) == []


UNITS = {"systemctl": "exit 0", "systemd-sysusers": "exit 0", "systemd-tmpfiles": "exit 0"}
UNIT = "usr/local/lib/systemd/system/transfer-x.service"


def test_files_outside_of_the_prefix(debian: Bare, kit: Path, tmp_path: Path) -> None:
    """Ours are replaced and removed, also after a kill in between; somebody else's are neither written nor followed."""
    for name, text in UNITS.items():
        (debian.place / "usr/bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (debian.place / "usr/bin" / name).chmod(0o755)
    old = kits.small(tmp_path / "OLD", OLD)
    for each, text in ((old, "old"), (kit, "new")):
        for name in (
            "transfer-x.service",
            "sysusers.d/transfer.conf",
            "tmpfiles.d/transfer.conf",
            "udev/90-transfer.rules",
        ):
            (each / "units" / name).parent.mkdir(parents=True, exist_ok=True)
            (each / "units" / name).write_text(f"{text} @PREFIX@/bin/transfer\n")
        for kind in ("timer", "path", "socket"):
            (each / "units" / f"transfer-x.{kind}").write_text(f"{text}\n")
        kits.write_sums(each)
    unit, rules = debian.place / UNIT, debian.place / "etc/udev/rules.d/90-transfer.rules"
    rules.parent.mkdir(parents=True)
    rules.symlink_to("/nfs/not/mounted")
    debian.fine(INSTALL, kit=old)
    assert unit.read_text() == "old /opt/transfer/bin/transfer\n"
    memory = debian.place / "usr/local/share/transfer-kit"
    (memory / "next" / UNIT).write_text(
        "new /opt/transfer/bin/transfer\n"
    )  # an upgrade that was killed before it remembered
    unit.write_text("new /opt/transfer/bin/transfer\n")
    debian.fine(INSTALL, kit=old)
    assert unit.read_text() == "old /opt/transfer/bin/transfer\n"
    (debian.place / "srv/mine").write_text("mine")
    unit.unlink()
    unit.symlink_to("/srv/mine")
    said = debian.fine(INSTALL, kit=kit)
    assert f"/{UNIT} is not as this installer wrote it, and stays" in said
    assert (debian.place / "srv/mine").read_text() == "mine" and rules.is_symlink()
    said = debian.fine(f"{INSTALL} --uninstall", kit=kit)
    assert unit.is_symlink() and rules.is_symlink() and not memory.exists()
    assert [path.name for path in unit.parent.iterdir()] == ["transfer-x.service"]


# 61: places


def test_a_path_with_blanks_and_links(host: Bare, kit: Path) -> None:
    (host.place / "srv/real place").mkdir(parents=True)
    (host.place / "srv/link").symlink_to("real place")
    host.fine(f"{INSTALL} --no-units --prefix '/srv/link/my tools/transfer'", kit=kit)
    assert installed(host, "srv/real place/my tools/transfer") == NEW
    host.fine(f"{INSTALL} --prefix '/srv/link/my tools/transfer' --uninstall", kit=kit)
    assert list((host.place / "srv/real place/my tools").iterdir()) == []


@pytest.mark.parametrize(
    ("before", "words", "code", "told"),
    [
        ("mount -t tmpfs -o noexec,mode=755 tmpfs /opt", "", 1, "noexec"),
        ("mount -t tmpfs -o ro,mode=755 tmpfs /opt", "", 1, "read-only"),
        ("mount -t tmpfs -o size=8k,mode=755 tmpfs /opt", "", 23, "have to be free"),
        ("mount -t tmpfs tmpfs /opt", "", 2, "everybody can write"),
        ("mkdir -m 777 /srv; mkdir /srv/x", "--prefix /srv/x/transfer", 2, "everybody can write in /srv"),
        (f"mkdir -p /opt/transfer-{NEW}; mount -t tmpfs tmpfs /opt/transfer-{NEW}", "", 2, "did not make"),
        ("mkdir /opt/transfer", "", 2, "did not make"),
        ("echo mine > /opt/transfer.before", "", 2, "did not make"),
        ("mkdir /opt/transfer.work; echo mine > /opt/transfer.work/x", "", 2, "did not make"),
        (f"mkdir /opt/transfer-{NEW}; echo mine > /opt/transfer-{NEW}/x", "", 2, "did not make"),
        ("", "--prefix /srv/a:b/transfer", 2, "no place for a program"),
        ("", "--prefix /srv/x/..", 2, "no place for a program"),
        ("", "--prefix /srv/-v", 2, "no place for a program"),
        ("", "--prefix '/srv/my tools/transfer'", 2, "--no-units"),
        ("ln -s /srv /opt/transfer", "", 2, "did not make"),
        ("", "--user", 2, "HOME is not set"),
        ("", "--nonsense", 2, "--help"),
        ("", "--prefix", 2, "needs a value"),
        ("", "--site ../x", 2, "letters"),
        ("", "--rollback", 1, "no version from before"),
        ("", "--engine", 2, "brings no engine"),
        ("", "--prefix /", 2, "no place for a program"),
    ],
)
def test_places_that_do_not_do(host: Bare, kit: Path, before: str, words: str, code: int, told: str) -> None:
    """Each is one line, what to do is another, and nothing is left."""
    (host.place / "opt").mkdir()
    said = host.run(f"{before or ':'}; {INSTALL} {words}", kit=kit, env={})
    assert said.code == code and told in said.text, said.text
    assert "\n  -> " in said.text
    assert [name for name in left_over(host) if name != "transfer.work" or "work" not in before] == []
    for mine in (host.place / "opt").glob("*/x"):
        assert mine.read_text() == "mine\n"


def test_without_a_home_and_with_a_narrow_umask(host: Bare, kit: Path) -> None:
    host.fine(f"umask 077; {INSTALL}", kit=kit, env={})
    for path in (host.place / "opt/transfer/").rglob("*"):
        assert path.stat().st_mode & 0o044 == 0o044, path


def test_for_oneself(host: Bare, kit: Path) -> None:
    host.fine(f"{INSTALL} --user", kit=kit, env={"HOME": "/root"})
    assert installed(host, "root/.local/opt/transfer") == NEW
    assert str((host.place / "root/.local/bin/transfer").readlink()) == "/root/.local/opt/transfer/bin/transfer"
    assert not (host.place / "opt").exists()


# 62, 63, 65: other machines, profiles, hosts without sha256sum


def test_a_kit_for_another_machine(host: Bare, kit: Path) -> None:
    (kit / "kit.txt").write_text("sparc64 1.0-aaaa\n")
    kits.write_sums(kit)
    said = host.run(INSTALL, kit=kit)
    assert said.code == 2 and "the kit is for: sparc64" in said.text and "--arch" in said.text


def test_without_sha256sum(debian: Bare, kit: Path) -> None:
    """The kit's own Python compares; the one of this kit finds everything wrong."""
    debian.fine("rm /usr/bin/sha256sum /usr/bin/shasum; ! command -v busybox")
    said = debian.run(INSTALL, kit=kit)
    assert said.code == 13 and "the kit's own Python compares" in said.text and "SHA256SUMS" in said.text
    assert installed(debian) == "" and left_over(debian) == []


def test_it_asks_for_the_sites_name_once(host: Bare, tmp_path: Path) -> None:
    """On a terminal; the site's file comes out of the kit, unless there is one already."""
    kit = kits.small(
        tmp_path / "KIT",
        NEW,
        '#!/bin/sh\necho "$@" >> /said\n[ "$1" != receipt ] || { mkdir -p "$5"; : > "$5/site.json"; }\n',
    )
    (kit / "sites").mkdir()
    (kit / "sites/plant-7.toml").write_text("version = 1\n")
    kits.write_sums(kit)
    master, slave = pty.openpty()
    try:
        for answer, told in (("../x", "no name for a site"), ("plant-7", "is called plant-7"), ("plant-8", "next:")):
            os.write(master, f"{answer}\n".encode())
            said = host.run(INSTALL, kit=kit, stdin=slave)
            assert said.code == 0 and told in said.text, said.text
        assert "The name of this site" not in said.text
    finally:
        os.close(master)
        os.close(slave)
    assert "receipt --site plant-7 --store /var/lib/transfer" in (host.place / "said").read_text()
    assert (host.place / "etc/transfer/sites/plant-7.toml").read_text() == "version = 1\n"
    (host.place / "etc/transfer/sites/plant-7.toml").write_text("# mine\n")
    host.fine(f"{INSTALL} --site plant-7", kit=kit)
    assert (host.place / "etc/transfer/sites/plant-7.toml").read_text() == "# mine\n"


def test_an_engine_that_was_fetched_elsewhere(debian: Bare, kit: Path) -> None:
    """Docker's static archive: its programs, and units for them. (Packages of RHEL are handed to dnf or rpm; there is none here.)"""
    (kit / "engine/files").mkdir(parents=True)
    programs = {"docker/dockerd": "#!/bin/sh\necho dockerd\n", "docker/docker": "#!/bin/sh\necho docker\n"}
    with tarfile.open(kit / "engine/files/docker-29.1.0.tgz", "w:gz") as archive:
        for name, text in programs.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text), 0o755
            archive.addfile(member, io.BytesIO(text.encode()))
    kits.write_sums(kit)
    said = debian.fine(f"{INSTALL} --engine; dockerd; docker", kit=kit)
    assert said.endswith("dockerd\ndocker\n")
    assert (
        "ExecStart=/usr/local/bin/dockerd" in (debian.place / "usr/local/lib/systemd/system/docker.service").read_text()
    )


def test_a_failure_leaves_nothing_wherever_it_ends(debian: Bare, kit: Path) -> None:
    """An engine whose packages apt does not take, because there are none."""
    place = kit / f"engine/debian-12-{os.uname().machine}"
    place.mkdir(parents=True)
    (place / "install.txt").write_text("no-such-engine\n")
    (place / "Packages").write_text("")
    kits.write_sums(kit)
    for _ in range(2):
        said = debian.run(f"{INSTALL} --engine", kit=kit)
        assert said.code == 20 and "apt did not install no-such-engine" in said.text, said.text
        assert installed(debian) == NEW and left_over(debian) == []


def test_dry_run_changes_nothing(host: Bare, kit: Path) -> None:
    before = sorted(str(path) for path in host.place.rglob("*"))
    said = host.fine(f"{INSTALL} --dry-run; {INSTALL} --uninstall --dry-run", kit=kit)
    assert said.startswith("would unpack")
    assert sorted(str(path) for path in host.place.rglob("*")) == before
