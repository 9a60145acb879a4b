"""What stands in the way of an AWS KMS key, one by one, against the double: moto knows none of it.

Each has its own reason, names the key and the way out, and nothing waits longer than the deadline says.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from aws_kms_double import ROLE, AwsKmsDouble, Credentials
from aws_kms_places import USER_ACTIONS, double_settings, make_key, policy_for, sign_as

from ringfence_agent.keystore.protector import MaterialBinding
from ringfence_agent.keystore.protectors.aws_kms import AwsKmsMaterials, open_aws_kms
from ringfence_agent.keystore.protectors.aws_kms_api import AwsKms
from ringfence_agent.keystore.protectors.aws_kms_errors import Reason
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_agent.kms.remote_exception import RETRIABLE, status_and_class
from ringfence_zones.errors import ConfigError, ProtectorRefusedError, ProtectorUnavailableError
from ringfence_zones.secret import Secret

BINDING = MaterialBinding(3, bytes(16), "pii", 0, "AES/CTR/NoPadding", 256, 1_700_000_000_000)
PLAIN = Secret(bytes(range(32)))
# The deadline of tests that wait for it, and what a busy machine may add.
SHORT_S = 1.0
LONG_S = 2.0
SLACK_S = 1.5


@pytest.fixture
def key(aws_kms_double: AwsKmsDouble) -> str:
    return make_key(aws_kms_double)


def materials_of(double: AwsKmsDouble, key: str, **fields: Any) -> AwsKmsMaterials:
    settings = double_settings(double, key, **fields)
    return AwsKmsMaterials(AwsKms(settings), key, settings.cluster)


@pytest.fixture
def materials(aws_kms_double: AwsKmsDouble, key: str) -> AwsKmsMaterials:
    return materials_of(aws_kms_double, key)


@pytest.fixture
def sealed(materials: AwsKmsMaterials) -> bytes:
    (sealed,) = materials.seal([(BINDING, PLAIN)])
    return sealed


def refusal(call: Callable[[], object]) -> ProtectorRefusedError:
    with pytest.raises(ProtectorRefusedError) as refused:
        call()
    # Hadoop's clients must not take a backend's no for one about the caller.
    assert status_and_class(refused.value)[0] == 500
    return refused.value


def unavailability(call: Callable[[], object]) -> ProtectorUnavailableError:
    with pytest.raises(ProtectorUnavailableError) as unavailable:
        call()
    assert status_and_class(unavailable.value) == (503, RETRIABLE)
    return unavailable.value


def wait_for_threads() -> None:
    """Until no operation that somebody gave up is under way any more."""
    for thread in threading.enumerate():
        if thread.name.startswith("aws-kms"):
            thread.join(timeout=10)
            assert not thread.is_alive()


def test_a_disabled_key_does_nothing_until_it_is_enabled(
    aws_kms_double: AwsKmsDouble, key: str, materials: AwsKmsMaterials, sealed: bytes
) -> None:
    admin = aws_kms_double.client("kms", aws_kms_double.admin)
    admin.disable_key(KeyId=key)
    for call in (lambda: materials.seal([(BINDING, PLAIN)]), lambda: materials.open([(BINDING, sealed)])):
        error = refusal(call)
        assert (error.reason, error.command) == (
            Reason.DISABLED,
            f"aws kms enable-key --region eu-west-1 --key-id {key}",
        )
    admin.enable_key(KeyId=key)
    assert materials.open([(BINDING, sealed)]) == [PLAIN]


def test_a_key_to_be_deleted_is_told_with_its_day_and_the_way_back(
    aws_kms_double: AwsKmsDouble, key: str, materials: AwsKmsMaterials, sealed: bytes
) -> None:
    admin = aws_kms_double.client("kms", aws_kms_double.admin)
    day = admin.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)["DeletionDate"]
    error = refusal(lambda: materials.open([(BINDING, sealed)]))
    assert error.reason == Reason.PENDING_DELETION
    assert f"{day:%Y-%m-%d}" in error.message
    assert error.command is not None
    assert "cancel-key-deletion" in error.command
    assert "enable-key" in error.command


def test_a_key_without_its_imported_material_is_told(aws_kms_double: AwsKmsDouble) -> None:
    key = make_key(aws_kms_double, Origin="EXTERNAL")
    error = refusal(lambda: materials_of(aws_kms_double, key).seal([(BINDING, PLAIN)]))
    assert error.reason == Reason.PENDING_IMPORT


def test_a_state_that_may_not_be_looked_at_is_told_without_a_name(aws_kms_double: AwsKmsDouble) -> None:
    key = make_key(aws_kms_double, "kms:Encrypt")
    aws_kms_double.set_key(key, state="PendingDeletion")
    error = refusal(lambda: materials_of(aws_kms_double, key).seal([(BINDING, PLAIN)]))
    assert error.reason == Reason.UNUSABLE_STATE
    assert error.hint is not None
    assert "kms:DescribeKey" in error.hint


def test_a_key_store_of_aws_s_that_is_down_may_come_back(aws_kms_double: AwsKmsDouble, key: str) -> None:
    aws_kms_double.set_key(key, state="Unavailable")
    error = unavailability(lambda: materials_of(aws_kms_double, key).seal([(BINDING, PLAIN)]))
    assert error.reason == Reason.AWS_FAILED
    assert "Unavailable" in error.message


def test_a_key_for_signing_is_unfit(aws_kms_double: AwsKmsDouble) -> None:
    key = make_key(aws_kms_double, KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")
    error = refusal(lambda: materials_of(aws_kms_double, key).seal([(BINDING, PLAIN)]))
    assert error.reason == Reason.UNFIT_KEY


@pytest.mark.parametrize("broken", ["source", "target"])
@pytest.mark.parametrize(("state", "reason"), [("Disabled", Reason.DISABLED), ("PendingDeletion", "pending_deletion")])
def test_of_two_keys_the_one_that_cannot_be_used_is_named(
    aws_kms_double: AwsKmsDouble,
    key: str,
    materials: AwsKmsMaterials,
    sealed: bytes,
    broken: str,
    state: str,
    reason: str,
) -> None:
    target = make_key(aws_kms_double)
    guilty = key if broken == "source" else target
    aws_kms_double.set_key(guilty, state=state)
    error = refusal(lambda: materials_of(aws_kms_double, target).reseal(materials, [(BINDING, sealed)]))
    assert error.reason == reason
    assert guilty in error.message


@pytest.mark.parametrize("action", USER_ACTIONS)
def test_a_missing_permission_is_named_by_its_action(
    aws_kms_double: AwsKmsDouble, key: str, materials: AwsKmsMaterials, sealed: bytes, action: str
) -> None:
    admin = aws_kms_double.client("kms", aws_kms_double.admin)
    allowed = [each for each in USER_ACTIONS if each != action]
    admin.put_key_policy(KeyId=key, Policy=json.dumps(policy_for(ROLE, *allowed)))
    target = materials_of(aws_kms_double, make_key(aws_kms_double))
    calls: dict[str, Callable[[], object]] = {
        "kms:Encrypt": lambda: materials.seal([(BINDING, PLAIN)]),
        "kms:Decrypt": lambda: materials.open([(BINDING, sealed)]),
        "kms:ReEncryptFrom": lambda: target.reseal(materials, [(BINDING, sealed)]),
        "kms:ReEncryptTo": lambda: materials.reseal(target, [(BINDING, target.seal([(BINDING, PLAIN)])[0])]),
        "kms:DescribeKey": lambda: AwsKms(double_settings(aws_kms_double, key)).describe(key),
    }
    error = refusal(calls[action])
    assert error.reason == Reason.ACCESS_DENIED
    assert action in error.message
    assert key in error.message
    assert error.command == "ringfence doctor aws-kms"
    for other in set(allowed) - {"kms:ReEncryptFrom", "kms:ReEncryptTo"}:
        calls[other]()


def test_a_condition_on_the_cluster_keeps_other_clusters_out(aws_kms_double: AwsKmsDouble, key: str) -> None:
    policy = policy_for(ROLE, "kms:Encrypt", "kms:Decrypt")
    policy["Statement"][1]["Condition"] = {"StringEquals": {"kms:EncryptionContext:ringfence:cluster": "analytics"}}
    aws_kms_double.client("kms", aws_kms_double.admin).put_key_policy(KeyId=key, Policy=json.dumps(policy))
    materials_of(aws_kms_double, key).seal([(BINDING, PLAIN)])
    other = dataclasses.replace(double_settings(aws_kms_double, key), cluster="other")
    error = refusal(lambda: AwsKmsMaterials(AwsKms(other), key, "other").seal([(BINDING, PLAIN)]))
    assert error.reason == Reason.ACCESS_DENIED


def test_a_key_of_another_account_serves_once_both_sides_allow_it(aws_kms_double: AwsKmsDouble) -> None:
    theirs = aws_kms_double.client("kms", aws_kms_double.other_admin)
    key = theirs.create_key()["KeyMetadata"]["Arn"]
    materials = materials_of(aws_kms_double, key)
    assert refusal(lambda: materials.seal([(BINDING, PLAIN)])).reason == Reason.ACCESS_DENIED
    theirs.put_key_policy(KeyId=key, Policy=json.dumps(policy_for(ROLE, *USER_ACTIONS)))
    assert refusal(lambda: materials.seal([(BINDING, PLAIN)])).reason == Reason.ACCESS_DENIED
    own = {"Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": key}]}
    aws_kms_double.set_policy(aws_kms_double.server, own)
    try:
        assert materials.open([(BINDING, materials.seal([(BINDING, PLAIN)])[0])]) == [PLAIN]
    finally:
        aws_kms_double.set_policy(aws_kms_double.server, {})


def test_throttling_passes_unnoticed_when_it_is_short(
    aws_kms_double: AwsKmsDouble, materials: AwsKmsMaterials, sealed: bytes
) -> None:
    aws_kms_double.fault("Decrypt", code="ThrottlingException", times=1)
    assert materials.open([(BINDING, sealed)]) == [PLAIN]


@pytest.mark.parametrize("code", ["ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"])
def test_throttling_that_lasts_is_told_as_throttling_at_the_deadline(
    aws_kms_double: AwsKmsDouble, key: str, code: str
) -> None:
    materials = materials_of(aws_kms_double, key, deadline_s=SHORT_S)
    aws_kms_double.fault("Encrypt", code=code)
    begun = time.monotonic()
    assert unavailability(lambda: materials.seal([(BINDING, PLAIN)])).reason == Reason.THROTTLED
    assert time.monotonic() - begun < SHORT_S + SLACK_S


def test_what_waited_while_aws_throttled_is_gone_soon_after(aws_kms_double: AwsKmsDouble, key: str) -> None:
    materials = materials_of(aws_kms_double, key, deadline_s=SHORT_S)
    aws_kms_double.fault("Encrypt", code="ThrottlingException")
    for _ in range(2):
        unavailability(lambda: materials.seal([(BINDING, PLAIN)] * 16))
    aws_kms_double.mend()
    begun = time.monotonic()
    wait_for_threads()
    # The SDK lets one request through in two seconds now; not each of the sixteen waits for that.
    assert time.monotonic() - begun < 2.0 + SLACK_S
    patient = materials_of(aws_kms_double, key)
    assert len(patient.seal([(BINDING, PLAIN)])) == 1


def test_a_clock_that_is_set_back_holds_up_nobody_whom_aws_throttled_before(
    aws_kms_double: AwsKmsDouble, materials: AwsKmsMaterials, sealed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK's pacing, which begins with the first throttling and never ends, goes by no clock that is ever set."""
    aws_kms_double.fault("Decrypt", code="ThrottlingException", times=1)
    assert materials.open([(BINDING, sealed)]) == [PLAIN]
    real_time = time.time
    for step_s in (-3600, 86_400, -3600):
        monkeypatch.setattr(time, "time", lambda step_s=step_s: real_time() + step_s)
        assert materials.open([(BINDING, sealed)]) == [PLAIN]


