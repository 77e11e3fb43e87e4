"""Names in registries: given, also from one registry to another, and taken, by name alone."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.fakeregistry import PERSONALITIES, FakeRegistry
from tests.support.run import run, says
from tests.unit.test_registry import images


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    made = FakeRegistry(PERSONALITIES["dist31"]())
    made.hold(images(), lambda name: (name.partition(":")[0], name.partition(":")[2]))
    with made.running():
        yield made


def test_a_tag_beside_another_and_in_another_repository(registry: FakeRegistry) -> None:
    place = f"docker://{registry.host}"
    run("tag", f"{place}/app/one:1", f"{place}/app/one:prod", f"{place}/new/place:2")
    names = registry.names()
    assert names["app/one:1"] == names["app/one:prod"] == names["new/place:2"]
    assert registry.received == 0  # mounted
    found = json.loads(run("tag", f"{place}/app/two:1", f"{place}/app/one:prod", "--json"))
    assert registry.names()["app/one:prod"] == found["id"] == names["app/two:1"]


def test_a_tag_in_another_registry(registry: FakeRegistry) -> None:
    with FakeRegistry().running() as other:
        run("tag", f"docker://{registry.host}/app/one:1", f"docker://{other.host}/copy/one:1")
        assert other.names() == {"copy/one:1": registry.names()["app/one:1"]}


def test_a_name_is_removed_and_the_others_stay(registry: FakeRegistry) -> None:
    place = f"docker://{registry.host}"
    run("tag", f"{place}/app/one:1", f"{place}/app/one:prod")
    assert "would be removed" in run("rm", f"{place}/app/one:1", "--dry-run")
    assert "app/one:1" in registry.names()
    assert "is removed" in run("rm", f"{place}/app/one:1")
    assert "app/one:1" not in registry.names() and "app/one:prod" in registry.names()
    assert "already gone" in run("rm", f"{place}/app/one:1")


def test_a_registry_that_deletes_no_tags_is_told(registry: FakeRegistry) -> None:
    registry.like.deletes = False
    place = f"docker://{registry.host}"
    code, said = says("rm", f"{place}/app/one:1", f"{place}/app/none:1")
    assert code == 3, said
    assert "cannot delete" in said and "already gone" in said
    assert says("rm", f"{place}/app/one:1")[0] == 20
    assert "app/one:1" in registry.names()


@pytest.mark.parametrize("name", ["app/*", "app/one:1 x", "", "-x", "a" * 64, "docker://reg.hq/app/*:1"])
def test_what_is_no_name_is_refused(name: str) -> None:
    assert says("rm", "--", name)[0] == 2
    assert says("rm", "--", name, "docker://reg.hq/app:1")[0] == 2


def test_an_engine_without_names_of_its_own_is_told() -> None:
    code, said = says("rm", "app:1", "--from", "oci:/tmp")
    assert (code, "docker-daemon" in said) == (2, True), said
