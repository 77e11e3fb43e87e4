"""What is looked for on a medium, and what is said on it for the person who carries it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.run import run, says
from tests.support.sites import images
from transfer.errors import MissingPart, NotFound, TransferError, UsageError
from transfer.flows import stick
from transfer.flows.stick import bundles_on, import_stick, result_text


def made(place: Path, *, version: int = 1) -> Path:
    layout = place.parent / f"layout-{place.name}"
    layout.mkdir(parents=True)
    images({"app:1": version}).write(layout)
    run("export", "--from", f"oci:{layout}", "-o", place, "-q")
    return place


def test_bundles_lie_on_one_or_two_levels_among_other_things(tmp_path: Path) -> None:
    medium = tmp_path / "medium"
    (medium / "deliveries").mkdir(parents=True)
    made(tmp_path / "a").rename(medium / "jan")
    made(tmp_path / "b", version=2).rename(medium / "deliveries" / "feb")
    for name in (".Trashes", "System Volume Information", ".hidden", "empty"):
        (medium / name).mkdir()
    (medium / "._jan").write_bytes(b"AppleDouble")
    (medium / ".hidden" / "blobs").mkdir()
    (medium / ".hidden" / "index.json").write_text("{}")
    (medium / "link").symlink_to(medium / "jan")
    assert [str(each.relative_to(medium)) for each in bundles_on(medium)] == ["jan", "deliveries/feb"]
    assert bundles_on(medium / "jan") == [medium / "jan"]
    run("import", f"medium:{medium}", "--to", f"oci:{tmp_path}/o", "--store", tmp_path / "s")
    assert len(run("inventory", "--store", tmp_path / "s").splitlines()) >= 2
    code, said = says("import", f"medium:{medium}/empty", "--to", f"oci:{tmp_path}/o", "--no-store")
    assert code == 10, said


def test_many_files_are_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stick, "ENTRIES_MAX", 50)
    for number in range(200):
        (tmp_path / f"{number:04}").mkdir()
    assert bundles_on(tmp_path) == []


@pytest.mark.parametrize("place", ["/dev/null", "/dev/nowhere", "/etc/passwd"])
def test_what_is_no_medium_is_refused(place: str) -> None:
    with pytest.raises(TransferError) as caught:
        import_stick(Path(place), [], ["vfat"], lambda event: None, store=["--no-store"], answer=False)
    assert caught.value.exit_code in (2, 10)


def test_a_filesystem_that_is_not_on_the_list_is_not_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stick, "_is_medium", lambda device: None)
    monkeypatch.setattr(stick, "_type_of", lambda device: "ntfs")
    with pytest.raises(UsageError, match="of the type ntfs"):
        import_stick(Path("/dev/sdz9"), [], ["vfat"], lambda event: None, store=[], answer=True)


def test_without_its_user_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stick, "USER", "nobody-of-this-name")
    with pytest.raises(NotFound, match="does not exist"):
        stick._as_user(["--version"])


def test_the_text_for_people() -> None:
    rows = [{"status": "imported"}, {"status": "present"}, {"status": "failed", "name": "a\x1b[31m:1", "error": "bad"}]
    text = result_text({"bundles": [{"images": rows}]}, None, True)
    assert "1 images were imported, 1 were already there, 1 failed" in text
    assert "\x1b" not in text
    assert "Take this medium back" in text
    waiting = result_text(None, MissingPart("2 files are missing", hint="insert the next medium"), False)
    assert "The order does not matter" in waiting
    assert "receipt" not in waiting
    assert "waits for other deliveries" in result_text({"bundles": [], "staged": ["feb"]}, None, True)