@pytest.mark.parametrize(
    "code", ["KMSInternalException", "DependencyTimeoutException", "KeyUnavailableException", "SomethingNew"]
)
def test_a_failure_of_aws_s_is_tried_again_and_then_told(
    aws_kms_double: AwsKmsDouble, key: str, materials: AwsKmsMaterials, code: str
) -> None:
    aws_kms_double.fault("Encrypt", code=code, status=500, times=2)
    materials.seal([(BINDING, PLAIN)])
    aws_kms_double.mend()
    aws_kms_double.fault("Encrypt", code=code, status=500)
    short = materials_of(aws_kms_double, key, deadline_s=SHORT_S)
    error = unavailability(lambda: short.seal([(BINDING, PLAIN)]))
    assert error.reason == Reason.AWS_FAILED
    assert code in error.message


def test_a_code_that_is_none_is_not_repeated(aws_kms_double: AwsKmsDouble, materials: AwsKmsMaterials) -> None:
    aws_kms_double.fault("Encrypt", code="<script>alert(1)</script>")
    error = refusal(lambda: materials.seal([(BINDING, PLAIN)]))
    assert error.reason == Reason.REQUEST_REFUSED
    assert "script" not in error.message


def test_a_hanging_server_costs_the_deadline_and_nobody_else(aws_kms_double: AwsKmsDouble, key: str) -> None:
    materials = materials_of(aws_kms_double, key, deadline_s=LONG_S)
    (sealed,) = materials.seal([(BINDING, PLAIN)])
    aws_kms_double.fault("Decrypt", hang=True)
    begun = time.monotonic()
    errors: list[str | None] = []

    def open_it() -> None:
        errors.append(unavailability(lambda: materials.open([(BINDING, sealed)])).reason)

    threads = [threading.Thread(target=open_it) for _ in range(12)]
    for thread in threads:
        thread.start()
    # What hangs holds up no other operation of the same protector.
    assert len(materials.seal([(BINDING, PLAIN)])) == 1
    assert errors == []
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun < LONG_S + SLACK_S
    assert set(errors) <= {Reason.DEADLINE, Reason.NO_CONNECTION}
    assert len(errors) == 12
    aws_kms_double.mend()
    assert materials.open([(BINDING, sealed)]) == [PLAIN]


