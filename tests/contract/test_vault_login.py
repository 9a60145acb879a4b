"""Logging in to a running Vault: the double always, a real server when the environment names one."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from vault_clusters import SECRET_ID, SERVERS, VaultCluster, VaultServer, vault_cluster, vault_server
from vault_doubles import send
from vault_settings import write_private

from ringfence_agent.vault.login import NEEDS_HUMAN, TAMPERING, VaultLogin, log_in_and_share
from ringfence_agent.vault.policy import PolicyRole, policy_name
from ringfence_agent.vault.refusal import Reason, VaultRefusedError
from ringfence_agent.vault.settings import WRAP_KEY
from ringfence_agent.vault.setup import VaultSetup
from ringfence_agent.vault.transit_wire import EncryptItem, TransitCiphertext
from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError
from ringfence_zones.secret import Secret


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[VaultServer]:
    with vault_server(request.param) as server:
        yield server


@pytest.fixture
def cluster(server: VaultServer, tmp_path: Path) -> Iterator[VaultCluster]:
    with vault_cluster(server, tmp_path) as cluster:
        yield cluster


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


# JWT


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def signed(key: ec.EllipticCurvePrivateKey, **claims: Any) -> str:
    """A JWT as AWS's GetWebIdentityToken makes them, ES384."""
    body = {"sub": "arn:kms", "aud": "cluster-1", "iat": int(time.time()), "exp": int(time.time()) + 600, **claims}
    text = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "ES384", "typ": "JWT"}, body))
    numbers = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA384())))
    return f"{text}.{encoded(b''.join(number.to_bytes(48) for number in numbers))}"


def test_a_jwt_logs_in_and_one_for_somebody_else_takes_a_human(cluster: VaultCluster) -> None:
    cluster.set_up()
    mount, key = f"jwt-{cluster.name}", ec.generate_private_key(ec.SECP384R1())
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    cluster.done("POST", f"sys/auth/{mount}", {"type": "jwt"})
    cluster.stack.callback(cluster.call, "DELETE", f"sys/auth/{mount}")
    cluster.done("POST", f"auth/{mount}/config", {"jwt_validation_pubkeys": [pem.decode()]})
    role: dict[str, Any] = {
        "role_type": "jwt",
        "bound_audiences": ["cluster-1"],
        "bound_subject": "arn:kms",
        "user_claim": "sub",
        "token_policies": [policy_name(PolicyRole.SERVICE, cluster.settings())],
        "token_no_default_policy": True,
        "token_period": "1h",
    }
    cluster.done("POST", f"auth/{mount}/role/kms", role)
    jwt_file = write_private(cluster.directory / "jwt", signed(key))
    auth = {"method": "jwt", "mount": mount, "role": "kms", "jwt_file": jwt_file}
    settings = cluster.settings(auth=auth)
    assert log_in_and_share(settings, VaultLogin(settings)).policies == tuple(role["token_policies"])
    assert cluster.own(settings).transit.get(WRAP_KEY).latest_version == 1
    write_private(jwt_file, signed(key, sub="arn:another"))
    with pytest.raises(ProtectorRefusedError, match="the JWT is not what the role is bound to") as caught:
        VaultLogin(settings).log_in()
    assert caught.value.reason == NEEDS_HUMAN


# Namespaces


def test_everything_happens_in_the_namespace(cluster: VaultCluster) -> None:
    namespace = f"team-{secrets.token_hex(4)}"
    cluster.done("POST", f"sys/namespaces/{namespace}", {})
    cluster.stack.callback(cluster.call, "DELETE", f"sys/namespaces/{namespace}")
    settings = cluster.settings(namespace=namespace)
    prepared = VaultSetup(cluster.administrator(settings))
    prepared.apply()
    assert all(step.action is None for step in prepared.plan())
    assert f"{settings.transit_mount}/" not in cluster.done("GET", "sys/mounts").data
    cluster.issue(prepared)
    log_in_and_share(settings, VaultLogin(settings))
    own = cluster.own(settings)
    (sealed,) = own.batches.encrypt(WRAP_KEY, [EncryptItem(Secret(b"p" * 32), b"context", 1)])
    assert isinstance(sealed, TransitCiphertext)
    assert own.kv.write(f"ringfence/{cluster.name}/k", {}, replaces=0) == 1


def test_a_namespace_that_is_not_there_is_said_to_be(cluster: VaultCluster) -> None:
    settings = cluster.settings(namespace="no-such-team")
    with pytest.raises(VaultRefusedError, match="namespace not found") as caught:
        cluster.administrator(settings).system.list_mounts()
    assert caught.value.reason is Reason.NAMESPACE_UNKNOWN
    assert "vault.namespace" in (caught.value.hint or "")
