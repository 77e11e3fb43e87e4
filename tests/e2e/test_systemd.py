"""The units in a booted systemd: what each promises is seen happening."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.booted import Machine, machine
from tests.support.run import run
from tests.support.sites import images

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.xdist_group("systemd")]
REPOSITORY = Path(__file__).parents[2]
UNITS = (
    "transfer-sync@hq.service transfer-sync@hq.timer transfer-import@srv-inbox.service transfer-import@srv-inbox.path "
    "transfer-import@srv-inbox.timer transfer-stick@sdb1.service transfer-serve.socket transfer-serve.service "
    "transfer-failed@x.service"
)
EXPOSURE = {"sync@": 20, "import@": 10, "serve": 15, "stick@": 25, "failed@": 20}
"""The most that `systemd-analyze security` may say, in tenths."""


@pytest.fixture
def booted() -> Iterator[Machine]:
    with machine() as made:
        yield made


def bundle(place: Path, names: dict[str, int], base: Path | None = None) -> Path:
    """A bundle at this place, which may be inside of a machine."""
    layout = place.parent / f"layout-{place.name}"
    layout.mkdir(parents=True)
    images(names).write(layout)
    more = ["--base", base] if base else []
    run("export", "--from", f"oci:{layout}", "-o", place, "-q", "--no-store", *more)
    shutil.rmtree(layout)
    return place


def test_the_units_are_well_formed_and_closed(booted: Machine) -> None:
    security = "\n".join(
        f"systemd-analyze security --no-pager --offline=true --threshold={most} /usr/lib/systemd/system/transfer-{name}.service >/dev/null"
        for name, most in EXPOSURE.items()
    )
    done = booted.run(
        f"""
        systemd-analyze verify --man=no {UNITS} 2> /tmp/said || true
        cat /tmp/said; test ! -s /tmp/said
        {security}
        udevadm verify /usr/lib/udev/rules.d/90-transfer.rules
        systemd-analyze calendar '*:0/15' > /dev/null
        sshd -t -o HostKey=/etc/ssh/ssh_host_ed25519_key -f /etc/ssh/sshd_config
        stat -c '%U %G %a' /var/lib/transfer /var/lib/transfer-inbox/in /etc/transfer/keys
        """
    )
    assert done.code == 0, done.said
    assert "transfer transfer 700\ntransfer-inbox transfer-inbox 2770\nroot root 700" in done.said, done.said


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze on this host")
def test_the_units_are_well_formed_for_this_hosts_systemd(tmp_path: Path) -> None:
    """Debian 12 has systemd 252."""
    subprocess.run(["make", "-s", "-C", str(REPOSITORY), "install-units", f"DESTDIR={tmp_path}"], check=True)
    place = tmp_path / "usr/lib/systemd/system"
    for path in place.iterdir():
        path.write_text(path.read_text().replace("/usr/bin/transfer", "/bin/true"))
    names = [str(place / name) for name in UNITS.split()]
    for name in names:
        if not Path(name).exists():
            template = Path(name).with_name(Path(name).name.split("@")[0] + "@" + Path(name).suffix)
            shutil.copy(template, name)
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{place}:/usr/lib/systemd/system"}
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True, check=False, env=environment
    )
    ours = [line for line in done.stderr.splitlines() if "transfer" in line]
    assert ours == []


SITE = """version = 1
[[images]]
from = "oci:/srv/oci"
select = ["*"]
[[road]]
"""
HOOK = '#!/bin/sh\necho "$1 $TRANSFER_SITE $TRANSFER_SLUG" >> /var/lib/transfer/heard\n'
SHOW = "systemctl show -P Result -P ExecMainStatus -P ActiveState"


def test_a_sync_its_alarms_its_watchdog_and_its_timer(booted: Machine) -> None:
    (booted.place / "srv/oci").mkdir(parents=True)
    images({"app:1": 1}).write(booted.place / "srv/oci")
    booted.write("etc/transfer/sites/fine.toml", SITE + 'kind = "spool"\nto = "/var/lib/transfer-spool"\n')
    booted.write("etc/transfer/sites/away.toml", SITE + 'kind = "ssh"\nto = "ssh://ops@127.0.0.1:9/x"\n')
    booted.write("etc/transfer/sites/wrong.toml", SITE + 'kind = "ssh"\nto = "x"\nspeed = 3\n')
    booted.write("etc/transfer/sites/stuck.toml", SITE + 'kind = "spool"\nto = "/var/lib/transfer-spool"\n')
    booted.write("etc/transfer/hooks.d/tell", HOOK, 0o755)
    dropin = "etc/systemd/system/transfer-sync@.service.d/test.conf"
    booted.write(dropin, "[Service]\nReadWritePaths=-/var/lib/transfer-spool\nWatchdogSec=3s\nTimeoutAbortSec=2s\n")
    booted.write(
        "etc/systemd/system/transfer-sync@fine.timer.d/t.conf",
        "[Timer]\nOnCalendar=\nOnCalendar=daily\nRandomizedDelaySec=0\n",
    )
    done = booted.run(
        f"""
        mkdir /var/lib/transfer-spool; chown transfer: /var/lib/transfer-spool
        for site in fine away wrong; do
            systemctl start --wait transfer-sync@$site.service || true
            echo "$site" $({SHOW} transfer-sync@$site.service)
        done
        journalctl -u transfer-sync@away.service -o cat --no-pager
        systemctl start --wait transfer-sync@wrong.service || true
        soon 'test -e /var/lib/transfer/heard'; sleep 1; cat /var/lib/transfer/heard
        systemctl show -P StatusText transfer-sync@fine.service
        ls /var/lib/transfer-spool
        journalctl -u transfer-sync@fine.service -o cat --no-pager | grep '"outcome": "shipped"'
        echo found: $(journalctl TRANSFER_SITE=fine TRANSFER_OUTCOME=shipped -o cat --no-pager)

        mkfifo /etc/transfer/hooks.d/x 2>/dev/null || true
        printf '#!/bin/sh\\nsleep 60\\n' > /srv/slow; chmod +x /srv/slow
        mkdir -p /etc/systemd/system/transfer-sync@stuck.service.d
        printf '[Service]\\nExecStart=\\nExecStart=/usr/bin/transfer sync stuck --wait 1h --json\\n' > /etc/systemd/system/transfer-sync@stuck.service.d/s.conf
        sed -i 's/kind = .*/kind = "ssh"/; s/to = .*/to = "ssh:\\/\\/ops@127.0.0.1:9\\/x"/' /etc/transfer/sites/stuck.toml
        systemctl daemon-reload
        systemctl start transfer-sync@stuck.service
        systemctl kill --signal=STOP transfer-sync@stuck.service
        soon 'systemctl is-failed -q transfer-sync@stuck.service'
        echo stuck $(systemctl show -P Result transfer-sync@stuck.service)

        mkdir -p /var/lib/systemd/timers
        touch -d '2 days ago' /var/lib/systemd/timers/stamp-transfer-sync@fine.timer
        before=$(systemctl show -P InvocationID transfer-sync@fine.service)
        systemctl start transfer-sync@fine.timer
        soon 'test "$(systemctl show -P InvocationID transfer-sync@fine.service)" != "$before"' && echo caught up
        """
    )
    assert done.code == 0, done.said
    assert "fine success 0 inactive" in done.said
    assert "away success 0 inactive" in done.said  # systemd forgets the exit code of a unit that it unloads
    assert '"outcome": "not-now"' in done.said
    assert '"exit_code": 75' in done.said
    assert "wrong exit-code 2 failed" in done.said
    assert done.said.count("\nfailed wrong unit") == 1, done.said
    assert "\nfailed fine" not in done.said
    assert "\nfailed away" not in done.said
    assert "fine-000001" in done.said
    assert '"outcome": "shipped"' in done.said
    assert "\nfound: fine: bundle 1 is on its way by spool" in done.said
    assert "stuck watchdog" in done.said, done.said
    assert "\ncaught up" in done.said


def test_what_arrives_is_imported_and_put_away(booted: Machine) -> None:
    first = bundle(booted.place / "srv/one/app-000001", {"app:1": 1})
    bundle(booted.place / "srv/one/app-000002", {"app:1": 2}, first)
    dropin = "[Service]\nExecStart=\nExecStart=/usr/bin/transfer import spool:%f --done move --stage --json --to oci:/var/lib/transfer/images\n"
    booted.write("etc/systemd/system/transfer-import@.service.d/to.conf", dropin)
    done = booted.run(
        """
        install -d -o transfer -g transfer /srv/inbox
        systemctl start transfer-import@srv-inbox.path
        cp -r /srv/one/app-000002 /srv/one/app-000001 /srv/inbox/; chown -R transfer: /srv/inbox
        echo x > /srv/inbox/.x; mv /srv/inbox/.x /srv/inbox/.arrived
        soon 'test -d /srv/inbox/.done/app-000002'
        sleep 1
        ls -A /srv/inbox /srv/inbox/.done
        systemctl show -P NRestarts -P Result transfer-import@srv-inbox.service
        journalctl -u transfer-import@srv-inbox.service -o cat --no-pager | grep -c '"bundles"'
        cat /srv/inbox/.receipt.json
        systemctl start --wait transfer-import@srv-inbox.service; systemctl show -P ExecMainStatus -P Result transfer-import@srv-inbox.service
        """
    )
    assert done.code == 0, done.said
    assert "/srv/inbox/.done:\napp-000001\napp-000002" in done.said
    assert '"serial": 1' in done.said
    assert done.said.count("\nsuccess") == 2, done.said


def test_the_registry_starts_when_it_is_asked_and_ends_when_nobody_asks(booted: Machine) -> None:
    bundle(booted.place / "srv/b", {"app:1": 1})
    booted.write(
        "etc/systemd/system/transfer-serve.service.d/t.conf",
        "[Service]\nExecStart=\nExecStart=/usr/bin/transfer serve --from-store --activated --idle 3s\n",
    )
    ask = "/opt/python/bin/python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:5000/v2/_catalog\").read().decode())'"
    done = booted.run(
        f"""
        export LD_LIBRARY_PATH=/opt/python/lib
        ip link set lo up || true
        chmod 755 /srv/b
        runuser -u transfer -- env TRANSFER_STORE=/var/lib/transfer transfer import /srv/b --to oci:/var/lib/transfer/images -q
        systemctl start transfer-serve.socket
        echo $(systemctl is-active transfer-serve.service transfer-serve.socket || true)
        {ask}; {ask}
        one=$(systemctl show -P MainPID transfer-serve.service)
        soon 'test "$(systemctl is-active transfer-serve.service)" = inactive'
        echo $(systemctl is-active transfer-serve.service transfer-serve.socket || true)
        {ask}
        two=$(systemctl show -P MainPID transfer-serve.service)
        test "$one" != "$two" && echo another
        systemctl show -P Result transfer-serve.service
        """
    )
    assert done.code == 0, done.said
    assert done.said.count('"repositories"') == 3, done.said
    assert done.said.count("\ninactive active") == 2
    assert "\nanother" in done.said
    assert done.said.count("\nsuccess") == 1


def test_over_ssh_into_an_inbox_that_another_user_imports_from(booted: Machine) -> None:
    """The key reaches the inbox and nothing else; the sandboxed import takes it from there; the next sync gets the receipt."""
    (booted.place / "srv/oci").mkdir(parents=True)
    images({"app:1": 1}).write(booted.place / "srv/oci")
    booted.write(
        "etc/transfer/sites/plant.toml",
        SITE
        + 'kind = "ssh"\nto = "transfer-inbox@127.0.0.1:"\nidentity = "credential:ssh-key"\nssh_config = "/etc/transfer/ssh_config"\n',
    )
    booted.write("etc/transfer/ssh_config", "UserKnownHostsFile /etc/transfer/known_hosts\n")
    dropin = "[Service]\nExecStart=\nExecStart=/usr/bin/transfer import spool:%f --done remove --stage --json --to oci:/var/lib/transfer/images\n"
    booted.write("etc/systemd/system/transfer-import@.service.d/to.conf", dropin)
    unit = "transfer-import@var-lib-transfer\\\\x2dinbox-in"
    done = booted.run(
        f"""
        ip link set lo up || true
        ssh-keygen -A; mkdir -p /run/sshd
        ssh-keygen -q -t ed25519 -N '' -f /etc/transfer/keys/plant
        cp /etc/transfer/keys/plant.pub /etc/transfer/authorized_keys; chmod 644 /etc/transfer/authorized_keys
        systemctl start ssh.service
        soon 'ssh-keyscan -t ed25519 127.0.0.1 2>/dev/null > /etc/transfer/known_hosts'
        systemctl start {unit}.path
        systemctl start --wait transfer-sync@plant.service || journalctl -u transfer-sync@plant.service -o cat --no-pager
        systemctl show -P Result -P ExecMainStatus transfer-sync@plant.service
        soon 'test -f /var/lib/transfer-inbox/in/.receipt.json'
        ls -A /var/lib/transfer-inbox/in
        journalctl -u 'transfer-import@*' -o cat --no-pager | tail -5
        systemctl start --wait transfer-sync@plant.service || journalctl -u transfer-sync@plant.service -o cat --no-pager
        journalctl -u transfer-sync@plant.service -o cat --no-pager | tail -3
        KEY="-i /etc/transfer/keys/plant -o UserKnownHostsFile=/etc/transfer/known_hosts -o BatchMode=yes"
        echo shell: $(timeout 5 ssh $KEY transfer-inbox@127.0.0.1 id < /dev/null 2>&1 | tr -cd 'A-Za-z0-9= ' | head -c 60)
        timeout 5 sftp $KEY transfer-inbox@127.0.0.1 < /dev/null > /dev/null 2>&1 || echo no sftp
        timeout 3 ssh $KEY -N -L 9999:127.0.0.1:22 transfer-inbox@127.0.0.1 < /dev/null > /dev/null 2>&1 || echo no forwarding
        """
    )
    assert done.code == 0, done.said
    assert '"outcome": "up-to-date"' in done.said, done.said
    assert "shell: TRANSFERWIRE 1" in done.said
    assert "uid=" not in done.said
    assert "\nno sftp" in done.said
    assert "\nno forwarding" in done.said


def test_a_stick_is_imported_and_answers(booted: Machine, tmp_path: Path) -> None:
    """With ext4, which has to be allowed: the kernels of many machines that test have no FAT."""
    place = tmp_path / "on"
    bundle(place / "night" / "app-000001", {"app:1": 1})
    (place / "._night").write_bytes(b"AppleDouble")
    (place / ".Trashes").mkdir()
    image = tmp_path / "stick.img"
    subprocess.run(["truncate", "-s", "64M", str(image)], check=True)
    made = ["mkfs.ext4", "-q", "-L", "TRANSFER1", "-d", str(place), str(image)]
    subprocess.run(made, check=True)
    device = subprocess.run(
        ["losetup", "--show", "-f", str(image)], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        unit = "/usr/lib/systemd/system/transfer-stick@.service"
        done = booted.run(
            f"""
            sed -i '/^BindsTo=/d; /^After=dev/d; s/--answer/--answer --medium-types ext4 --to oci:%S\\/transfer\\/images/' {unit}
            systemctl daemon-reload
            systemctl start --wait transfer-stick@{Path(device).name}.service || true
            systemctl show -P Result -P ExecMainStatus transfer-stick@{Path(device).name}.service
            journalctl -u 'transfer-stick@*' -o cat --no-pager | tail -20
            stat -c '%U' /var/lib/transfer/bundles /var/lib/transfer/images
            mount | grep -c {device} || true
            """,
            f"--bind={device}",
        )
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
    assert done.code == 0, done.said
    assert '"status": "imported"' in done.said
    assert "transfer\ntransfer\n" in done.said
    listed = subprocess.run(["debugfs", "-R", "ls -p /", str(image)], capture_output=True, text=True, check=True).stdout
    assert "RESULT-" in listed
    inside = subprocess.run(
        ["debugfs", "-R", "ls -p /receipts", str(image)], capture_output=True, text=True, check=True
    ).stdout
    assert "-000001.json" in inside
