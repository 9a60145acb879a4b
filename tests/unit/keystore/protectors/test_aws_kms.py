"""What the protector decides without asking AWS. The rest is in tests/contract/test_aws_kms*.py."""

from __future__ import annotations

import json

import pytest

from ringfence_agent.keystore.protectors.aws_kms import AwsKmsProtector
from ringfence_agent.keystore.protectors.aws_kms_api import AwsKms
from ringfence_agent.keystore.protectors.aws_kms_config import AwsKmsSettings
from ringfence_agent.keystore.protectors.aws_kms_errors import Reason
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_zones.errors import ProtectorRefusedError

KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
SLOT = {"ciphertext": "AAAA", "cluster": "c", "form": 1, "key": KEY}


@pytest.fixture
def protector(monkeypatch: pytest.MonkeyPatch) -> AwsKmsProtector:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    settings = AwsKmsSettings(key=KEY, cluster="c", region="eu-west-1", endpoint="http://localhost:1")
    return AwsKmsProtector(AwsKms(settings), KEY, "c")


def slot(**fields: object) -> bytes:
    return json.dumps(SLOT | fields).encode()


def test_a_slot_is_recognised_by_its_key(protector: AwsKmsProtector) -> None:
    assert protector.recognises(slot())
    assert not protector.recognises(slot(key=KEY[:-1] + "0"))
    # Its error says more than "not recognised" would.
    assert protector.recognises(slot(cluster="other"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        slot(form=2),
        slot(key=None),
        slot(ciphertext="!"),
        slot(ciphertext=7),
        slot(cluster=["c"]),
        slot(more="x" * 20_000),
        json.dumps({name: value for name, value in SLOT.items() if name != "cluster"}).encode(),
    ],
)
def test_what_this_release_did_not_write_is_no_slot(protector: AwsKmsProtector, body: bytes) -> None:
    assert not protector.recognises(body)
    for call in (lambda: protector.open_root(bytes(16), body), lambda: protector.materials(body)):
        with pytest.raises(SealBrokenError):
            call()


def test_another_key_s_slot_is_refused_before_aws_is_asked(protector: AwsKmsProtector) -> None:
    with pytest.raises(ProtectorRefusedError) as refused:
        protector.open_root(bytes(16), slot(key=KEY[:-1] + "0"))
    assert refused.value.reason == Reason.WRONG_KEY
    assert "former_keys" in (refused.value.hint or "")


def test_another_cluster_s_slot_is_refused_with_both_names(protector: AwsKmsProtector) -> None:
    with pytest.raises(ProtectorRefusedError, match=r"'other'.*'c'") as refused:
        protector.materials(slot(cluster="other"))
    assert refused.value.reason == Reason.WRONG_CLUSTER
