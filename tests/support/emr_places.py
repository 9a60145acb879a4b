"""A pytest plugin: where EMR is, for one suite over every place.

`double`  tests/support/emr_double.py
`moto`    moto's mock, for as much as it does as EMR does
`real`    EMR itself, in the region that RINGFENCE_TEST_EMR_REGION names, with the SDK's own credentials: it stores and
          removes security configurations whose names begin with `ringfence-test-`, which costs nothing.
          RINGFENCE_TEST_EMR_CLUSTER, a waiting cluster's id, adds steps of a second each.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aws_kms_double import Credentials
from aws_kms_places import sign_as
from emr_double import REGION, EmrDouble

from ringfence_bootstrap.account.connection import AwsPlace, Connection
from ringfence_bootstrap.account.emr_calls import EmrCalls
from ringfence_bootstrap.account.pace import Pace
from ringfence_zones.cli.main import main

_REAL = os.environ.get("RINGFENCE_TEST_EMR_REGION")
REAL_CLUSTER = os.environ.get("RINGFENCE_TEST_EMR_CLUSTER")
PLACES = ["double", "moto", *(["real"] if _REAL else [])]
_ENDPOINTS = ("EMR", "KMS", "IAM", "STS", "S3")


@dataclass
class EmrPlace:
    """One place. `names` are the configurations that a test made, removed after it."""

    name: str
    calls: EmrCalls
    double: EmrDouble | None = None
    names: list[str] = field(default_factory=list)

    def new_name(self) -> str:
        self.names.append(f"ringfence-test-{secrets.token_hex(6)}")
        return self.names[-1]


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def sdk_models() -> Iterator[None]:
    """The SDK reads its models once for all clients, not for each."""
    import botocore.loaders
    import botocore.session

    loader = botocore.loaders.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", lambda _search_path=None: loader)
        yield


@pytest.fixture
def emr_double(sdk_models: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmrDouble]:
    """A double of the test's own; whoever asks AWS here asks it, as its administrator."""
    with EmrDouble.started() as double:
        ask_as(monkeypatch, double, double.admin)
        yield double


def ask_as(monkeypatch: pytest.MonkeyPatch, double: EmrDouble, credentials: Credentials) -> None:
    """From now on clients that are made here sign so, and ask the double."""
    sign_as(monkeypatch, credentials)
    for service in _ENDPOINTS:
        monkeypatch.delenv(f"AWS_ENDPOINT_URL_{service}", raising=False)
    for name, value in double.environment(credentials).items():
        monkeypatch.setenv(name, value)


def double_calls(double: EmrDouble) -> EmrCalls:
    """The calls under test, whose waiting goes by the double's clock."""
    pace = Pace(clock=double.world.clock.now, sleep=double.advance)
    return EmrCalls(Connection(AwsPlace(REGION, endpoints={"emr": double.url})), pace)


@pytest.fixture(params=PLACES)
def emr_place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmrPlace]:
    """Each place, without what tests before left."""
    if request.param == "double":
        double: EmrDouble = request.getfixturevalue("emr_double")
        yield EmrPlace("double", double_calls(double), double)
    elif request.param == "moto":
        from moto import mock_aws

        request.getfixturevalue("sdk_models")
        sign_as(monkeypatch, Credentials("testing", "testing"))
        for service in _ENDPOINTS:
            monkeypatch.delenv(f"AWS_ENDPOINT_URL_{service}", raising=False)
        with mock_aws():
            yield EmrPlace("moto", EmrCalls(Connection(AwsPlace(REGION)), Pace({})))
    else:
        place = EmrPlace("real", EmrCalls(Connection(AwsPlace(_REAL))))
        yield place
        for name in place.names:
            if place.calls.find_security_configuration(name) is not None:
                place.calls.delete_security_configuration(name)


def run_command(capsys: pytest.CaptureFixture[str], *argv: object) -> Outcome:
    """One `ringfence` command in this process."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as raised:
        main([str(each) for each in argv])
    captured = capsys.readouterr()
    print(captured.out, captured.err, sep="\n")  # pytest shows it of a test that fails
    code: Any = raised.value.code
    return Outcome(int(code or 0), captured.out, captured.err)
