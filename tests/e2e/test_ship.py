"""Shipping over a real sshd: both ways of connecting, both ways of writing, and what goes wrong on the way."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.depots import DepotSuite, Yard
from tests.conformance.test_depots import on_disk
from tests.support import media
from tests.support.run import run, says
from tests.support.ssh import Sshd, make_key, sshd
from tests.support.wires import Proxy
from tests.support.zoo import Layout, layer, noisy
from transfer.events import silent
from transfer.flows.remote import Connector, RemoteOptions
from transfer.model import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from transfer.ship.address import Address, Options
from transfer.streams import sha256

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

BIN = Path(sys.executable).parent
LINES = ("openssh", "paramiko")
WAYS = [(ssh, program) for ssh in LINES for program in ("transfer", "no-such-program")]
IDS = [f"{ssh}-{'receiver' if program == 'transfer' else 'sftp'}" for ssh, program in WAYS]
DISKS = {"ext4": media.loop_ext4, "exfat": media.loop_exfat}
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd"), path=BIN, env={"TRANSFER_STORE": "none"}) as server:
        yield server


@pytest.fixture(scope="module")
def ram(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with media.tmpfs(tmp_path_factory.mktemp("ram"), 64 << 20) as mount:
        yield mount


@pytest.fixture(scope="module", params=DISKS)
def disk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with DISKS[request.param](tmp_path_factory.mktemp("disk"), 64 << 20) as mount:
        yield mount


def yard_on(place: Path, server: Sshd, way: tuple[str, str]) -> Iterator[Yard]:
    """A folder over there. The far side waits half a minute for a lock: that it does is tested elsewhere."""
    root = place / f"yard{next(NUMBERS)}"
    reach = Connector(RemoteOptions(Address("plant", str(root)), Options(config=server.config), *way), silent)
    yield on_disk(root, reach.raw, locks=False)
    shutil.rmtree(root, ignore_errors=True)


class TestOverSsh(DepotSuite):
    """The depot suite over both lines and both ways of writing."""

    @pytest.fixture(params=WAYS, ids=IDS)
    def yard(self, request: pytest.FixtureRequest, server: Sshd, ram: Path) -> Iterator[Yard]:
        yield from yard_on(ram, server, request.param)


class TestOntoDisks(DepotSuite):
    """The depot suite in both ways of writing, on other filesystems."""

    @pytest.fixture(params=["openssh-receiver", "paramiko-sftp"])
    def yard(self, request: pytest.FixtureRequest, server: Sshd, disk: Path) -> Iterator[Yard]:
        yield from yard_on(disk, server, WAYS[IDS.index(request.param)])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of some 40 MB in two packs that do not compress."""
    folder = tmp_path_factory.mktemp("bundle")
    noisy(2).write(folder / "oci")
    run("export", "--from", f"oci:{folder}/oci", "-o", folder / "night.bundle", "-q")
    return folder / "night.bundle"


def same(one: Path, other: Path) -> bool:
    return subprocess.run(["diff", "-r", one, other], capture_output=True, check=False).returncode == 0


def ship(server: Sshd, bundle: Path, to: str, *words: object, config: Path | None = None) -> tuple[int, str]:
    return says("ship", bundle, to, "--ssh-config", config or server.config, *words)


@pytest.mark.parametrize(("ssh", "program"), WAYS, ids=IDS)
def test_a_bundle_arrives_whole_and_once(server: Sshd, bundle: Path, tmp_path: Path, ssh: str, program: str) -> None:
    words = ("--ssh", ssh, "--remote", program, "--json")
    first = json.loads(run("ship", bundle, f"plant:{tmp_path}/in", *words, "--ssh-config", server.config))
    assert same(bundle, tmp_path / "in" / "night.bundle")
    assert first["by"] == ("receiver" if program == "transfer" else "sftp")
    assert first["bytes_sent"] == first["bytes"]
    again = json.loads(run("ship", bundle, f"plant:{tmp_path}/in", *words, "--ssh-config", server.config))
    assert (again["already"], again["bytes_sent"]) == (True, 0)
    run("verify", tmp_path / "in" / "night.bundle")


