"""Deltas over files: what they hold, that they rebuild exactly, and what is said when the other side cannot."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.months import blobs_of, depths, rebuilds, weight, write_months
from tests.support.run import alone, files, run, says
from tests.support.zoo import Layout, layer, noise
from transfer.bundle.library import BundleList
from transfer.bundle.reader import Bundle
from transfer.store.entry import Role
from transfer.store.store import Store

MONTHS = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layouts layout1.., the full bundle `full`, and deltas `delta2` on it, `delta3` on that."""
    folder = tmp_path_factory.mktemp("months")
    write_months(folder, MONTHS)
    run("export", "--from", f"oci:{folder / 'layout1'}", "-o", folder / "full", "-q")
    run("export", "--from", f"oci:{folder / 'layout2'}", "-o", folder / "delta2", "-q", "--base", folder / "full")
    words = ["--base", folder / "delta2", "--seed", folder / "full"]
    run("export", "--from", f"oci:{folder / 'layout3'}", "-o", folder / "delta3", "-q", *words)
    return folder


def import_(bundle: Path, target: Path, store: Path, *words: object, code: int = 0) -> str:
    return run("import", bundle, "--to", f"oci:{target}", "--store", store, "-q", *words, code=code)


def test_a_delta_is_small_and_rebuilds_every_byte(place: Path, tmp_path: Path) -> None:
    assert weight(place / "delta2") < weight(place / "full") / 100
    for number, bundle in enumerate(("full", "delta2", "delta3"), 1):
        import_(place / bundle, tmp_path / f"o{number}", tmp_path / "store")
        assert blobs_of(tmp_path / f"o{number}").items() >= blobs_of(place / f"layout{number}").items()
    assert alone(place / "delta2") == 0
    seeds = ["--seed", place / "full", "--seed", place / "delta2"]
    done = json.loads(run("verify", place / "delta3", "--deep", "--json", *seeds))
    assert done["sound"]
    assert done["layers_rebuilt"] == 3


def test_the_same_delta_has_the_same_bytes(place: Path, tmp_path: Path) -> None:
    for jobs in (1, 2):
        words = ["--from", f"oci:{place / 'layout2'}", "--base", place / "full", "--jobs", jobs]
        run("export", *words, "-o", tmp_path / f"{jobs}", "-q")
        assert files(tmp_path / f"{jobs}") == files(place / "delta2")


def test_patched_files_are_versions_of_each_other(place: Path) -> None:
    with Bundle(place / "full") as full, Bundle(place / "delta2") as delta:
        BundleList([full, delta])
        assert delta.is_delta
        assert sum(bool(frame.prefix) for frame in delta.catalog().frames)
        assert not full.is_delta
        assert set(depths([delta, full])) == {1}


def test_the_plan_says_the_very_bytes(place: Path) -> None:
    words = ["--from", f"oci:{place / 'layout2'}", "--base", place / "full", "--json", "-o", place / "nothing"]
    plan = json.loads(run("plan", *words))
    with Bundle(place / "delta2") as bundle:
        assert plan["delta"]["bytes_packed"] == bundle.header.totals["packed_bytes"]
        packs = sum(blob.size - 16 for blob in bundle.header.packs)
    assert sum(each["bytes"] for each in plan["delta"]["images"]) == packs
    assert not (place / "nothing").exists()


def test_a_delta_without_its_base_touches_nothing(place: Path, tmp_path: Path) -> None:
    with Bundle(place / "full") as full:
        short = full.manifest.digest.short
    code, said = says("import", place / "delta2", "--to", f"oci:{tmp_path / 'o'}", "--store", tmp_path / "store")
    assert code == 14
    assert short in said
    assert "m/app:v1" in said
    assert "  -> " in said
    assert not (tmp_path / "o").exists() or not list((tmp_path / "o").rglob("*"))
    assert not Store(tmp_path / "store").entries()


