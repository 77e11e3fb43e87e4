"""The kit on hosts with nothing: installed, tried, upgraded, taken back and removed, with no network."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import bare, engines, kits
from tests.support.booted import machine
from tests.support.run import run
from tests.support.zoo import Layout, layer
from transfer.kits.elf import read_elf
from transfer.kits.tree import LOADERS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.xdist_group("kit")]
PROFILE = {
    "LD_PRELOAD": "/lib/nothing.so",
    "LD_LIBRARY_PATH": "/evil:/lib",
    "LD_BIND_NOW": "1",
    "GCONV_PATH": "/evil",
    "LOCPATH": "/evil",
    "LANG": "xx_XX.UTF-8",
    "PYTHONHOME": "/evil",
    "PYTHONPATH": "/evil",
    "PYTHONSTARTUP": "/evil/start.py",
    "PYTHONSAFEPATH": "",
    "PYTHONOPTIMIZE": "2",
    "CDPATH": "/evil",
    "TMPDIR": "/tmp",
}
"""What a host's profile may set for another Python and another C library."""
CALLS = "grep ^Ip: /proc/net/snmp"
"""How often anything wanted to go where no way leads is one of the numbers (OutNoRoutes): a connection that anything tried."""
CALL = """/opt/transfer/bin/python3 -c 'import socket; print(socket.socket().connect_ex(("192.0.2.1", 80)))'"""
"""Trying one: it has to be seen in the numbers."""
LOOPBACK = """import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 1))"""
"""Bringing up the interface that every host has: what podman pulls from is there."""
USES = {
    "docker.io": f"""
        mkdir -p /var/lib/docker; mount -t tmpfs tmpfs /var/lib/docker  # an overlay takes no layers out of an overlay
        dockerd > /tmp/dockerd.log 2>&1 &
        for _ in $(seq 60); do if docker info > /dev/null 2>&1; then break; fi; sleep 0.5; done
        transfer import /media/stick/KIT/bundles/night.bundle
        docker run --rm --network none {engines.SMALL_IMAGE}""",
    "podman": f"""
        /opt/transfer/bin/python3 -c '{LOOPBACK}'
        transfer import /media/stick/KIT/bundles/night.bundle --to podman:
        umount /sys/fs/cgroup/unified 2> /dev/null || true  # crun wants no machine that has both kinds of cgroups
        podman --events-backend file run --rm --cgroups disabled --network none {engines.SMALL_IMAGE}""",
}
"""How an engine's first image and container come to be."""
GOLDEN = kits.REPOSITORY / "bundles/golden/v1"
MACHINE = platform.machine()
INSTALL = "sh /media/stick/KIT/install.sh"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the kits are; `first` is one without anything else."""
    engines.promised("kit")
    place = tmp_path_factory.mktemp("kits")
    kits.transfer("kit", "-q", "-o", place / "first")
    return place


@pytest.fixture(scope="module")
def newer(made: Path) -> Path:
    """The next version's, with the Python of the first."""
    program = kits.newer_program(made / "program")
    kits.transfer("kit", "-q", "-o", made / "newer", "--python-from", made / "first", program=program)
    return made / "newer"