def test_a_hang_of_one_attempt_leaves_time_for_another(aws_kms_double: AwsKmsDouble, key: str) -> None:
    materials = materials_of(aws_kms_double, key, deadline_s=4.0)
    aws_kms_double.fault("Encrypt", hang=True, times=1)
    assert len(materials.seal([(BINDING, PLAIN)])) == 1


def test_nothing_is_sent_once_the_deadline_is_over(aws_kms_double: AwsKmsDouble, key: str) -> None:
    materials = materials_of(aws_kms_double, key, deadline_s=SHORT_S)
    aws_kms_double.fault("Encrypt", code="KMSInternalException", status=500, delay_s=0.3)
    unavailability(lambda: materials.seal([(BINDING, PLAIN)]))
    aws_kms_double.mend()
    # Whatever was still under way would now succeed and be recorded.
    wait_for_threads()
    assert aws_kms_double.take_requests() == []


def test_a_batch_fails_as_a_whole_and_soon(aws_kms_double: AwsKmsDouble, key: str, materials: AwsKmsMaterials) -> None:
    items = [(dataclasses.replace(BINDING, version=number), PLAIN) for number in range(128)]
    sealed = materials.seal(items)
    broken = [bytes(60), *sealed[1:]]
    aws_kms_double.take_requests()
    with pytest.raises(SealBrokenError):
        materials.open([(binding, each) for (binding, _), each in zip(items, broken, strict=True)])
    assert len(aws_kms_double.take_requests()) < 128


