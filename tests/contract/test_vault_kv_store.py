"""What is particular to a key store in Vault: races, documents that somebody else touched, answers that were lost,
what each operation costs, and who is open elsewhere. The whole contract suite runs on it with `--all`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from local_stores import in_child, material_of, new_key, read_all
from store_places import VAULT_KV, VaultKvPlace, storing_cluster
from vault_clusters import VaultCluster
from vault_doubles import VaultDouble

from ringfence_agent.keystore.interface import ChangeOrigin, ImportedKey, ImportedVersion, KeyImport
from ringfence_agent.keystore.token_store import TokenRecord
from ringfence_agent.keystore.vault_kv import journal
from ringfence_agent.keystore.vault_kv.address import VaultKvAddress
from ringfence_agent.keystore.vault_kv.documents import VaultDocuments
from ringfence_agent.keystore.vault_kv.owners import VaultOwners
from ringfence_agent.keystore.vault_kv.rows import HEAD, key_path
from ringfence_agent.vault import kv
from ringfence_agent.vault.open import open_control
from ringfence_zones.errors import ConfigError, KeyExistsError, KeyStoreError, StoreTamperedError, StoreUnavailableError
from ringfence_zones.keys import DEFAULT_CIPHER, KeyMetadata

ETL = ChangeOrigin("etl", b"d" * 32)


@pytest.fixture(params=VAULT_KV)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VaultKvPlace]:
    made = VaultKvPlace(storing_cluster(request, request.param), tmp_path)
    yield made
    made.close()


@pytest.fixture
def on_double(storing_cluster_on_double: VaultCluster, tmp_path: Path) -> Iterator[VaultKvPlace]:
    made = VaultKvPlace(storing_cluster_on_double, tmp_path)
    yield made
    made.close()


def double_of(place: VaultKvPlace) -> VaultDouble:
    assert place.cluster.double is not None
    return place.cluster.double


def write(place: VaultKvPlace, path: str, data: dict[str, Any]) -> None:
    """As somebody with rights in Vault who is not Ringfence."""
    full = f"{place.cluster.kv_mount}/metadata/{place.prefix}/{path}"
    current = place.cluster.call("GET", full).body.get("data", {}).get("current_version", 0)
    target = full.replace("/metadata/", "/data/")
    place.cluster.done("POST", target, {"data": data, "options": {"cas": current}})


# What others would take for one another, and what a storage would not take for a path.
NAMES = ["a", "A", "a ", "á", "a\u0301", "🔑", "a\0", "a/b", "..", "x" * 1000, "x" * 999 + "X"]


def test_keys_tokens_and_policy_are_kept_exactly(place: VaultKvPlace) -> None:
    store = place.open()
    for name in NAMES:
        store.create_key(new_key(name), ETL)
    with pytest.raises(KeyExistsError):
        store.create_key(new_key("a "))
    store.roll_key("🔑", None)
    store.delete_key("a")
    store.publish_policy(0, b'{"\xc3\xa4":1}', "root")
    token = TokenRecord(store.next_sequence(), bytes(range(256)), 5)
    store.add_token(token)
    again = place.open()
    assert {metadata.name: metadata.versions for metadata in again.list_metadata()} == {
        name: 2 if name == "🔑" else 1 for name in NAMES if name != "a"
    }
    for name in NAMES[1:]:
        key = again.find_key(name)
        assert key is not None
        assert key.versions[0].material == new_key(name).material
    assert again.find_token(token.sequence) == token
    assert again.find_policy() == store.find_policy()
    assert [change.owner_id for change in again.find_unconfirmed("a/b")] == [store.owner_id]
    assert again.is_alive(store.owner_id)


# -- races between processes


def in_processes(count: int, act: Callable[[int], str]) -> list[str]:
    """What each of so many processes says."""

    def child(number: int) -> Callable[[int], None]:
        return lambda report: os.write(report, act(number).encode() + b"\n") and None

    children = [in_child(child(number)) for number in range(count)]
    said = [line for _, read_end in children for line in read_all(read_end)]
    assert all(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 for pid, _ in children)
    return said


def test_of_twenty_processes_that_create_one_key_exactly_one_succeeds(place: VaultKvPlace) -> None:
    place.open().close()

    def create(number: int) -> str:
        try:
            with closing(place.open()) as store:
                return f"{number} made {store.create_key(new_key('k', number)).material.reveal().hex()}"
        except KeyExistsError:
            return "exists"

    said = in_processes(20, create)
    assert said.count("exists") == 19
    (winner,) = set(said) - {"exists"}
    found = place.open().find_key("k")
    assert found is not None
    assert winner.split()[-1] == found.versions[0].material.reveal().hex()


def test_processes_that_change_different_keys_at_once_all_succeed(place: VaultKvPlace) -> None:
    place.open().close()

    def change(number: int) -> str:
        with closing(place.open()) as store:
            store.create_key(new_key(f"k{number}"), ETL)
            store.roll_key(f"k{number}", material_of(f"k{number}", 1))
            store.add_token(TokenRecord(store.next_sequence(), b"token", 5))
            store.confirm(store.find_unconfirmed(f"k{number}"))
            return "done"

    assert in_processes(5, change) == ["done"] * 5
    store = place.open()
    assert [metadata.versions for metadata in store.list_metadata()] == [2] * 5
    assert store.change_number() == 10
    with store.snapshot() as snapshot:
        assert snapshot.facts.versions == 10


def test_of_instances_that_make_a_store_at_once_one_does_and_the_others_are_told_to_fetch_its_root_key(
    place: VaultKvPlace,
) -> None:
    hosts = [place.directory / str(number) for number in range(4)]
    for host in hosts:
        host.mkdir(mode=0o700)

    def start(number: int) -> str:
        mine = VaultKvPlace(place.cluster, hosts[number], name=place.name)
        try:
            with closing(mine.open()):
                return "made"
        except KeyStoreError as error:
            return f"{type(error).__name__} {error.message}"
        except Exception as error:  # noqa: BLE001 -- told in the parent
            return f"{type(error).__name__} {error}"

    said = in_processes(4, start)
    assert said.count("made") == 1, said
    assert [line.split(" ")[0] for line in said if line != "made"] == ["ConfigError"] * 3
    assert [sorted(path.name for path in host.iterdir()) for host in hosts].count(["root.key"]) == 1


def test_a_key_that_comes_twice_in_one_import_is_judged_as_if_it_came_again(place: VaultKvPlace) -> None:
    store = place.open()
    first, more = imported(1), imported(2)
    assert store.import_keys([first, more]) == [KeyImport("k", True, (0,)), KeyImport("k", False, (1,))]
    found = store.find_key("k")
    assert found is not None
    assert [version.version for version in found.versions] == [0, 1]
    with store.snapshot() as snapshot:
        assert (snapshot.facts.keys, snapshot.facts.versions) == (1, 2)


def imported(count: int) -> ImportedKey:
    metadata = KeyMetadata("k", DEFAULT_CIPHER, 256, 5, count, None, {})
    return ImportedKey(metadata, [ImportedVersion(number, material_of("k", number), 5) for number in range(count)])


# -- what somebody else touched


def test_a_document_that_was_edited_is_not_believed(place: VaultKvPlace) -> None:
    store = place.open()
    store.create_key(new_key("k"))
    data = place.document(key_path("k"))
    body = json.loads(data["body"])
    body["key"][2] = 128
    write(place, key_path("k"), {**data, "body": json.dumps(body)})
    with pytest.raises(StoreTamperedError, match="was changed or put back"):
        store.find_key("k")
    with pytest.raises(StoreTamperedError, match="was changed or put back"):
        place.open()


def test_an_earlier_version_of_a_document_that_is_written_again_is_not_believed(place: VaultKvPlace) -> None:
    store = place.open()
    store.create_key(new_key("k"))
    before = {path: place.document(path) for path in (HEAD, key_path("k"))}
    store.delete_key("k")
    for path, data in before.items():
        write(place, path, data)
    for attempt in (lambda: store.find_key("k"), store.change_number, place.open):
        with pytest.raises(StoreTamperedError, match="was changed or put back"):
            attempt()


def test_a_record_in_the_place_of_another_is_not_believed(place: VaultKvPlace) -> None:
    store = place.open()
    for name in ("a", "b"):
        store.create_key(new_key(name))
    write(place, key_path("a"), place.document(key_path("b")))
    with pytest.raises(StoreTamperedError):
        store.find_key("a")


@pytest.mark.parametrize("kind", ["data", "metadata"])
@pytest.mark.parametrize("what", ["head", "key"])
def test_a_document_that_was_deleted_is_missed_by_whoever_knew_it_and_at_the_next_start(
    place: VaultKvPlace, kind: str, what: str
) -> None:
    store = place.open()
    store.create_key(new_key("k"))
    store.create_key(new_key("other"))
    path = HEAD if what == "head" else key_path("k")
    place.cluster.done("DELETE", f"{place.cluster.kv_mount}/{kind}/{place.prefix}/{path}")
    with pytest.raises(StoreTamperedError):
        store.change_number() if what == "head" else store.find_key("k")
    # Without its metadata it is as if there never was a head; the root key file says otherwise.
    with pytest.raises(ConfigError if (what, kind) == ("head", "metadata") else StoreTamperedError):
        place.open()


def test_a_new_store_is_not_made_among_documents_without_a_head(place: VaultKvPlace) -> None:
    store = place.open()
    store.create_key(new_key("k"))
    place.cluster.done("DELETE", f"{place.cluster.kv_mount}/metadata/{place.prefix}/{HEAD}")
    place.root_key.unlink()
    with pytest.raises(StoreTamperedError, match="but no head"):
        place.open()
    assert not place.root_key.exists()


def test_what_is_no_document_of_ours_is_told_as_such(place: VaultKvPlace) -> None:
    write(place, HEAD, {"some": "secret"})
    with pytest.raises(StoreTamperedError, match="not one that Ringfence wrote"):
        place.open()


def test_a_store_of_a_newer_release_is_left_alone(place: VaultKvPlace) -> None:
    place.open().close()
    for newer in ("layout", "format"):
        data = place.document(HEAD)
        write(place, HEAD, {**data, "body": json.dumps({**json.loads(data["body"]), newer: 99})})
        with pytest.raises(StoreUnavailableError, match="this release of Ringfence reads"):
            place.open()


# -- answers


def test_a_commit_whose_answer_was_lost_is_made_once(on_double: VaultKvPlace) -> None:
    store, vault = on_double.open(), double_of(on_double)
    for number, action in enumerate(("execute_then_status", "execute_then_drop", "status", "drop")):
        with vault.fault(action, path=f"data/{on_double.prefix}/{HEAD}$", method="POST", times=1) as rule:
            store.create_key(new_key(f"k{number}"), ETL)
            assert vault.met(rule) == 1
        assert store.change_number() == number + 1
        assert len(store.find_unconfirmed(f"k{number}")) == 1


def test_a_document_whose_answer_was_lost_is_written_once(on_double: VaultKvPlace) -> None:
    store, vault = on_double.open(), double_of(on_double)
    store.create_key(new_key("k"))
    for action in ("execute_then_status", "drop"):
        with vault.fault(action, path=f"data/{on_double.prefix}/keys", method="POST", times=1):
            store.roll_key("k", None)
    found = store.find_key("k")
    assert found is not None
    assert [version.version for version in found.versions] == [0, 1, 2]


def test_an_outcome_that_nobody_can_tell_is_said_to_be_unknown(on_double: VaultKvPlace) -> None:
    store, vault = on_double.open(), double_of(on_double)
    with (
        vault.fault("execute_then_drop", path=f"data/{on_double.prefix}/{HEAD}", method="POST"),
        vault.fault("status", path=f"data/{on_double.prefix}/{HEAD}", method="GET", status=503, skip=1),
        pytest.raises(StoreUnavailableError, match="not known") as caught,
    ):
        store.create_key(new_key("k"))
    assert caught.value.may_have_changed
    assert place_is_whole(on_double)


def place_is_whole(place: VaultKvPlace) -> bool:
    with place.open().snapshot() as snapshot:
        return snapshot.facts.change_number == snapshot.facts.keys


def test_a_change_that_was_made_and_cannot_be_shown_yet_is_shown_by_the_next_look(
    on_double: VaultKvPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_DEADLINE_S", 0.2)
    store, other, vault = on_double.open(), on_double.open(), double_of(on_double)
    with (
        vault.fault("status", path=f"data/{on_double.prefix}/keys", method="POST", status=503),
        pytest.raises(StoreUnavailableError, match="was made") as caught,
    ):
        store.create_key(new_key("k"))
    assert caught.value.may_have_changed
    assert other.change_number() == 1
    assert other.find_key("k") is not None


def test_a_vault_that_is_sealed_changes_nothing_and_is_waited_for(on_double: VaultKvPlace) -> None:
    store, vault = on_double.open(), double_of(on_double)
    store.create_key(new_key("k"))
    vault.seal()
    try:
        for attempt in (lambda: store.find_key("k"), lambda: store.create_key(new_key("l")), store.change_number):
            with pytest.raises(StoreUnavailableError, match="is sealed") as caught:
                attempt()
            assert not caught.value.may_have_changed
    finally:
        vault.unseal()
    assert store.find_key("k") is not None
    assert store.change_number() == 1


def test_an_answer_from_before_is_refused_until_a_newer_one_comes(on_double: VaultKvPlace) -> None:
    """As of a node that was deposed, or of a Vault that was put back while the server runs."""
    store, vault = on_double.open(), double_of(on_double)
    store.create_key(new_key("k"))
    path = f"{on_double.cluster.kv_mount}/data/{on_double.prefix}/{key_path('k')}"
    earlier = on_double.cluster.done("GET", path).body
    store.delete_key("k")
    with (
        vault.fault("status", path=key_path("k"), method="GET", status=200, body=earlier),
        pytest.raises(StoreUnavailableError, match="as it was before"),
    ):
        store.find_key("k")
    assert store.find_key("k") is None


def test_what_vault_does_not_take_is_refused_before_anything_is_written(place: VaultKvPlace) -> None:
    store = place.open()
    with pytest.raises(KeyStoreError, match="nothing was changed"):
        store.publish_policy(0, b"x" * 1_200_000, "root")
    store.create_key(new_key("k"))
    assert (store.change_number(), store.find_policy()) == (1, None)
    assert sorted(place.paths()) == sorted([HEAD, key_path("k")])


# -- costs


def test_each_operation_asks_vault_as_often_as_the_decision_says(on_double: VaultKvPlace) -> None:
    store, vault = on_double.open(), double_of(on_double)

    def calls(act: Callable[[], object]) -> tuple[int, int]:
        vault.forget_requests()
        act()
        seen = [request["method"] for request in vault.requests(f"/{on_double.prefix}/")]
        return sum(method == "GET" for method in seen), sum(method != "GET" for method in seen)

    assert calls(lambda: store.create_key(new_key("k"))) == (2, 2)
    assert calls(lambda: store.roll_key("k", None)) == (2, 2)
    assert calls(store.change_number) == (1, 0)
    assert calls(store.token_change_number) == (1, 0)
    assert calls(lambda: store.changes_since(1)) == (1, 0)
    assert calls(lambda: store.find_key("k")) == (1, 0)
    assert calls(lambda: store.find_unconfirmed("k")) == (1, 0)
    assert calls(store.list_metadata) == (2, 0)
    assert calls(store.list_metadata) == (1, 0)
    assert calls(lambda: store.publish_policy(0, b"{}", "root")) == (1, 2)
    assert calls(store.find_policy) == (2, 0)
    assert calls(store.find_policy) == (1, 0)
    assert calls(store.next_sequence) == (1, 1)
    assert calls(lambda: store.add_token(TokenRecord(store.next_sequence(), b"t", 5))) == (1, 1)
    assert calls(lambda: store.find_token(2)) == (1, 0)
    assert calls(lambda: store.renew_token(2, 6)) == (3, 2)
    assert calls(lambda: store.delete_key("k")) == (2, 2)


def test_no_document_has_more_strings_than_a_server_takes(place: VaultKvPlace) -> None:
    """OpenBao refuses JSON of more than 1,000 strings: a key with many versions, and an import of many keys."""
    store = place.open()
    store.create_key(new_key("k"))
    for path in place.paths():
        assert place.document(path).keys() == {"body", "tag"}


# -- pages


def test_names_come_a_page_at_a_time_from_servers_that_have_pages_and_at_once_from_others(
    place: VaultKvPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = place.open()
    for number in range(8):
        store.create_key(new_key(f"k{number}"))
    for size in (1, 3, 8, 1000):
        monkeypatch.setattr(kv, "_PAGE", size)
        assert len(place.open().list_metadata()) == 8


# -- who is open


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def owners_on(place: VaultKvPlace, machine: int, clock: Clock) -> VaultOwners:
    settings = place.cluster.settings()
    documents = VaultDocuments(open_control(settings), VaultKvAddress(settings.kv_mount, place.prefix))
    documents.use_root(place.open()._records.protection.root)  # type: ignore[attr-defined]
    return VaultOwners(documents, clock, lambda: machine)


def test_a_handle_on_another_machine_is_alive_while_it_counts(place: VaultKvPlace) -> None:
    clock = Clock()
    here, there = owners_on(place, 1, clock), owners_on(place, 2, clock)
    assert not here.is_alive(there.owner_id)
    there.count_up()
    assert not here.is_alive(there.owner_id)  # it changed nothing yet, so nobody asks
    there.hold()
    there.count_up()
    for _ in range(4):
        assert here.is_alive(there.owner_id)
        clock.now_s += 100
        there.count_up()
    clock.now_s += 100
    assert here.is_alive(there.owner_id)
    clock.now_s += 200
    assert not here.is_alive(there.owner_id)
    there.count_up()
    assert here.is_alive(there.owner_id)
    there.close()
    assert not here.is_alive(there.owner_id)


def test_lines_of_handles_that_are_gone_do_not_pile_up(place: VaultKvPlace) -> None:
    clock = Clock()
    here, killed = owners_on(place, 1, clock), [owners_on(place, 2, clock) for _ in range(3)]
    for each in (here, *killed):
        each.hold()
        each.count_up()
    for _ in range(3):
        clock.now_s += 100
        here.count_up()
    assert json.loads(place.document("owners")["body"])["open"].keys() == {str(here.owner_id)}
    for each in (here, *killed):
        each.close()