@pytest.mark.parametrize("root", [bare.EMPTY, *bare.SUITES])
def test_from_nothing_and_back(root: str, made: Path, newer: Path) -> None:
    """Install, try, import, verify, upgrade, go back, remove: the store and the configuration stay."""
    version = (made / "first/kit.txt").read_text().split()[1]
    with bare.bare(root) as host:
        said = host.fine(
            f"""
            {INSTALL} --site plant-7
            transfer --version
            transfer demo --quiet
            for each in zoo gzip folds1; do
                transfer import /media/beside/$each --to oci:/root/images
                transfer verify --deep /media/beside/$each
            done
            transfer doctor --offline || echo "not ready: $?"
            mkdir -p /etc/transfer/sites; echo "# mine" > /etc/transfer/sites/mine.toml
            {INSTALL}
            """,
            kit=made / "first",
            beside=GOLDEN,
        )
        assert said.count("trying it") == 1, said  # the second time all was there
        assert "ready      site    plant-7" in said and "not ready: 2" in said
        assert (host.place / "opt/transfer").readlink() == Path(f"transfer-{version}")
        said = host.fine(
            f"""
            {INSTALL}
            transfer --version
            sh /opt/transfer/share/install.sh --rollback; transfer --version
            sh /opt/transfer/share/install.sh --rollback; transfer --version
            transfer verify /media/beside/zoo
            sh /opt/transfer/share/install.sh --uninstall
            sh /media/stick/KIT/install.sh --uninstall
            """,
            kit=newer,
            beside=GOLDEN,
        )
        assert re.findall(r"^transfer ([0-9.]+)$", said, re.MULTILINE) == [kits.NEXT, version.split("-")[0], kits.NEXT]
        left = {path.name for path in (host.place / "opt").iterdir()}
        assert not [name for name in left if name.startswith("transfer")]
        assert not (host.place / "usr/local/bin/transfer").is_symlink()
        assert (host.place / "var/lib/transfer/site.json").is_file()
        assert (host.place / "etc/transfer/sites/mine.toml").is_file()
        assert (host.place / "root/images/index.json").is_file()


def test_a_profile_that_is_meant_for_another_python(made: Path) -> None:
    """Also where the host's own Python is broken, the working folder holds modules of our names, and the prefix is another one."""
    with bare.bare("debian:13") as host:
        for name in ("transfer", "json", "encodings"):
            (host.place / "evil" / name).mkdir(parents=True)
            (host.place / "evil" / name / "__init__.py").write_text("raise SystemExit('evil')\n")
        (host.place / "usr/bin/python3").unlink(missing_ok=True)
        (host.place / "usr/bin/python3").write_text("#!/bin/sh\nexit 99\n")
        (host.place / "usr/bin/python3").chmod(0o755)
        said = host.fine(
            f"""
            cd /evil
            {INSTALL} --no-units --prefix "/opt/other place/transfer" 2>&1
            {INSTALL} 2>&1
            for each in transfer "/opt/other place/transfer/bin/transfer"; do
                "$each" demo --quiet
                "$each" verify /media/beside/zoo
            done
            """,
            kit=made / "first",
            beside=GOLDEN,
            env=PROFILE,
        )
    assert said.count("/media/beside/zoo: sound") == 2, said


def test_the_whole_docker_course_from_one_stick(made: Path, tmp_path: Path) -> None:
    """A Debian with nothing on it, no network: the program, the engine, the image, a container."""
    archive = engines.small_image(tmp_path)
    run("export", "--from", f"docker-archive:{archive}", "-o", tmp_path / "night.bundle", "-q", "--no-store")

    kit = made / "docker"
    words = ["--engine", "docker.io", "--for", "debian:12", "--bundle", tmp_path / "night.bundle"]
    kits.transfer("kit", "-q", "-o", kit, *words)
    same = [(each / f"transfer-{MACHINE}.tar.gz").read_bytes() for each in (kit, made / "first")]
    assert same[0] == same[1]  # made twice
    with bare.bare("debian:12") as host:
        host.fine(
            "sed -i '/^Package: zlib1g$/,/^$/s/^Version: .*/Version: 1:9.9/' /var/lib/dpkg/status"
        )  # a newer host
        said = host.fine(f"{CALLS}; {INSTALL} --engine --site plant-7; {CALLS}; {CALL}; {CALLS}", kit=kit)
        assert [int(line.split()[12]) for line in said.splitlines() if re.match("Ip: [0-9]", line)] == [0, 0, 1]
        said = host.fine(
            f"""
            {USES["docker.io"]}
            transfer doctor --offline || true
            {INSTALL} --engine
            dpkg-query -W zlib1g
            """,
            kit=kit,
        )
        assert f"{engines.SMALL_IMAGE} is in place" in said and "\ntiny\n" in said
        assert re.search(r"^ready +engine +the Docker at \S+: 1 images", said, re.MULTILINE), said
        assert "0 newly installed" in said and "1:9.9" in said  # the second time; nothing is downgraded
        _bad_days_of_packages(host, kit)