def test_a_batch_takes_no_longer_than_a_protector_may(aws_kms_double: AwsKmsDouble, key: str) -> None:
    materials = materials_of(aws_kms_double, key, deadline_s=LONG_S)
    aws_kms_double.fault("Encrypt", delay_s=0.3)
    begun = time.monotonic()
    assert len(materials.seal([(BINDING, PLAIN)] * 24)) == 24
    assert time.monotonic() - begun < 3 * LONG_S + SLACK_S
    # Eight at a time; all at once would be 0.3 s.
    assert time.monotonic() - begun > 3 * 0.3


@pytest.mark.parametrize(
    ("fault", "reasons"),
    [
        # Releases of the SDK differ on whether they see that something is missing.
        ({"truncate": True}, {Reason.BAD_ANSWER, Reason.NO_CONNECTION}),
        ({"reset": True}, {Reason.NO_CONNECTION}),
        ({"body": "<html>Sign in to the hotel</html>"}, {Reason.BAD_ANSWER}),
        ({"body": "{}"}, {Reason.BAD_ANSWER}),
        ({"body": "[]"}, {Reason.BAD_ANSWER}),
        ({"body": '{"CiphertextBlob": "AA==", "KeyId": 7}'}, {Reason.BAD_ANSWER}),
    ],
)
def test_what_is_no_answer_of_kms_is_told_as_that(
    aws_kms_double: AwsKmsDouble, key: str, fault: dict[str, Any], reasons: set[Reason]
) -> None:
    materials = materials_of(aws_kms_double, key, deadline_s=SHORT_S)
    aws_kms_double.fault("Encrypt", **fault)
    assert unavailability(lambda: materials.seal([(BINDING, PLAIN)])).reason in reasons


def test_an_answer_cut_off_once_is_asked_for_again(aws_kms_double: AwsKmsDouble, materials: AwsKmsMaterials) -> None:
    aws_kms_double.fault("Encrypt", truncate=True, times=1)
    assert len(materials.seal([(BINDING, PLAIN)])) == 1