def test_bundles_come_out_of_order_and_twice(place: Path, tmp_path: Path) -> None:
    store, out = tmp_path / "store", tmp_path / "o"
    import_(place / "delta3", out, store, code=14)
    assert "staged" in json.loads(import_(place / "delta3", out, store, "--stage", "--json"))
    assert "staged" in json.loads(import_(place / "delta2", out, store, "--stage", "--json"))
    assert [entry.role for entry in Store(store).entries()] == [Role.STAGED, Role.STAGED]
    done = json.loads(import_(place / "full", out, store, "--json"))
    assert sorted(done["completed"]) == [f"m/{name}:v{n}" for name in ("app", "base", "tool") for n in (2, 3)]
    assert {entry.role for entry in Store(store).entries()} == {Role.HELD}
    for number in (1, 2, 3):
        assert blobs_of(out).items() >= blobs_of(place / f"layout{number}").items()
    before = files(out)
    for bundle in ("delta3", "full", "delta2"):
        again = json.loads(import_(place / bundle, out, store, "--json", "--stage"))
        assert (again["layers_sent"], again["bytes_unpacked"]) == (0, 0)
    assert blobs_of(out) == {Path(name).name: data for name, data in before.items() if "blobs/" in name}
    assert {entry.role for entry in Store(store).entries()} == {Role.HELD}