@pytest.mark.parametrize(
    "engine,release", [("podman", "debian:11"), ("podman", "debian:12"), ("docker.io", "debian:13")]
)
def test_the_other_engines_from_a_stick(made: Path, tmp_path: Path, engine: str, release: str) -> None:
    """The packages of each release, the image, a container."""
    archive = engines.small_image(tmp_path)
    run("export", "--from", f"docker-archive:{archive}", "-o", tmp_path / "night.bundle", "-q", "--no-store")
    kit = tmp_path / "KIT"
    words = ["--engine", engine, "--for", release, "--bundle", tmp_path / "night.bundle"]
    kits.transfer("kit", "-q", "-o", kit, "--python-from", made / "first", *words)
    with bare.bare(release) as host:
        said = host.fine(f"{INSTALL} --engine; {USES[engine]}", kit=kit)
    assert f"{engines.SMALL_IMAGE} is in place" in said and "\ntiny\n" in said, said
    assert "trying a load" not in said, said


def test_a_users_own_podman(made: Path, tmp_path: Path) -> None:
    """Podman on Debian 13, and a user without root: his store, digests as after a pull, files of the image's other users."""
    engines.promised("systemd")
    layout = Layout()
    layout.name(layout.image([layer({"a": b"a"}, owner=7, mode=0o600)]), "app/web:1")
    layout.write(tmp_path / "oci")
    run("export", "--from", f"oci:{tmp_path}/oci", "-o", tmp_path / "night.bundle", "-q", "--no-store")
    kit = tmp_path / "KIT"
    words = ["--engine", "podman", "--for", "debian:13", "--bundle", tmp_path / "night.bundle"]
    kits.transfer("kit", "-q", "-o", kit, "--python-from", made / "first", *words)
    with machine() as booted:
        booted.write(
            "home/user.sh",
            """set -eux; export PATH=/opt/transfer/bin:$PATH
            transfer import /mnt/KIT/bundles/night.bundle --to podman:
            podman images --digests
            transfer export --from podman: app/web:1 -o ~/alone
            podman unshare transfer export --from podman: app/web:1 -o ~/unshared
            for each in alone unshared; do transfer inspect ~/$each --json; done
            truncate -s -9 ~/.local/share/containers/storage/overlay-layers/*.tar-split.gz
            transfer export --from podman: app/web:1 -o ~/cut || echo "it ended with $?"
            transfer store ls
            """,
        )
        done = booted.run(
            """
            sh /mnt/KIT/install.sh --engine --no-units
            useradd -m user
            su - user -c 'sh /home/user.sh'
            """,
            f"--bind-ro={kit}:/mnt/KIT",
        )
    assert done.code == 0, done.said
    digest = layout.entries[0]["digest"]
    assert "trying a load" not in done.said and "continuing without" not in done.said, done.said
    assert digest in done.said
    found = [json.loads(line) for line in done.said.splitlines() if line.startswith("{")]
    assert [each["images"][0]["digest"] == digest for each in found] == [True, True], done.said
    assert "it ended with 20" in done.said, done.said
    assert re.search(r"^transfer: /home/user/\S+: layer \S+ cannot be put together again: ", done.said, re.MULTILINE)
    assert "-> use --via api: then podman is asked for the image" in done.said


