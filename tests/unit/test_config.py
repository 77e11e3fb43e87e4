"""The configuration file: defaults, targets, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.run import run, says
from tests.support.zoo import zoo
from transfer.cli.config import load
from transfer.cli.options import AfterShipping, SshOptions
from transfer.cli.ship import meant


def config(folder: Path, text: str) -> dict[str, str]:
    path = folder / "transfer.toml"
    path.write_text(text, encoding="utf-8")
    return {"TRANSFER_CONFIG": str(path)}


def test_defaults_are_taken_and_what_is_typed_goes_before_them(tmp_path: Path) -> None:
    env = config(tmp_path, f'store = "{tmp_path}/site"\n[export]\nlevel = 1\n')
    assert run("store", "path", env=env).strip() == f"{tmp_path}/site"
    assert run("store", "path", "--store", tmp_path / "other", env=env).strip() == f"{tmp_path}/other"
    zoo().write(tmp_path / "oci")
    run("export", "--from", f"oci:{tmp_path}/oci", "-o", tmp_path / "b", "-q", env=env)
    assert '"level": 1' in run("inspect", tmp_path / "b", "--json")
    assert (tmp_path / "site" / "bundles").is_dir()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("levle = 3\n", "levle"),
        ("[exprot]\nlevel = 3\n", "exprot"),
        ("[export]\nlevle = 3\n", "levle"),
        ("[target.a]\nhost = 'x'\n", "host"),
        ("[target.a]\nimport = 'yes'\n", "import"),
        ("target = 5\n", "target"),
        ("not toml", "transfer.toml"),
        ("[export]\nlevel = 'high'\n", "level"),
    ],
)
def test_what_is_wrong_is_told_with_the_file(text: str, told: str, tmp_path: Path) -> None:
    code, said = says("export", "--help" if "high" not in text else "x", env=config(tmp_path, text))
    assert code == 2, said
    assert told in said


def test_a_file_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    code, said = says("store", "path", env={"TRANSFER_CONFIG": str(tmp_path / "none.toml")})
    assert code == 2
    assert "none.toml" in said


def test_a_target_stands_for_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
        [target.plant-7]
        to = "ops@plant7:/srv/inbox"
        identity = "~/.ssh/plant"
        remote = "/opt/transfer/bin/transfer"
        limit-rate = "2M"
        import = true
        site = "plant-7"
    """
    for name, value in config(tmp_path, text).items():
        monkeypatch.setenv(name, value)
    assert list(load().targets) == ["plant-7"]
    to, ssh, after = meant(["plant-7"], SshOptions(limit="500K"), AfterShipping())
    assert to == ["ops@plant7:/srv/inbox"]
    assert ssh.identity == Path("~/.ssh/plant").expanduser()
    assert (ssh.remote, ssh.limit) == ("/opt/transfer/bin/transfer", "500K")
    assert (after.import_, after.site) == (True, "plant-7")
    assert meant(["plant-8"], SshOptions(), AfterShipping())[0] == ["plant-8"]