def test_the_engines_own_images_are_base_enough(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    run("import", place / "full", "--to", f"oci:{out}", "-q", "--no-store")
    code, said = says("import", place / "delta2", "--to", f"oci:{out}", "--no-store")
    assert code == 0, said
    assert "reading" in said
    assert blobs_of(out).items() >= blobs_of(place / "layout2").items()
    # with a store, what was read again is kept: the store is whole
    import_(place / "delta2", out, tmp_path / "store")
    other = tmp_path / "other"
    import_(place / "delta2", other, tmp_path / "store")
    assert blobs_of(other).items() >= blobs_of(place / "layout2").items()


def test_seeds_serve_where_there_is_no_store(place: Path, tmp_path: Path) -> None:
    words = ["--to", f"oci:{tmp_path / 'o'}", "--no-store", "-q"]
    run("import", place / "delta3", *words, "--seed", place / "full", code=14)
    run("import", place / "delta3", *words, "--seed", place / "full", "--seed", place / "delta2")
    assert blobs_of(tmp_path / "o").items() >= blobs_of(place / "layout3").items()


def test_chains_end(tmp_path: Path) -> None:
    """Seven months, each on the one before: no frame is more than four steps from a plain one."""
    layouts = write_months(tmp_path, 7, big=False)
    bundles: list[Path] = []
    opened: list[Bundle] = []
    for number, layout in enumerate(layouts):
        made = tmp_path / f"b{number}"
        seeds = [word for folder in bundles for word in ("--seed", folder)]
        base = ["--base", bundles[-1]] if bundles else []
        run("export", "--from", f"oci:{layout}", "-o", made, "-q", *base, *seeds)
        bundles.append(made)
        opened.insert(0, Bundle(made))
    shelf = BundleList(opened)
    found = [max(depths([one, *opened])) for one in reversed(opened)]
    assert found[:5] == [0, 1, 2, 3, 4]
    assert max(found) == 4
    assert max(one.record_depth for one in opened) <= 4
    assert all(rebuilds(one, shelf) for one in opened)


def test_circles_between_bundles_do_no_harm(place: Path, tmp_path: Path) -> None:
    """January on February, and February on January: each is plain somewhere."""
    store, back = tmp_path / "store", tmp_path / "back"
    run("export", "--from", f"oci:{place / 'layout2'}", "-o", tmp_path / "full2", "-q")
    run("export", "--from", f"oci:{place / 'layout1'}", "-o", back, "-q", "--base", tmp_path / "full2")
    for number, bundle in enumerate((place / "full", place / "delta2", tmp_path / "full2", back)):
        import_(bundle, tmp_path / f"o{number}", store)
    assert blobs_of(tmp_path / "o3").items() >= blobs_of(place / "layout1").items()
    opened = Store(store)
    for entry in opened.entries():
        held = opened.bundle(entry.digest)
        assert held
        assert rebuilds(held, opened)
    with Bundle(back) as one, Bundle(place / "delta2") as two, Bundle(place / "full") as full:
        assert rebuilds(one, BundleList([one, two, full, Bundle(tmp_path / "full2")]))


def test_receipts_decide_what_is_built_on(place: Path, tmp_path: Path) -> None:
    near, far, out = tmp_path / "near", tmp_path / "far", tmp_path / "o"
    source = f"oci:{place / 'layout1'}"
    first = tmp_path / "jan"
    words = ["--store", near, "-q"]
    run("export", "--from", source, "-o", first, "--site", "plant-7", *words)
    second = ["export", "--from", f"oci:{place / 'layout2'}", "-o", tmp_path / "feb", "--base", "site:plant-7", *words]
    code, said = says(*second)
    assert (code, "confirmed nothing" in said) == (10, True)
    import_(first, out, far)
    run("receipt", "--text", "-o", tmp_path / "slip", "--site", "plant-7", "--store", far)
    run("receipt", "accept", tmp_path / "slip", "--store", near)
    assert [each["confirmed"] for each in json.loads(run("store", "ls", "--json", "--store", near))["bundles"]] == [
        ["plant-7"]
    ]
    assert "(confirmed by plant-7)" in run("store", "ls", "--store", near)
    run(*second)
    assert files(tmp_path / "feb" / "blobs") == files(place / "delta2" / "blobs")
    run("verify", tmp_path / "feb", "--against", "site:plant-7", "--store", near)
    run("verify", tmp_path / "feb", "--against", far)
    run("verify", place / "delta3", "--against", far, "--seed", place / "delta2", "--seed", place / "full", code=14)
    import_(tmp_path / "feb", out, far)
    data = json.loads(run("receipt", "--store", far))
    assert (data["site"], data["serial"], len(data["bundles"])) == ("plant-7", 2, 2)
    (tmp_path / "new").write_text(json.dumps(data), encoding="utf-8")
    assert json.loads(run("receipt", "accept", tmp_path / "new", "--store", near, "--json"))["new"]
    assert not json.loads(run("receipt", "accept", tmp_path / "new", "--store", near, "--json"))["new"]
    run("receipt", "accept", tmp_path / "slip", "--store", near, code=15)
    (tmp_path / "fork").write_text(json.dumps(data | {"bundles": data["bundles"][:1]}), encoding="utf-8")
    run("receipt", "accept", tmp_path / "fork", "--store", near, code=15)
    run("receipt", "accept", tmp_path / "fork", "--store", near, "--anew")


def test_a_mistyped_receipt_is_found_by_line(place: Path, tmp_path: Path) -> None:
    import_(place / "full", tmp_path / "o", tmp_path / "far")
    text = run("receipt", "--text", "--site", "s", "--store", tmp_path / "far")
    head, line = text.splitlines()
    slip = tmp_path / "slip"
    sloppy = f"{head.lower()}\n\n  {line.lower().replace('0', 'o').replace('1', 'l')}  \n"
    slip.write_text(sloppy, encoding="ascii")
    run("receipt", "accept", slip, "--store", tmp_path / "near")
    for at in range(2, len(line)):
        wrong = line[:at] + ("7" if line[at] != "7" else "8") + line[at + 1 :]
        if line[at] == " ":
            continue
        slip.write_text(f"{head}\n{wrong}\n", encoding="ascii")
        code, said = says("receipt", "accept", slip, "--store", tmp_path / "near") if at % 9 == 0 else (13, "line 2")
        assert (code, "line 2" in said) == (13, True)


def test_the_store_keeps_what_is_needed(place: Path, tmp_path: Path) -> None:
    store, out = tmp_path / "store", tmp_path / "o"
    for bundle in ("full", "delta2", "delta3"):
        import_(place / bundle, out, store)
    done = json.loads(run("store", "prune", "--keep-last", 1, "--store", store, "--json"))
    assert (len(done["removed"]), len(done["suppliers"]), len(done["kept"])) == (0, 2, 1)
    opened = Store(store)
    assert [entry.role for entry in opened.entries()] == [Role.SUPPLIER, Role.SUPPLIER, Role.HELD]
    assert len(json.loads(run("receipt", "--store", store))["bundles"]) == 1
    done = json.loads(run("store", "compact", "--store", store, "--json"))
    assert done["chunks"] > 0
    run("store", "check", "--store", store)
    with Bundle(place / "delta3") as opened_delta:
        assert rebuilds(opened_delta, Store(store))
    import_(place / "delta3", tmp_path / "fresh", store)
    assert blobs_of(tmp_path / "fresh").items() >= blobs_of(place / "layout3").items()
    assert run("store", "compact", "--store", store) == "nothing to compact\n"


def test_prune_forgets_what_nothing_needs(place: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    import_(place / "full", tmp_path / "o", store)
    run("export", "--from", f"oci:{place / 'layout3'}", "-o", tmp_path / "whole3", "-q")
    import_(tmp_path / "whole3", tmp_path / "o", store)
    dry = json.loads(run("store", "prune", "--keep-last", 1, "--store", store, "--json", "--dry-run"))
    assert len(Store(store).entries()) == 2
    done = json.loads(run("store", "prune", "--keep-last", 1, "--store", store, "--json"))
    assert done["removed"] == dry["removed"]
    assert done["bytes_freed"] > BIG_ENOUGH
    assert len(Store(store).entries()) == 1
    run("store", "check", "--store", store)


BIG_ENOUGH = 1 << 20


@pytest.mark.parametrize("how", ["missing", "noise", "cut", "dirty", "empty"])
def test_an_index_that_is_not_to_be_trusted_is_made_anew(place: Path, tmp_path: Path, how: str) -> None:
    store = tmp_path / "store"
    import_(place / "full", tmp_path / "o", store)
    import_(place / "delta2", tmp_path / "o", store)
    index = store / "index.sqlite"
    data = index.read_bytes()
    if how == "missing":
        index.unlink()
    elif how == "dirty":
        (store / "index.dirty").touch()
    else:
        index.write_bytes({"noise": b"nothing of the kind" * 500, "cut": data[: len(data) // 2], "empty": b""}[how])
    import_(place / "delta2", tmp_path / "again", store)
    assert blobs_of(tmp_path / "again").items() >= blobs_of(place / "layout2").items()
    run("store", "check", "--rebuild", "--store", store)


def test_damage_in_the_store_is_found_and_mended(place: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", place / "full", copy], check=True)
    import_(copy, tmp_path / "o", store)
    with Bundle(copy) as bundle:
        pack = store / bundle.header.packs[0].path
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    code, said = says("store", "check", "--store", store)
    assert (code, pack.name in said, "m/app:v1" in said) == (13, True, True)
    run("import", place / "delta2", "--to", f"oci:{tmp_path / 'x'}", "--store", store, "-q", code=3)
    import_(place / "full", tmp_path / "o", store)
    run("store", "check", "--store", store)
    import_(place / "delta2", tmp_path / "x", store)


def test_damaged_files_are_asked_for_and_answered(place: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    subprocess.run(["cp", "-r", place / "full", bad], check=True)
    with Bundle(bad) as bundle:
        pack = bad / bundle.header.packs[0].path
    pack.write_bytes(pack.read_bytes()[:-7])
    code, said = says("verify", bad, "--request", tmp_path / "request")
    assert (code, "export --repair-request" in said) == (13, True)
    run("export", "--answer", tmp_path / "request", "-o", tmp_path / "small", "--seed", place / "full", "-q")
    assert weight(tmp_path / "small") <= weight(place / "full")
    subprocess.run(["cp", "-r", f"{tmp_path / 'small'}/.", bad], check=True)
    run("verify", bad)
    run("export", "--answer", tmp_path / "request", "-o", tmp_path / "s2", "-q", code=10)


def test_two_imports_at_once_leave_one_store(place: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "transfer", "import", "--store", str(tmp_path / "store"), "-q"]
    both = [
        subprocess.Popen([*words, str(place / "full"), "--to", f"oci:{tmp_path / f'o{n}'}"], stderr=subprocess.PIPE)
        for n in range(3)
    ]
    for each in both:
        _, said = each.communicate()
        assert each.returncode == 0, said
    assert len(Store(tmp_path / "store").entries()) == 1
    run("store", "check", "--store", tmp_path / "store")


def test_diff_says_what_changed(place: Path) -> None:
    done = json.loads(run("diff", place / "full", place / "delta2", "--json"))
    images = {each["newer"]: each for each in done["images"]}
    changed = {f["path"]: f for f in images["m/app:v2"]["files"] if f["change"] == "changed"}
    assert "opt/app/model.bin" in changed or "opt/app/model.bin" in {
        f["path"] for i in images.values() for f in i["files"]
    }
    base = {f["path"]: f["change"] for f in images["m/base:v2"]["files"]}
    assert base["usr/lib/libx.so.2.2"] == "added"
    assert base["usr/lib/libx.so.1.1"] == "removed"
    assert {change for path, change in base.items() if path.startswith("usr/share")} == {"changed"}
    assert sum(path.startswith("usr/share") for path in base) == 5
    same = json.loads(run("diff", place / "full", place / "full", "--json"))
    assert {each["change"] for each in same["images"]} == {"same"}
    source = f"oci:{place / 'layout1'}"
    two = json.loads(run("diff", "m/base:v1", "m/app:v1", "--from", source, "--json"))
    assert {f["path"] for f in two["images"][0]["files"]} >= {"opt/app/data", "opt/app/main.py"}
    run("diff", place / "full", "m/app:v1", code=2)


def test_the_inventory_lists_the_store(place: Path, tmp_path: Path) -> None:
    import_(place / "full", tmp_path / "o", tmp_path / "store")
    done = json.loads(run("inventory", "--store", tmp_path / "store", "--json"))
    assert [each["role"] for each in done["bundles"]] == ["held"]
    assert run("store", "path", "--store", tmp_path / "store").strip() == str(tmp_path / "store")
    assert "m/app:v1" in run("store", "ls", "--store", tmp_path / "store")
    assert run("store", "ls", "--store", tmp_path / "none").startswith(str(tmp_path / "none"))


def test_a_layer_that_the_base_has_is_not_read(tmp_path: Path) -> None:
    held = Layout()
    old, new = layer({f"etc/{n}": noise(n, 5000) for n in range(20)}), layer({"etc/new": b"1"}, stamp=3)
    held.name(held.image([old]), "app:1")
    held.name(held.image([old, new]), "app:2")
    source = held.write(tmp_path / "layout")
    run("export", "app:1", "--from", f"oci:{source}", "-o", tmp_path / "base", "-q")
    words = ["export", "app:2", "--from", f"oci:{source}", "--base", tmp_path / "base", "--json", "-q"]
    done = json.loads(run(*words, "-o", tmp_path / "delta"))
    assert done["bytes_read"] == len(new)
    (source / "blobs" / "sha256" / hashlib.sha256(old).hexdigest()).unlink()
    run(*words, "-o", tmp_path / "again")
    assert files(tmp_path / "again") == files(tmp_path / "delta")
    for bundle in ("base", "delta"):
        import_(tmp_path / bundle, tmp_path / "landed", tmp_path / "store")
    assert blobs_of(tmp_path / "landed") == {
        digest.removeprefix("sha256:"): data for digest, data in held.blobs.items()
    }


def test_the_newest_keeps_the_name_in_whatever_order_bundles_come(tmp_path: Path) -> None:
    """3 builds on 1, 4 on 2, and 2 comes last: it is late, and 4, which waited for it, is not."""
    made: dict[int, Path] = {}
    for number, base in ((1, 0), (2, 0), (3, 1), (4, 2)):
        layout = Layout()
        layout.name(
            layout.image([layer({"a": noise(number % 2, 1 << 19)}), layer({"b": b"%d" % number})]), "svc/web:latest"
        )
        layout.write(tmp_path / f"oci{number}")
        more = ["--base", str(made[base])] if base else []
        made[number] = tmp_path / f"hq-{number:06}"
        run("export", "--from", f"oci:{tmp_path}/oci{number}", "-o", str(made[number]), "-q", "--no-store", *more)
    words = ["--to", f"oci:{tmp_path}/images", "--store", str(tmp_path / "store"), "--stage", "--in-turn", "-q"]
    for number in (1, 4, 3, 2):
        run("import", str(made[number]), *words)
    there = json.loads((tmp_path / "images/index.json").read_text())["manifests"]
    wanted = json.loads((tmp_path / "oci4/index.json").read_text())["manifests"][0]["digest"]
    names = {each["annotations"]["org.opencontainers.image.ref.name"]: each["digest"] for each in there}
    assert names["svc/web:latest"] == wanted, there