def _bad_days_of_packages(host: bare.Bare, kit: Path) -> None:
    """A package on hold, another release, dpkg that was interrupted: each is said, and nothing is done."""
    host.fine("sed -i '/^Package: docker.io$/,/^$/s/^Version: .*/Version: 1.0/' /var/lib/dpkg/status")
    said = host.run(f"apt-mark hold docker.io; {INSTALL} --engine", kit=kit)
    assert said.code == 20 and "on hold" in said.text, said.text
    host.fine("sed -i 's/^VERSION_ID=.*/VERSION_ID=13/' /etc/os-release")
    said = host.run(f"{INSTALL} --engine", kit=kit)
    assert said.code == 20 and "for debian-12, and this host is debian-13" in said.text, said.text
    host.fine("sed -i 's/^VERSION_ID=.*/VERSION_ID=12/' /etc/os-release")
    host.fine("sed -i '/^Package: runc$/,/^$/s/^Status: .*/Status: install ok half-configured/' /var/lib/dpkg/status")
    said = host.run(f"{INSTALL} --engine", kit=kit)
    assert said.code == 20 and "dpkg --configure -a" in said.text, said.text


def test_units_in_a_booted_host(made: Path) -> None:
    """They are installed, none is enabled, they start the kit's Python in their sandbox; and what is not the kit's stays afterwards.

    The store is root's as long as root alone uses it, and the user's from the first unit on.
    """
    engines.promised("systemd")
    with machine() as booted:
        shutil.rmtree(booted.place / "var/lib/transfer", ignore_errors=True)
        shutil.rmtree(booted.place / "usr/lib/tmpfiles.d")
        booted.write("etc/ssh/sshd_config.d/transfer.conf", "# mine\n")
        booted.write("usr/local/lib/systemd/system/transfer-logs.service", "# mine\n")
        booted.write("etc/systemd/system/transfer-sync@.service.d/more.conf", "[Service]\nNice=11\n")
        done = booted.run(
            """
            sh /mnt/KIT/install.sh --site plant-7
            sh /mnt/KIT/install.sh --no-units
            systemctl list-unit-files 'transfer-*' | grep -c ' enabled ' || true
            systemctl show -P FragmentPath transfer-serve.service
            transfer import /mnt/golden/zoo --to oci:/root/images -q
            stat -c '%U %n' /var/lib/transfer /var/lib/transfer/site.json
            transfer doctor --offline || true
            systemctl start transfer-serve.socket
            /opt/transfer/bin/python3 -c 'import urllib.request; print(urllib.request.urlopen("http://127.0.0.1:5000/v2/").status)'
            systemctl show -P MainPID transfer-serve.service | while read pid; do readlink /proc/$pid/exe; done
            stat -c '%U %n' /var/lib/transfer /var/lib/transfer/site.json
            sh /mnt/KIT/install.sh --site plant-8
            systemctl enable --quiet transfer-serve.socket
            mkdir -p /srv/b; sh /mnt/KIT/install.sh --no-units --prefix /srv/b/transfer
            sh /mnt/KIT/install.sh --uninstall --prefix /srv/b/transfer
            systemctl is-active transfer-serve.socket
            sh /opt/transfer/share/install.sh --uninstall
            systemctl is-active transfer-serve.socket || true
            find /usr/local /etc/udev/rules.d /etc/systemd/system /etc/ssh -name '*transfer*'
            ls /etc/transfer /var/lib/transfer
            """,
            f"--bind-ro={made / 'first'}:/mnt/KIT",
            f"--bind-ro={GOLDEN}:/mnt/golden",
        )
    assert done.code == 0, done.said
    assert "/usr/local/lib/systemd/system/transfer-serve.service" in done.said
    for user in ("root", "transfer"):
        assert f"{user} /var/lib/transfer\n{user} /var/lib/transfer/site.json\n" in done.said
    assert re.search(r"^200\n(\+.*\n)*/opt/transfer-\S+/bin/python3.11$", done.said, re.MULTILINE), done.said
    assert re.search(r"^ready +units +installed; enabled: none", done.said, re.MULTILINE), done.said
    assert re.search(r"^ready +site +plant-7", done.said, re.MULTILINE), done.said
    assert "is not as this installer wrote it, and stays" in done.said and "this site is called plant-8" in done.said
    assert "+ systemctl is-active transfer-serve.socket\nactive\n" in done.said
    after = done.said.rpartition("transfer is removed")[2]
    assert "inactive" in after
    left = [line for line in after.splitlines() if line.startswith("/") and not line.endswith(":")]
    assert sorted(left) == [
        "/etc/ssh/sshd_config.d/transfer.conf",
        "/etc/systemd/system/transfer-sync@.service.d",
        "/usr/local/lib/systemd/system/transfer-logs.service",
    ]


