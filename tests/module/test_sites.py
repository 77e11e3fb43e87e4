"""Receipts in both their forms, and what is known of a site."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.errors import FormatError, RolledBack, TransferError, UsageError
from transfer.model import Digest
from transfer.sites.receipt import Receipt, matching, parse_receipt, site_name
from transfer.sites.states import Sites

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
RECEIPTS = st.builds(
    lambda serial, bundles: Receipt("plant-7", serial, tuple(sorted(bundles)), ()),
    st.integers(0, 10**6),
    st.sets(HEX, max_size=6),
)


@given(RECEIPTS)
def test_both_forms_say_the_same(receipt: Receipt) -> None:
    known = [Digest(f"sha256:{each}") for each in receipt.bundles]
    for data in (receipt.encode(), receipt.text().encode()):
        found = parse_receipt(data, "here")
        assert (found.site, found.serial) == (receipt.site, receipt.serial)
        assert matching(found, known) == (known, [])


@given(RECEIPTS.filter(lambda each: each.bundles), st.randoms(use_true_random=False))
def test_a_wrong_character_on_paper_is_found(receipt: Receipt, chance: random.Random) -> None:
    text = receipt.text()
    places = [n for n, each in enumerate(text) if each.isalnum()]
    at = chance.choice(places)
    wrong = chance.choice([each for each in "0123456789abcdefz" if each not in text[at].lower() + "ilo"])
    typed = text[:at] + wrong + text[at + 1 :]
    try:
        found = parse_receipt(typed.encode(), "typed")
    except FormatError:
        return
    assert found == parse_receipt(text.encode(), "typed")  # what is read alike, such as O and 0, is the same


@given(st.binary(max_size=300))
def test_whatever_is_given_is_a_receipt_or_told(data: bytes) -> None:
    with contextlib.suppress(TransferError):
        parse_receipt(data, "here")


@pytest.mark.parametrize("name", ["", "a" * 65, "a/b", ".hidden", "-x", "a b", "ä"])
def test_what_cannot_be_a_sites_name(name: str) -> None:
    with pytest.raises(UsageError):
        site_name(name)


def test_receipts_only_go_forward(tmp_path: Path) -> None:
    sites = Sites(tmp_path)
    one, two = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)
    sites.note("plant-7", one, "exported")
    first = Receipt("plant-7", 3, (one.hex,), ())
    assert sites.accept(first, [one], anew=False)
    assert not sites.accept(first, [one], anew=False)
    assert sites.get("plant-7").confirmed == [one] or set(sites.get("plant-7").confirmed) == {one}
    with pytest.raises(RolledBack):
        sites.accept(Receipt("plant-7", 2, (), ()), [], anew=False)
    with pytest.raises(RolledBack):
        sites.accept(Receipt("plant-7", 3, (two.hex,), ()), [two], anew=False)
    assert list(sites.names()) == ["plant-7"]
