"""Moves and backups, over every (store, protector, custody): what an operator does beside the real server on each.

All are run with `--all`, two of them in every run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from custody_sites import PROTECTORS, Site, Triple, site_of, triples
from kms_serving import call, json_of
from transit_custody import dek, deks, generate, open_eek, roll

SPREAD = {Triple("sqlite", "file", "transit"), Triple("vault-kv", "vault-transit", "envelope")}


@pytest.fixture(scope="module", params=triples(SPREAD))
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server that the tests of one triple share; each makes keys of its own."""
    with site_of(request, tmp_path_factory.mktemp("kms")) as site:
        yield site


def test_a_store_moves_to_another_protector_and_back_while_it_is_served(served: Site) -> None:
    own = served.protector
    other = PROTECTORS[(PROTECTORS.index(own) + 1) % len(PROTECTORS)]
    name = served.key("moved")
    eeks = generate(served.client, name)
    found = deks(served.client, eeks)
    for number, (old, new) in enumerate([(own, other), (other, own)]):
        served.protect_with(old, new)
        assert deks(served.client, eeks) == found
        assert json_of(roll(served.client, name))["versionName"] == f"{name}@{number + 1}"
        eeks += generate(served.client, name)
        found += deks(served.client, eeks[-1:])
        slots = {slot["protector"]: slot for slot in served.keystore("slots")["slots"]}
        assert set(slots) == {old, new} and slots[new]["active"]
        assert slots[new]["versions"] == (0 if served.custody == "transit" else 1), "nothing of a held key is sealed"
        assert served.keystore("rewrap")["moved"] == slots[old]["versions"]
        assert deks(served.client, eeks) == found
        served.keystore("unprotect", str(slots[old]["slot"]))
        served.restart(new)
        assert deks(served.client, eeks) == found


@contextmanager
def restored(site: Site, directory: Path, backup: str) -> Iterator[Site]:
    """A server on what a backup was restored into: a new place of the same engine."""
    stores = site.around.stores
    uri = stores.new_database()
    (directory / "copy").mkdir()
    copy = Site(directory / "copy", site.around, uri, site.protector, site.custody)
    copy.keystore("restore", backup)
    with copy.serving():
        yield copy
    stores.recycle(uri)


def test_a_backup_is_verified_rehearsed_and_restored_and_serves(served: Site, tmp_path: Path) -> None:
    name, gone = served.key("kept"), served.key("kept-deleted")
    eeks = generate(served.client, name)
    assert roll(served.client, name).status == 200
    eeks += [*generate(served.client, name), *generate(served.client, gone)]
    found = deks(served.client, eeks)
    assert call(served.client, "DELETE", f"/kms/v1/key/{gone}").status == 200

    held = served.custody == "transit"
    made = served.keystore("backup", "--to", str(tmp_path))["file"]
    for verified in (served.keystore("verify"), served.keystore("verify", made)):
        told = verified["held"]
        assert (told["checked"], told["problems"]) == (True, [])
        assert bool(told["versions"]) == held
    drilled = {each["name"]: each for each in served.keystore("drill", made)["keys"]}
    assert all(each["passed"] for each in drilled.values())
    assert [drilled[each]["versions"] for each in (name, gone)] == [[0, 1], [0]]
    assert [drilled[each]["held"] for each in (name, gone)] == ([[0, 1], [0]] if held else [[], []])

    with restored(served, tmp_path, made) as copy:
        assert deks(copy.client, eeks[:2]) == found[:2]
        assert open_eek(copy.client, eeks[2]).status == 400
        copy.undelete(gone)
        assert dek(copy.client, eeks[2]) == found[2]
        assert json_of(roll(copy.client, name))["versionName"] == f"{name}@2"
        assert dek(copy.client, generate(copy.client, name)[0])
    assert deks(served.client, eeks[:2]) == found[:2]