@pytest.mark.parametrize(("ssh", "program"), WAYS, ids=IDS)
def test_twenty_cuts_cost_twenty_parts(server: Sshd, bundle: Path, tmp_path: Path, ssh: str, program: str) -> None:
    total = sum(each.stat().st_size for each in bundle.rglob("*") if each.is_file())
    with Proxy((server.host, server.port)) as proxy:
        proxy.cut_after(*([total // 22] * 20))
        words = ("--ssh", ssh, "--remote", program)
        code, said = ship(server, bundle, f"plant:{tmp_path}/in", *words, config=server.via(proxy.port))
        assert code == 0, said
        assert same(bundle, tmp_path / "in" / "night.bundle")
        print(f"{ssh} {program}: {proxy.sent} sent for {total}")
        assert proxy.sent < total * 1.01 + 20 * (1 << 20) + (4 << 20)


def test_goes_on_after_a_kill(server: Sshd, bundle: Path, tmp_path: Path) -> None:
    to = f"plant:{tmp_path}/in"
    with Proxy((server.host, server.port), rate=20_000_000) as proxy:
        words = [sys.executable, "-m", "transfer", "ship", str(bundle), to, "--ssh-config", str(server.via(proxy.port))]
        for seconds in (1.2, 1.6):
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(seconds)
            process.kill()
            process.wait()
    code, said = ship(server, bundle, to)
    assert code == 0
    assert "already there; resuming" in said
    assert same(bundle, tmp_path / "in" / "night.bundle")


@pytest.mark.parametrize("ssh", LINES)
def test_a_host_that_is_not_known_or_has_changed_is_refused(bundle: Path, tmp_path: Path, ssh: str) -> None:
    with sshd(tmp_path / "sshd", path=BIN) as server:
        known, told = server.known_hosts, (server.fingerprint, "--host-key")
        pinned = ("--ssh", ssh, "--host-key", server.fingerprint)
        lines = known.read_text()
        known.write_text("")
        code, said = ship(server, bundle, f"plant:{tmp_path}/in", "--ssh", ssh)
        assert code == 22
        assert all(each in said for each in told)
        assert not (tmp_path / "in").exists()
        assert ship(server, bundle, f"plant:{tmp_path}/in", *pinned)[0] == 0
        assert ship(server, bundle, f"plant:{tmp_path}/in", "--ssh", ssh, "--accept-new")[0] == 0
        assert ship(server, bundle, f"plant:{tmp_path}/in", "--ssh", ssh)[0] == 0
        known.write_text(f"@revoked {lines}")
        code, said = ship(server, bundle, f"plant:{tmp_path}/in", "--ssh", ssh)
        assert code == 22
        assert "revoked" in said
        known.write_text(lines)
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, capture_output=True)
        assert ship(server, bundle, f"plant:{tmp_path}/in", "--ssh", ssh)[0] == 0
        server.change_host_key()
        code, said = ship(server, bundle, f"plant:{tmp_path}/in", "--ssh", ssh)
        assert code == 22
        assert "known_hosts has another one" in said
        assert ship(server, bundle, f"plant:{tmp_path}/in", *pinned)[0] == 22


@pytest.mark.parametrize("ssh", LINES)
def test_a_user_who_is_not_let_in(server: Sshd, bundle: Path, tmp_path: Path, ssh: str) -> None:
    config = tmp_path / "config"
    config.write_text(
        "".join(line for line in server.config.read_text().splitlines(keepends=True) if "IdentityFile" not in line)
    )
    for key in (make_key(tmp_path / "other"), make_key(tmp_path / "locked", passphrase="secret")):
        code, said = ship(server, bundle, f"plant:{tmp_path}/in", "--ssh", ssh, "--identity", key, config=config)
        assert code == 24, said
    code, said = ship(server, bundle, "ssh://nobody.invalid:1/x", "--ssh", ssh)
    assert code == 21, said


@pytest.mark.parametrize("ssh", LINES)
def test_an_account_for_files_alone(bundle: Path, tmp_path: Path, ssh: str) -> None:
    with sshd(tmp_path / "sshd", sftp_only=True) as server:
        code, said = ship(server, bundle, "plant:in", "--ssh", ssh)
        assert code == 0, said
        assert "by sftp" in said
        assert same(bundle, server.home / "in" / "night.bundle")
        assert ship(server, bundle, "plant:in", "--ssh", ssh)[0] == 0


def test_a_restricted_key_reaches_its_inbox_and_nothing_else(bundle: Path, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    with sshd(tmp_path / "sshd", path=BIN, forced=f"transfer receive --stdio --inbox {inbox} --no-store") as server:
        assert ship(server, bundle, "plant:")[0] == 0
        assert same(bundle, inbox / "night.bundle")
        assert ship(server, bundle, f"plant:{inbox}")[0] == 0
        for outside in (f"plant:{inbox}/deeper", f"plant:{tmp_path}", "plant:../x", "plant:/etc"):
            code, said = ship(server, bundle, outside)
            assert code == 2, said
        (inbox / "link").symlink_to(tmp_path)
        assert ship(server, bundle, "plant:link")[0] == 2
        assert not (tmp_path / "night.bundle").exists()
        code, said = ship(server, bundle, "plant:", "--import", "--to", f"oci:{tmp_path}/out")
        assert (code, "may only receive" in said) == (24, True), said
        assert not (tmp_path / "out").exists()


def test_what_a_restricted_key_imports_goes_where_its_administrator_says(bundle: Path, tmp_path: Path) -> None:
    """Neither where, nor what it is called, nor whether a name moves is for the sender to say."""
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    inbox.mkdir()
    forced = f"transfer receive --stdio --inbox {inbox} --no-store --allow-import --import-to oci:{out}"
    with sshd(tmp_path / "sshd", path=BIN, forced=f"{forced} --site plant-7") as server:
        for more in (["--to", f"oci:{tmp_path}/elsewhere"], ["--retag", "app:0=local/app:prod"]):
            code, said = ship(server, bundle, "plant:", "--import", *more)
            assert (code, "does not let the sender choose" in said) == (2, True), said
        assert not (tmp_path / "elsewhere").exists()
        assert ship(server, bundle, "plant:", "--import", "--to", f"oci:{out}")[0] == 0
        assert (inbox / "plant-7" / "night.bundle" / "index.json").exists()
        other = Layout()
        other.name(other.image([layer({"other": b"1"})]), "app:0")
        other.write(tmp_path / "l")
        run("export", "--from", f"oci:{tmp_path}/l", "-o", tmp_path / "other.bundle", "-q", "--no-store")
        code, said = ship(server, tmp_path / "other.bundle", "plant:", "--import")
        assert (code, "already belongs to image" in said) == (2, True), said
    with sshd(tmp_path / "sshd2", path=BIN, forced=f"{forced} --allow-move") as server:
        code, said = ship(server, tmp_path / "other.bundle", "plant:", "--import")
        assert (code, "moved from image" in said) == (0, True), said


def test_an_import_of_many_images_comes_to_its_end(tmp_path: Path) -> None:
    """What it prints is more than a pipe holds."""
    layout = Layout()
    shared = layer({"shared": b"1"})
    for number in range(400):
        config = {"architecture": "amd64", "os": "linux", "n": number, "rootfs": {"diff_ids": [str(sha256(shared))]}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": layout.document(config, OCI_CONFIG),
            "layers": [layout.blob(shared, OCI_LAYER)],
        }
        layout.name(layout.document(manifest, OCI_MANIFEST), f"registry.example.com/team/application-{number:04d}:v1")
    layout.write(tmp_path / "l")
    run("export", "--from", f"oci:{tmp_path}/l", "-o", tmp_path / "many.bundle", "-q", "--no-store")
    store = {"TRANSFER_STORE": str(tmp_path / "store")}
    with sshd(tmp_path / "sshd", path=BIN, env=store) as server:
        code, said = ship(
            server, tmp_path / "many.bundle", f"plant:{tmp_path}/in", "--import", "--to", f"oci:{tmp_path}/o"
        )
        assert (code, "400 images imported there" in said) == (0, True), said[-500:]


@pytest.mark.parametrize("program", ["transfer", "no-such-program"])
def test_a_far_disk_that_is_full_or_read_only(server: Sshd, bundle: Path, tmp_path: Path, program: str) -> None:
    with media.tmpfs(tmp_path, 20 << 20) as small:
        code, said = ship(server, bundle, f"plant:{small}", "--remote", program)
        assert code == 23, said
        assert "are needed" in said
    (tmp_path / "ro").mkdir()
    with media.read_only(tmp_path / "ro") as sealed:
        code, said = ship(server, bundle, f"plant:{sealed}", "--remote", program)
        assert code == 13, said
        assert "read-only" in said or "Read-only" in said


def test_a_second_ship_at_once_waits_or_is_told(server: Sshd, bundle: Path, tmp_path: Path) -> None:
    to = f"plant:{tmp_path}/in"
    with Proxy((server.host, server.port), rate=8_000_000) as proxy:
        words = [sys.executable, "-m", "transfer", "ship", str(bundle), to, "--ssh-config", str(server.via(proxy.port))]
        first = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1.5)
        code, said = ship(server, bundle, to)
        assert first.wait() == 0
    assert code in (0, 11), said
    assert same(bundle, tmp_path / "in" / "night.bundle")


@pytest.mark.parametrize("ssh", LINES)
def test_a_changed_byte_on_the_way_never_lands(server: Sshd, bundle: Path, tmp_path: Path, ssh: str) -> None:
    with Proxy((server.host, server.port)) as proxy:
        proxy.flip_at(5_000_000)
        code, said = ship(server, bundle, f"plant:{tmp_path}/in", "--ssh", ssh, config=server.via(proxy.port))
        assert code == 0, said
        assert "trying again" in said
    assert same(bundle, tmp_path / "in" / "night.bundle")


@pytest.mark.parametrize("ssh", LINES)
def test_ships_and_imports_in_one_go(server: Sshd, bundle: Path, tmp_path: Path, ssh: str) -> None:
    words = ("--ssh", ssh, "--import", "--to", f"oci:{tmp_path}/out", "--retag", "app:0=local/app:prod")
    code, said = ship(server, bundle, f"plant:{tmp_path}/in", *words)
    assert code == 0, said
    assert "2 images imported there" in said
    assert "local/app:prod" in run("images", "--from", f"oci:{tmp_path}/out")
    code, said = ship(server, bundle, f"plant:{tmp_path}/in", *words, "--to", f"oci:{bundle}/index.json")
    assert code not in (0, 1), said


@pytest.mark.parametrize(("ssh", "program"), WAYS, ids=IDS)
def test_verifies_what_is_over_there(server: Sshd, bundle: Path, tmp_path: Path, ssh: str, program: str) -> None:
    there, words = tmp_path / "in" / "night.bundle", ("--ssh", ssh, "--remote", program, "--ssh-config", server.config)
    assert ship(server, bundle, f"plant:{there.parent}")[0] == 0
    code, said = says("verify", f"plant:{there}", *words)
    assert (code, "sound" in said) == (0, True), said
    spoiled, lost = sorted((there / "blobs" / "sha256").iterdir(), key=lambda path: -path.stat().st_size)[:2]
    data = bytearray(spoiled.read_bytes())
    data[len(data) // 2] ^= 1
    spoiled.write_bytes(data)
    lost.unlink()
    code, said = says("verify", f"plant:{there}", *words)
    assert code == 13, said
    assert spoiled.name in said
    assert lost.name in said
    assert "app:0" in said
    code, said = says("ship", bundle, f"plant:{there.parent}", *words)
    assert code == 0, said
    assert says("verify", f"plant:{there}", *words)[0] == 0
    assert says("verify", f"plant:{tmp_path}/nothing", *words)[0] == 10


@pytest.mark.parametrize(("ssh", "program"), WAYS, ids=IDS)
def test_a_far_disk_that_fills_up_meanwhile(server: Sshd, bundle: Path, tmp_path: Path, ssh: str, program: str) -> None:
    with (
        media.tmpfs(tmp_path, 100 << 20) as small,
        Proxy((server.host, server.port), rate=25_000_000) as proxy,
    ):
        words = ["--ssh", ssh, "--remote", program, "--ssh-config", str(server.via(proxy.port))]
        shipping = subprocess.Popen(
            [sys.executable, "-m", "transfer", "ship", str(bundle), f"plant:{small}/in", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while not list(small.rglob("*.part")):
            assert shipping.poll() is None
            time.sleep(0.02)
        (small / "other").write_bytes(bytes(80 << 20))
        said, _ = shipping.communicate(timeout=60)
        assert shipping.returncode == 23, said
        assert "Traceback" not in said
        (small / "other").unlink()
        code, said = ship(server, bundle, f"plant:{small}/in", "--ssh", ssh, "--remote", program)
        assert code == 0, said
        assert same(bundle, small / "in" / "night.bundle")
