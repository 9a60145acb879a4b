"""The control plane against a running Vault: the double always, a real server when the environment names one.

What only the double can be made to do (to lose an answer, to step down, to let an hour pass) stands in
`test_vault_control_failures`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from vault_clusters import SECRET_ID, VaultCluster, vault_cluster
from vault_contract import ADDRESS, TOKEN
from vault_doubles import VaultDouble, running_vault
from vault_settings import write_private

from ringfence_agent.vault.kv import MAX_VERSIONS
from ringfence_agent.vault.login import NEEDS_HUMAN, TAMPERING, VaultLogin, log_in_and_share
from ringfence_agent.vault.policy import PolicyRole, forbidden_paths, policy_hcl, required_capabilities
from ringfence_agent.vault.refusal import Reason, VaultRefusedError
from ringfence_agent.vault.settings import WRAP_KEY
from ringfence_agent.vault.setup import SetupChoices, VaultSetup, parse_cidrs
from ringfence_agent.vault.transit_wire import EncryptItem, ItemFault, OpenItem, TransitCiphertext
from ringfence_zones.errors import ConfigError, ProtectorRefusedError, ProtectorUnavailableError
from ringfence_zones.secret import Secret

_IS_REAL_NAMED = bool(os.environ.get(ADDRESS) and os.environ.get(TOKEN))


@pytest.fixture(scope="module", params=["double", *(["real"] if _IS_REAL_NAMED else [])])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, str, VaultDouble | None]]:
    """Address, privileged token, and the double if it is one."""
    if request.param == "real":
        yield os.environ[ADDRESS], os.environ[TOKEN], None
        return
    with running_vault() as double:
        yield double.address, double.root_token, double


@pytest.fixture
def cluster(server: tuple[str, str, VaultDouble | None], tmp_path: Path) -> Iterator[VaultCluster]:
    address, token, double = server
    with vault_cluster([address], token, tmp_path, double) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shared(
    server: tuple[str, str, VaultDouble | None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VaultCluster]:
    """One that is set up, for tests that leave it as it is."""
    address, token, double = server
    with vault_cluster([address], token, tmp_path_factory.mktemp("shared"), double) as cluster:
        cluster.set_up()
        record = f"{cluster.kv_mount}/data/ringfence/{cluster.name}/there"
        cluster.done("POST", record, {"data": {}, "options": {"cas": 0}})
        yield cluster


# Setting up


def test_setup_says_first_what_it_would_do_and_does_nothing(cluster: VaultCluster) -> None:
    prepared = VaultSetup(cluster.administrator())
    steps = prepared.plan()
    assert all(step.action is not None for step in steps)
    assert [step.thing for step in steps][:3] == [
        f"Transit engine transit-{cluster.name}/",
        f"keys of transit-{cluster.name}/ are made by a create only",
        f"Transit key transit-{cluster.name}/keys/{WRAP_KEY}",
    ]
    assert cluster.call("GET", f"transit-{cluster.name}/keys/{WRAP_KEY}").status == 404
    assert f"transit-{cluster.name}/" not in cluster.done("GET", "sys/mounts").data


def test_setup_makes_what_a_cluster_needs_and_nothing_the_second_time(cluster: VaultCluster) -> None:
    prepared = cluster.set_up()
    settings = cluster.settings()
    key = cluster.done("GET", f"{settings.transit_mount}/keys/{WRAP_KEY}").data
    assert (key["type"], key["derived"], key["exportable"], key["allow_plaintext_backup"], key["kdf"]) == (
        "aes256-gcm96",
        True,
        False,
        False,
        "hkdf_sha256",
    )
    assert cluster.done("GET", f"{settings.transit_mount}/config/keys").data["disable_upsert"] is True
    config = cluster.done("GET", f"{cluster.kv_mount}/config").data
    assert (config["cas_required"], config["max_versions"]) == (True, MAX_VERSIONS)
    role = cluster.done("GET", f"auth/{cluster.approle_mount}/role/{settings.role}").data
    assert role["token_no_default_policy"] is True
    assert (role["token_period"], role["secret_id_num_uses"], role["secret_id_ttl"]) == (3600, 1, 600)
    assert sorted(role["token_policies"]) == [f"ringfence-keyadmin-{cluster.name}", f"ringfence-service-{cluster.name}"]
    assert [step.action for step in prepared.plan()] == [None] * len(prepared.plan())
    assert prepared.apply() == []


def test_setup_without_kv_leaves_kv_alone(cluster: VaultCluster) -> None:
    cluster.set_up(with_kv=False)
    assert f"{cluster.kv_mount}/" not in cluster.done("GET", "sys/mounts").data


def test_setup_puts_back_what_somebody_changed_and_marks_what_others_feel(cluster: VaultCluster) -> None:
    prepared = cluster.set_up()
    settings = cluster.settings()
    cluster.done("POST", f"{settings.transit_mount}/config/keys", {"disable_upsert": False})
    cluster.done("POST", f"{cluster.kv_mount}/config", {"cas_required": False, "max_versions": 5})
    cluster.done(
        "PUT", f"sys/policies/acl/ringfence-service-{cluster.name}", {"policy": 'path "x" {capabilities=["read"]}'}
    )
    role = f"auth/{cluster.approle_mount}/role/{settings.role}"
    cluster.done("POST", role, {"token_no_default_policy": False, "token_period": 0})
    due = {step.thing: step for step in prepared.plan() if step.action is not None}
    assert len(due) == 4
    (of_kv,) = (step for thing, step in due.items() if cluster.kv_mount in thing)
    assert [step.affects_others for step in due.values()].count(True) == 1
    assert of_kv.affects_others
    (of_role,) = (step for thing, step in due.items() if thing.startswith("role "))
    assert "token_no_default_policy is False" in of_role.found
    assert len(prepared.apply()) == 4
    assert all(step.action is None for step in prepared.plan())


def test_setup_refuses_a_key_that_cannot_be_made_good(cluster: VaultCluster) -> None:
    mount = cluster.settings().transit_mount
    cluster.done("POST", f"sys/mounts/{mount}", {"type": "transit"})
    cluster.done("POST", f"{mount}/keys/{WRAP_KEY}", {"type": "aes256-gcm96", "derived": False})
    with pytest.raises(ProtectorRefusedError, match="bound to nothing"):
        VaultSetup(cluster.administrator()).plan()


def test_setup_refuses_a_mount_of_another_kind(cluster: VaultCluster) -> None:
    cluster.done("POST", f"sys/mounts/{cluster.settings().transit_mount}", {"type": "kv", "options": {"version": "2"}})
    with pytest.raises(ProtectorRefusedError, match="of the type kv"):
        VaultSetup(cluster.administrator()).plan()


def test_bounds_are_set_once_in_whatever_way_they_are_spelled_and_stay(cluster: VaultCluster) -> None:
    cidrs = parse_cidrs(["127.0.0.1/32", "10.0.0.0/8"])
    prepared = cluster.set_up(bound_cidrs=cidrs)
    assert all(step.action is None for step in prepared.plan())
    assert all(step.action is None for step in VaultSetup(cluster.administrator(), SetupChoices()).plan())
    with pytest.raises(ConfigError, match=r"'10\.0\.0\.1/8'"):
        parse_cidrs(["10.0.0.1/8"])


def test_an_administrator_that_may_not_is_told_so(cluster: VaultCluster) -> None:
    token = cluster.token_with(
        'path "sys/mounts" { capabilities = ["deny"] }\npath "auth/token/lookup-self" { capabilities = ["read"] }'
    )
    with pytest.raises(VaultRefusedError, match="GET sys/mounts") as caught:
        VaultSetup(cluster.as_token(token)).plan()
    assert caught.value.status == 403


# Logging in


def test_a_node_logs_in_once_with_what_it_was_given(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    state = own.tokens.find_self()
    assert state is not None
    assert sorted(state.policies) == [f"ringfence-keyadmin-{cluster.name}", f"ringfence-service-{cluster.name}"]
    assert (state.period_s, state.renewable, state.expires, state.orphan) == (3600, True, True, True)
    assert own.tokens.renew_self().lease_s == 3600
    settings = cluster.settings()
    with pytest.raises(ProtectorRefusedError, match="was used up by an earlier login") as caught:
        VaultLogin(settings).log_in()
    assert caught.value.reason == NEEDS_HUMAN


def test_a_wrapping_that_somebody_opened_is_an_alarm(cluster: VaultCluster) -> None:
    taken = cluster.issue(cluster.set_up())
    assert cluster.call("POST", "sys/wrapping/unwrap", token=taken).data["secret_id"]
    with pytest.raises(ProtectorRefusedError, match="SOMEBODY ELSE OPENED IT") as caught:
        VaultLogin(cluster.settings()).log_in()
    assert caught.value.reason == TAMPERING


def test_a_wrapping_of_somebody_s_own_is_not_opened(cluster: VaultCluster) -> None:
    cluster.issue(cluster.set_up())
    address = cluster.addresses[0]
    from vault_doubles import send

    forged = send(
        address,
        "POST",
        "sys/wrapping/wrap",
        {"secret_id": "of-the-attacker"},
        {"X-Vault-Token": cluster.root_token, "X-Vault-Wrap-TTL": "60s"},
    ).body["wrap_info"]["token"]
    write_private(cluster.directory / "vault-wrapped-secret-id", forged)
    with pytest.raises(ProtectorRefusedError, match="SOMEBODY PUT IT THERE"):
        VaultLogin(cluster.settings()).log_in()
    assert cluster.call("POST", "sys/wrapping/unwrap", token=forged).data == {"secret_id": "of-the-attacker"}


def test_a_wrong_secret_id_takes_a_human(cluster: VaultCluster) -> None:
    cluster.set_up()
    cluster.give_repeatable_secret_id()
    write_private(cluster.directory / SECRET_ID, "00000000-0000-0000-0000-000000000000")
    with pytest.raises(ProtectorRefusedError, match="wrong, spent") as caught:
        VaultLogin(cluster.repeatable_settings()).log_in()
    assert caught.value.reason == NEEDS_HUMAN


def test_a_secret_id_that_lasts_logs_in_again_and_again(cluster: VaultCluster) -> None:
    cluster.set_up()
    cluster.give_repeatable_secret_id()
    settings = cluster.repeatable_settings()
    login = VaultLogin(settings)
    first, second = log_in_and_share(settings, login), log_in_and_share(settings, login)
    assert first.accessor != second.accessor
    assert settings.token_file.read_bytes().strip() == second.token.reveal()


def test_a_revoked_token_is_known_to_be_dead(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    own.tokens.revoke_self()
    assert own.tokens.find_self() is None
    with pytest.raises(ProtectorUnavailableError, match="does not take the token") as caught:
        own.transit.get(WRAP_KEY)
    assert caught.value.reason == "token_dead"


# Policies


@pytest.mark.parametrize(
    ("role", "method", "path", "body", "allowed"),
    [
        (PolicyRole.SERVICE, "POST", "{transit}/encrypt/z-wrap", {"plaintext": "YQ==", "context": "YQ=="}, True),
        (PolicyRole.SERVICE, "POST", "{transit}/encrypt/no-such", {"plaintext": "YQ==", "context": "YQ=="}, False),
        (PolicyRole.SERVICE, "GET", "{transit}/keys/z-wrap", None, True),
        (PolicyRole.SERVICE, "POST", "{transit}/keys/new", {"type": "aes256-gcm96", "derived": True}, False),
        (PolicyRole.SERVICE, "POST", "{transit}/keys/z-wrap/rotate", None, False),
        (PolicyRole.SERVICE, "POST", "{transit}/keys/z-wrap/config", {"deletion_allowed": True}, False),
        (PolicyRole.SERVICE, "GET", "{transit}/export/encryption-key/z-wrap", None, False),
        (PolicyRole.SERVICE, "GET", "{transit}/backup/z-wrap", None, False),
        (PolicyRole.SERVICE, "POST", "{transit}/datakey/plaintext/z-wrap", {"context": "YQ=="}, False),
        (PolicyRole.SERVICE, "LIST", "{kv}/metadata/ringfence/{cluster}", None, True),
        (PolicyRole.SERVICE, "GET", "{kv}/data/ringfence/{cluster}/there", None, True),
        (PolicyRole.SERVICE, "GET", "{kv}/data/ringfence/another/there", None, False),
        (PolicyRole.SERVICE, "POST", "{kv}/data/ringfence/{cluster}/new", {"data": {}, "options": {"cas": 0}}, False),
        (PolicyRole.SERVICE, "GET", "auth/token/lookup-self", None, True),
        (PolicyRole.SERVICE, "POST", "auth/token/create", {}, False),
        (PolicyRole.GENERATOR, "POST", "{transit}/encrypt/z-wrap", {"plaintext": "YQ==", "context": "YQ=="}, True),
        (
            PolicyRole.GENERATOR,
            "POST",
            "{transit}/decrypt/z-wrap",
            {"ciphertext": "vault:v1:", "context": "YQ=="},
            False,
        ),
        (
            PolicyRole.GENERATOR,
            "POST",
            "{transit}/rewrap/z-wrap",
            {"ciphertext": "vault:v1:", "context": "YQ=="},
            False,
        ),
        (
            PolicyRole.KEYADMIN,
            "POST",
            "{transit}/keys/made",
            {"type": "aes256-gcm96", "derived": True, "exportable": False, "allow_plaintext_backup": False},
            True,
        ),
        (PolicyRole.KEYADMIN, "GET", "{transit}/keys/z-wrap", None, True),
        (PolicyRole.KEYADMIN, "POST", "{transit}/keys/flat", {"type": "aes256-gcm96", "derived": False}, False),
        (
            PolicyRole.KEYADMIN,
            "POST",
            "{transit}/keys/out",
            {"type": "aes256-gcm96", "derived": True, "exportable": True},
            False,
        ),
        (PolicyRole.KEYADMIN, "POST", "{transit}/keys/z-wrap/rotate", None, True),
        (PolicyRole.KEYADMIN, "POST", "{transit}/keys/z-wrap/config", {"min_decryption_version": 1}, False),
        (PolicyRole.KEYADMIN, "DELETE", "{transit}/keys/z-wrap", None, False),
        (PolicyRole.KEYADMIN, "LIST", "{transit}/keys", None, True),
        (PolicyRole.KEYADMIN, "POST", "{transit}/encrypt/z-wrap", {"plaintext": "YQ==", "context": "YQ=="}, False),
        (
            PolicyRole.KEYADMIN,
            "POST",
            "{transit}/decrypt/z-wrap",
            {"ciphertext": "vault:v1:", "context": "YQ=="},
            False,
        ),
        (PolicyRole.KEYADMIN, "POST", "{kv}/data/ringfence/{cluster}/new", {"data": {}, "options": {"cas": 0}}, True),
        (PolicyRole.KEYADMIN, "DELETE", "{kv}/data/ringfence/{cluster}/there", None, False),
        (PolicyRole.KEYADMIN, "DELETE", "{kv}/metadata/ringfence/{cluster}/there", None, False),
        (PolicyRole.DESTROYER, "POST", "{transit}/keys/z-wrap/config", {"deletion_allowed": True}, True),
        (PolicyRole.DESTROYER, "POST", "{transit}/keys/z-wrap/config", {"exportable": True}, False),
        (PolicyRole.DESTROYER, "POST", "{transit}/keys/z-wrap/config", {"allow_plaintext_backup": True}, False),
        (
            PolicyRole.DESTROYER,
            "POST",
            "{transit}/decrypt/z-wrap",
            {"ciphertext": "vault:v1:", "context": "YQ=="},
            False,
        ),
        (PolicyRole.DESTROYER, "POST", "{transit}/keys/new", {"type": "aes256-gcm96", "derived": True}, False),
    ],
)
def test_a_policy_allows_what_its_role_needs_and_no_more(
    shared: VaultCluster, role: PolicyRole, method: str, path: str, body: object, *, allowed: bool
) -> None:
    settings = shared.settings()
    token = shared.token_with(policy_hcl(role, settings))
    filled = path.format(transit=settings.transit_mount, kv=shared.kv_mount, cluster=shared.name)
    answer = shared.call(method, filled, body, token=token)
    assert (answer.status != 403) is allowed, (answer.status, answer.errors)
    if allowed:
        assert answer.status < 300, (answer.status, answer.errors)


def test_the_key_server_s_token_can_do_what_it_needs_and_nothing_that_must_not_be(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    settings = cluster.settings()
    required, forbidden = required_capabilities(settings, WRAP_KEY), forbidden_paths(settings, WRAP_KEY)
    found = own.system.capabilities([*required, *forbidden])
    assert {path: capability in found[path] for path, capability in required.items()} == dict.fromkeys(required, True)
    assert {path: found[path] for path in forbidden} == dict.fromkeys(forbidden, frozenset({"deny"}))


# Keys


def test_a_key_s_life(cluster: VaultCluster) -> None:
    cluster.set_up()
    keys = cluster.administrator().transit
    made = keys.create("z-one")
    assert (made.latest_version, made.min_decryption_version, made.soft_deleted) == (1, 1, False)
    assert keys.create("z-one") == made, "a key that is there is found, not made anew"
    assert keys.rotate("z-one", from_version=1).latest_version == 2
    assert keys.list_names() == sorted(["z-one", WRAP_KEY])
    keys.configure("z-one", min_decryption_version=2, min_encryption_version=2)
    keys.trim("z-one", 2)
    found = keys.get("z-one")
    assert (found.min_decryption_version, found.min_encryption_version, found.min_available_version) == (2, 2, 2)
    assert sorted(found.created_s) == [2]
    with pytest.raises(VaultRefusedError) as caught:
        keys.delete("z-one")
    assert caught.value.reason is Reason.DELETION_NOT_ALLOWED
    keys.configure("z-one", deletion_allowed=True)
    keys.delete("z-one")
    keys.delete("z-one")
    assert keys.find("z-one") is None
    with pytest.raises(ProtectorRefusedError, match="there is no Transit key z-one"):
        keys.get("z-one")


def test_a_key_can_be_disabled_and_enabled(cluster: VaultCluster) -> None:
    cluster.set_up()
    control = cluster.administrator()
    control.transit.create("z-one")
    sealed = control.batches.encrypt("z-one", [EncryptItem(Secret(b"x" * 32), b"context", 1)])
    control.transit.soft_delete("z-one")
    assert control.transit.get("z-one").soft_deleted
    assert isinstance(sealed[0], TransitCiphertext)
    assert control.batches.decrypt("z-one", [OpenItem(sealed[0], b"context")]) == [ItemFault.KEY_DISABLED]
    assert not control.transit.restore("z-one").soft_deleted
    assert control.batches.decrypt("z-one", [OpenItem(sealed[0], b"context")]) == [Secret(b"x" * 32)]
    with pytest.raises(ProtectorRefusedError, match="there is no Transit key"):
        control.transit.restore("z-none")


def test_a_name_that_is_taken_by_an_unsound_key_is_refused(cluster: VaultCluster) -> None:
    cluster.set_up()
    mount = cluster.settings().transit_mount
    cluster.done("POST", f"{mount}/keys/z-flat", {"type": "aes256-gcm96", "derived": False})
    cluster.done("POST", f"{mount}/keys/z-out", {"type": "aes256-gcm96", "derived": True, "exportable": True})
    keys = cluster.administrator().transit
    for name, fault in (("z-flat", "bound to nothing"), ("z-out", "exported")):
        with pytest.raises(ProtectorRefusedError, match=fault):
            keys.create(name)


def test_a_key_that_somebody_made_without_saying_how_is_refused(cluster: VaultCluster) -> None:
    cluster.set_up()
    settings = cluster.settings()
    token = cluster.token_with(policy_hcl(PolicyRole.KEYADMIN, settings))
    assert cluster.call("POST", f"{settings.transit_mount}/keys/bare", {}, token=token).status == 200
    with pytest.raises(ProtectorRefusedError, match="bound to nothing"):
        cluster.as_token(token).transit.create("bare")


def test_the_wrapping_key_s_folder_is_no_key(cluster: VaultCluster) -> None:
    cluster.set_up()
    cluster.done("GET", f"{cluster.settings().transit_mount}/wrapping_key")
    assert cluster.administrator().transit.list_names() == [WRAP_KEY]


# Batches


def test_three_hundred_items_there_and_back_in_their_order(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    plain = [Secret(bytes([number % 256]) * 32) for number in range(300)]
    contexts = [f"context {number}".encode() for number in range(300)]
    made = own.batches.encrypt(
        WRAP_KEY, [EncryptItem(each, context, 1) for each, context in zip(plain, contexts, strict=True)]
    )
    sealed = [each for each in made if isinstance(each, TransitCiphertext)]
    items = [OpenItem(each, context) for each, context in zip(sealed, contexts, strict=True)]
    assert own.batches.decrypt(WRAP_KEY, items) == plain
    cluster.administrator().transit.rotate(WRAP_KEY, from_version=1)
    rewrapped = own.batches.rewrap(WRAP_KEY, items)
    assert {each.version for each in rewrapped if isinstance(each, TransitCiphertext)} == {2}
    again = [
        OpenItem(each, context)
        for each, context in zip(rewrapped, contexts, strict=True)
        if isinstance(each, TransitCiphertext)
    ]
    assert own.batches.decrypt(WRAP_KEY, again) == plain


def test_bad_items_fail_alone(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    (sealed,) = own.batches.encrypt(WRAP_KEY, [EncryptItem(Secret(b"p" * 32), b"context", 1)])
    assert isinstance(sealed, TransitCiphertext)
    spoiled = TransitCiphertext(1, sealed.raw[:-1] + bytes([sealed.raw[-1] ^ 1]))
    items = [
        OpenItem(sealed, b"context"),
        OpenItem(spoiled, b"context"),
        OpenItem(sealed, b"another"),
        OpenItem(TransitCiphertext(7, sealed.raw), b"context"),
        OpenItem(sealed, b"context"),
    ]
    good = Secret(b"p" * 32)
    expected = [good, ItemFault.CORRUPT, ItemFault.CORRUPT, ItemFault.VERSION_AHEAD, good]
    assert own.batches.decrypt(WRAP_KEY, items) == expected
    assert own.batches.decrypt(WRAP_KEY, items[1:2]) == [ItemFault.CORRUPT]


def test_a_key_that_is_not_there_is_named_and_a_policy_too(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    with pytest.raises(ProtectorRefusedError, match="there is no such key"):
        own.batches.encrypt("z-none", [EncryptItem(Secret(b"p" * 32), b"context", 1)])
    generator = cluster.as_token(cluster.token_with(policy_hcl(PolicyRole.GENERATOR, cluster.settings())))
    (sealed,) = generator.batches.encrypt(WRAP_KEY, [EncryptItem(Secret(b"p" * 32), b"context", 1)])
    assert isinstance(sealed, TransitCiphertext)
    with pytest.raises(ProtectorRefusedError, match="decrypt with the Transit key") as caught:
        generator.batches.decrypt(WRAP_KEY, [OpenItem(sealed, b"context")])
    assert caught.value.reason == "forbidden"


# Records


def test_of_twenty_writers_one_wins_and_the_others_know(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    path = f"ringfence/{cluster.name}/k-raced"
    outcomes: list[int | None] = []
    together = threading.Barrier(20)

    def write(number: int) -> None:
        together.wait()
        outcomes.append(own.kv.write(path, {"writer": number}, replaces=0))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes, key=str) == [1] + [None] * 19
    found = own.kv.find(path)
    assert found is not None
    assert found.version == 1


def test_a_record_s_life(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    path = f"ringfence/{cluster.name}/k-one"
    assert own.kv.find(path) is None
    assert own.kv.find_metadata(path) is None
    assert own.kv.list_names(f"ringfence/{cluster.name}") == []
    assert own.kv.write(path, {"state": "creating"}, replaces=0) == 1
    assert own.kv.write(path, {"state": "stale"}, replaces=0) is None
    assert own.kv.write(path, {"state": "active", "n": [1, {"a": None}]}, replaces=1) == 2
    found, before = own.kv.find(path), own.kv.find(path, version=1)
    assert found is not None
    assert before is not None
    assert (found.version, found.data) == (2, {"state": "active", "n": [1, {"a": None}]})
    assert (before.version, before.data) == (1, {"state": "creating"})
    assert own.kv.list_names(f"ringfence/{cluster.name}") == ["k-one"]
    metadata = own.kv.find_metadata(path)
    assert metadata is not None
    assert metadata.current_version == 2


def test_a_record_that_an_outsider_deleted_is_seen_as_such(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    path = f"ringfence/{cluster.name}/k-one"
    own.kv.write(path, {"state": "active"}, replaces=0)
    cluster.done("DELETE", f"{cluster.kv_mount}/data/{path}")
    found = own.kv.find(path)
    assert found is not None
    assert (found.version, found.data) == (1, None)
    assert own.kv.write(path, {}, replaces=0) is None, "the count of versions survives"
    cluster.done("POST", f"{cluster.kv_mount}/destroy/{path}", {"versions": [1]})
    destroyed = own.kv.find(path)
    assert destroyed is not None
    assert destroyed.data is None


def test_a_name_with_every_kind_of_character_is_one_name(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    path = f"ringfence/{cluster.name}/k-ünïcode name+%2e"
    assert own.kv.write(path, {"a": 1}, replaces=0) == 1
    found = own.kv.find(path)
    assert found is not None
    assert own.kv.list_names(f"ringfence/{cluster.name}") == ["k-ünïcode name+%2e"]
