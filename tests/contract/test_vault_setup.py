"""What `ringfence vault setup` makes of a running Vault, and what the policies allow there: the double always, a real
server when the environment names one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from vault_clusters import SERVERS, VaultCluster, VaultServer, vault_cluster, vault_server

from ringfence_agent.vault.kv import MAX_VERSIONS
from ringfence_agent.vault.policy import PolicyRole, forbidden_paths, policy_hcl, required_capabilities
from ringfence_agent.vault.refusal import VaultRefusedError
from ringfence_agent.vault.settings import WRAP_KEY
from ringfence_agent.vault.setup import SetupChoices, VaultSetup, parse_cidrs
from ringfence_zones.errors import ConfigError, ProtectorRefusedError


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[VaultServer]:
    with vault_server(request.param) as server:
        yield server


@pytest.fixture
def cluster(server: VaultServer, tmp_path: Path) -> Iterator[VaultCluster]:
    with vault_cluster(server, tmp_path) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shared(server: VaultServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultCluster]:
    """One that is set up, for tests that leave it as it is."""
    with vault_cluster(server, tmp_path_factory.mktemp("shared")) as cluster:
        cluster.set_up()
        record = f"{cluster.kv_mount}/data/ringfence/{cluster.name}/there"
        cluster.done("POST", record, {"data": {}, "options": {"cas": 0}})
        yield cluster


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


@pytest.mark.parametrize("taken", range(12))
def test_setup_that_was_cut_off_after_any_step_is_finished_by_the_next(taken: int, cluster: VaultCluster) -> None:
    first = VaultSetup(cluster.administrator())
    assert len(first.plan()) == 12, "each of them is tried"
    left = taken
    for step in first._steps():
        if left == 0:
            break
        assert step.apply is not None
        step.apply()
        left -= 1
    second = VaultSetup(cluster.administrator())
    assert len(second.apply()) == 12 - taken
    assert all(step.action is None for step in second.plan())


def test_setup_keeps_what_others_set_beyond_what_is_asked_for(cluster: VaultCluster) -> None:
    cluster.done("POST", f"sys/mounts/{cluster.kv_mount}", {"type": "kv", "options": {"version": "2"}})
    cluster.until(lambda: cluster.call("GET", f"{cluster.kv_mount}/config").status == 200)
    cluster.done("POST", f"{cluster.kv_mount}/config", {"max_versions": 100})
    cluster.set_up()
    config = cluster.done("GET", f"{cluster.kv_mount}/config").data
    assert (config["cas_required"], config["max_versions"]) == (True, 100)


def test_a_secret_id_that_is_to_last_stays_good_for_every_login(cluster: VaultCluster) -> None:
    settings = cluster.repeatable_settings()
    prepared = VaultSetup(cluster.administrator(settings))
    prepared.apply()
    path = f"auth/{cluster.approle_mount}/role/{settings.role}"
    assert cluster.done("GET", path).data["secret_id_num_uses"] == 0
    cluster.done("POST", path, {"secret_id_ttl": 86400})
    assert all(step.action is None for step in prepared.plan()), "how long it lasts is the administrator's"


def test_the_kv_engine_is_of_no_concern_to_a_cluster_whose_keys_are_elsewhere(cluster: VaultCluster) -> None:
    cluster.has_store = False
    cluster.set_up()
    assert f"{cluster.kv_mount}/" not in cluster.done("GET", "sys/mounts").data
    assert all(cluster.kv_mount not in policy_hcl(role, cluster.settings()) for role in PolicyRole)


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
