"""No plaintext, ciphertext or credential of AWS KMS in any message, log or `repr`, whatever goes wrong.

The double is made to answer with what it was asked, so that whoever repeats a body is found.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import secrets
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from aws_kms_double import AwsKmsDouble
from aws_kms_places import double_settings, make_key
from canary import Canaries

from ringfence_agent.keystore.protector import MaterialBinding
from ringfence_agent.keystore.protectors.aws_kms import AwsKmsProtector, open_aws_kms
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_zones.errors import RingfenceError
from ringfence_zones.secret import Secret

STORE = bytes(16)
BINDING = MaterialBinding(3, STORE, "pii", 0, "AES/CTR/NoPadding", 256, 1_700_000_000_000)
FAULTS: tuple[dict[str, object], ...] = (
    {},
    {"code": "ValidationException", "echo": True},
    {"code": "AccessDeniedException", "echo": True},
    {"code": "DisabledException", "echo": True},
    {"code": "InvalidCiphertextException", "echo": True},
    {"code": "ThrottlingException", "echo": True},
    {"code": "KMSInternalException", "status": 500, "echo": True},
    {"truncate": True},
    {"hang": True},
    {"reset": True},
    {"body": "nonsense"},
    {"key": "arn:aws:kms:eu-west-1:111122223333:key/another"},
)


class Texts(logging.Handler):
    """Everything that is logged, by anybody, at any level."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(logging.Formatter().format(record))


@pytest.fixture
def log() -> Iterator[Texts]:
    """The whole log at its most talkative, as an administrator may set it."""
    root, texts = logging.getLogger(), Texts()
    level = root.level
    root.addHandler(texts)
    root.setLevel(logging.DEBUG)
    yield texts
    root.setLevel(level)
    root.removeHandler(texts)


def attempts(protector: AwsKmsProtector, slot: bytes, sealed: bytes, root: Secret, material: Secret) -> list[str]:
    """What every call shows of itself, all made at once: some wait for their deadline."""
    materials = protector.materials(slot)
    calls: tuple[Callable[[], object], ...] = (
        lambda: len(protector.seal_root(STORE, root)),
        lambda: protector.open_root(STORE, slot),
        lambda: len(materials.seal([(BINDING, material)])),
        lambda: materials.open([(BINDING, sealed)]),
        lambda: materials.open([(BINDING, sealed), (BINDING, sealed[:-1])]),
        lambda: protector._kms.re_encrypt(protector._key, protector._key, [(sealed, {"ringfence:cluster": "x"})]),
    )
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(shown, calls))


def shown(call: Callable[[], object]) -> str:
    """Its error with all that hangs on it, or the `repr` of the secrets it gave."""
    try:
        return repr(call())
    except (RingfenceError, SealBrokenError) as error:
        assert error.__context__ is None
        assert error.__cause__ is None
        return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


def test_no_secret_is_seen_whatever_goes_wrong(aws_kms_double: AwsKmsDouble, log: Texts) -> None:
    root, material = Secret(secrets.token_bytes(32)), Secret(secrets.token_bytes(32))
    (protector,) = open_aws_kms(double_settings(aws_kms_double, make_key(aws_kms_double), deadline_s=0.6))
    slot = protector.seal_root(STORE, root)
    materials = protector.materials(slot)
    (sealed,) = materials.seal([(BINDING, material)])
    canaries = Canaries()
    canaries.add("root", root.reveal())
    canaries.add("material", material.reveal())
    canaries.add("ciphertext", sealed[-32:])
    canaries.add("credential", aws_kms_double.server.secret)
    canaries.add("token", aws_kms_double.server.token or "")
    texts = [repr(protector), repr(materials), protector.label, repr(protector._kms)]
    for fault in FAULTS:
        aws_kms_double.mend()
        if fault:
            aws_kms_double.fault("*", **fault)
        texts += attempts(protector, slot, sealed, root, material)
    for thread in threading.enumerate():
        if thread.name.startswith("aws-kms"):
            thread.join(timeout=10)
    assert len(texts) > len(FAULTS)
    assert canaries.find_in_texts({"errors": "\n".join(texts), "log": "\n".join(log.lines)}) == {}
    # The SDK's own words would have given them away, and the scan finds them in the same places.
    shown = base64.b64encode(material.reveal()).decode()
    logging.getLogger("canary").debug("with params: {'Plaintext': '%s'}", shown)
    assert canaries.find_in_texts({"log": "\n".join(log.lines)}) == {"log": {"material"}}


def test_the_sdk_s_log_would_show_them(aws_kms_double: AwsKmsDouble, log: Texts) -> None:
    material = Secret(secrets.token_bytes(32))
    canaries = Canaries()
    canaries.add("material", material.reveal())
    (protector,) = open_aws_kms(double_settings(aws_kms_double, make_key(aws_kms_double)))
    materials = protector.materials(protector.seal_root(STORE, Secret(bytes(32))))
    quiet = logging.getLogger("botocore")
    with contextlib.ExitStack() as undo:
        undo.callback(quiet.setLevel, quiet.level)
        quiet.setLevel(logging.DEBUG)
        materials.seal([(BINDING, material)])
    assert canaries.find_in_texts({"log": "\n".join(log.lines)}) == {"log": {"material"}}
    # Whoever opens a client closes it again, for the whole process.
    AwsKmsProtector(type(protector._kms)(double_settings(aws_kms_double, "k")), "k", "c")
    assert not logging.getLogger("botocore.parsers").isEnabledFor(logging.DEBUG)