def test_an_answer_for_another_key_is_refused(
    aws_kms_double: AwsKmsDouble, materials: AwsKmsMaterials, sealed: bytes
) -> None:
    aws_kms_double.fault("*", key=make_key(aws_kms_double))
    assert refusal(lambda: materials.seal([(BINDING, PLAIN)])).reason == Reason.WRONG_KEY
    assert refusal(lambda: materials.open([(BINDING, sealed)])).reason == Reason.WRONG_KEY


def test_a_redirect_is_not_followed(aws_kms_double: AwsKmsDouble, key: str, materials: AwsKmsMaterials) -> None:
    with AwsKmsDouble.started() as elsewhere:
        aws_kms_double.fault("Encrypt", redirect=elsewhere.url + "/")
        assert refusal(lambda: materials.seal([(BINDING, PLAIN)])).reason == Reason.REQUEST_REFUSED
        assert elsewhere.count_arrivals() == 0


def test_a_port_where_nobody_listens_is_told(aws_kms_double: AwsKmsDouble, key: str) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        settings = dataclasses.replace(
            double_settings(aws_kms_double, key, deadline_s=SHORT_S),
            endpoint=f"http://127.0.0.1:{held.getsockname()[1]}",
        )
        materials = AwsKmsMaterials(AwsKms(settings), key, "analytics")
        assert unavailability(lambda: materials.seal([(BINDING, PLAIN)])).reason == Reason.NO_CONNECTION


def test_without_credentials_it_is_said_where_they_come_from(
    aws_kms_double: AwsKmsDouble, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    error = unavailability(lambda: materials_of(aws_kms_double, key).seal([(BINDING, PLAIN)]))
    assert error.reason == Reason.NO_CREDENTIALS


def test_credentials_that_aws_does_not_take_are_told(
    aws_kms_double: AwsKmsDouble, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = aws_kms_double.server
    for wrong in (
        Credentials("AKIANOBODY", "x" * 40),
        dataclasses.replace(known, secret=secrets.token_urlsafe(30)),
        dataclasses.replace(known, token="another"),
    ):
        sign_as(monkeypatch, wrong)
        error = refusal(lambda: materials_of(aws_kms_double, key).seal([(BINDING, PLAIN)]))
        assert error.reason == Reason.CREDENTIALS_REFUSED


def test_credentials_that_ran_out_may_be_renewed(aws_kms_double: AwsKmsDouble, materials: AwsKmsMaterials) -> None:
    aws_kms_double.expire(aws_kms_double.server)
    try:
        assert unavailability(lambda: materials.seal([(BINDING, PLAIN)])).reason == Reason.CREDENTIALS_EXPIRED
    finally:
        aws_kms_double.expire(aws_kms_double.server, expired=False)
    assert len(materials.seal([(BINDING, PLAIN)])) == 1


def test_a_profile_that_does_not_exist_is_a_matter_of_configuration(
    aws_kms_double: AwsKmsDouble, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigError, match="ProfileNotFound"):
        AwsKms(double_settings(aws_kms_double, key))


def test_where_requests_go_is_not_the_environments_business(
    aws_kms_double: AwsKmsDouble, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://localhost:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:1")
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    public = dataclasses.replace(double_settings(aws_kms_double, key), endpoint=None)
    assert AwsKms(public).endpoint == "https://kms.eu-west-1.amazonaws.com"
    assert AwsKms(dataclasses.replace(public, fips=True)).endpoint == "https://kms-fips.eu-west-1.amazonaws.com"
    assert AwsKms(double_settings(aws_kms_double, key)).endpoint == aws_kms_double.url


def test_what_aws_is_told_is_the_context_and_one_key(aws_kms_double: AwsKmsDouble, key: str) -> None:
    (protector,) = open_aws_kms(double_settings(aws_kms_double, key))
    slot = protector.seal_root(bytes(16), PLAIN)
    materials = protector.materials(slot)
    materials.open([(BINDING, materials.seal([(BINDING, PLAIN)])[0])])
    requests = aws_kms_double.take_requests()
    # An ARN needs no look-up.
    assert [each["operation"] for each in requests] == ["Encrypt", "Encrypt", "Decrypt"]
    assert {each["key"] for each in requests} == {key}
    of_the_root = {"ringfence:cluster": "analytics", "ringfence:key": "00" * 16, "ringfence:version": "0"}
    of_a_key = {"ringfence:cluster": "analytics", "ringfence:key": "pii", "ringfence:version": "0"}
    assert [each["context"] for each in requests] == [
        of_the_root | {"ringfence:purpose": "store-root"},
        *[of_a_key | {"ringfence:purpose": "zone-key"}] * 2,
    ]
    assert all("ringfence" in each["agent"] for each in requests)