def test_an_installed_kit_makes_kits_and_mends_itself(made: Path) -> None:
    """A host without apt makes the same kit again out of the one it has; a damaged installation is replaced."""
    with bare.bare("debian:11") as host:
        said = host.fine(
            f"""
            {INSTALL}
            mkdir /nothing; for each in sh dash; do ln -s /bin/$each /nothing/; done
            PATH=/nothing:/usr/local/bin TMPDIR=/tmp /opt/transfer/bin/transfer kit -o /root/K --python-from /media/stick/KIT
            : > /opt/transfer/lib/libz.so.1
            ! transfer --version
            {INSTALL}
            transfer --version
            """,
            kit=made / "first",
        )
        name = f"transfer-{MACHINE}.tar.gz"
        assert (host.place / "root/K" / name).read_bytes() == (made / "first" / name).read_bytes()
        assert said.count("unpacking") == 2, said


def test_what_is_in_it(made: Path) -> None:
    """Small enough, listed with versions and licences, and nothing that was left out by mistake."""
    kit = made / "first"
    assert (kit / f"transfer-{MACHINE}.tar.gz").stat().st_size < 40_000_000
    for line in (kit / "SHA256SUMS").read_text().splitlines():
        total, name = line.split("  ")
        assert hashlib.sha256((kit / name).read_bytes()).hexdigest() == total
    listed = json.loads((kit / f"sbom-{MACHINE}.cdx.json").read_text())
    purls = {each["purl"].split("@")[0] for each in listed["components"]}
    assert {"pkg:pypi/blake3", "pkg:pypi/typer", "pkg:pypi/transfer-appliance", "pkg:deb/debian/libc6"} <= purls
    assert "pkg:pypi/transfer-appliance-deflate" in purls
    assert all(each["version"] and each["licenses"] for each in listed["components"])
    done = subprocess.run(
        ["tar", "-tzf", kit / f"transfer-{MACHINE}.tar.gz"], capture_output=True, text=True, check=True
    )
    names = set(done.stdout.split())
    for purl in purls:
        if purl.startswith("pkg:deb/"):
            assert f"share/licences/{purl.rpartition('/')[2]}" in names
    assert {"share/doc/install.md", "share/man/man1/transfer-import.1", "share/install.sh"} <= names


def test_for_another_kind_of_machine(made: Path, tmp_path: Path) -> None:
    """Every program and library is for that one; its demo runs under emulation."""
    other = next(each for each in LOADERS if each != MACHINE)
    kits.transfer("kit", "-q", "-o", tmp_path / "KIT", "--arch", other)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    subprocess.run(["tar", "-xzf", tmp_path / f"KIT/transfer-{other}.tar.gz", "-C", foreign], check=True)
    found = [elf for path in sorted(foreign.rglob("*")) if path.is_file() and (elf := read_elf(path))]
    assert len(found) > 50
    assert {elf.machine for elf in found} == {other}
    loader, library = foreign / "lib" / LOADERS[other], foreign / "lib"
    words: list[str | Path] = ["--inhibit-cache", "--argv0", foreign / "bin/python3", "--library-path", library]
    program: list[str | Path] = [f"qemu-{other}", loader, *words, foreign / "bin/python3.11", "-I", "-m", "transfer"]
    subprocess.run([*program, "demo", "--quiet"], check=True, timeout=300)
