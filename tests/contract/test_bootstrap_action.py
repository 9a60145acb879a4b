"""The bootstrap action in a clean root without a network: nothing unverified runs, and each refusal says what to do.

No Hadoop is in it, so it takes seconds; tests/cluster/test_node_life_cycle.py goes the whole way.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from emr_node import CHECKOUT, EmrNode, emr_node

_ACTION = CHECKOUT / "bootstrap/emr/bootstrap-action.sh"
_CONFIG = "s3://artifacts/bootstrap.yaml"
# What a pip that somebody exchanged would do.
_HOSTILE = "import pathlib; pathlib.Path('/srv/s3/ran').touch()\n"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmrNode]:
    with emr_node(tmp_path_factory.mktemp("node"), with_hadoop=False) as made:
        yield made


@pytest.fixture
def bucket(node: EmrNode) -> Path:
    """An S3 bucket with a wheelhouse whose pip leaves a trace when it runs."""
    bucket = node.path("/srv/s3/artifacts")
    node.run("rm", "-rf", "/srv/s3/artifacts", "/srv/s3/ran", "/opt/ringfence", "/var/lib/ringfence-node")
    (bucket / "wheelhouse").mkdir(parents=True)
    with zipfile.ZipFile(bucket / "wheelhouse/pip-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pip/__main__.py", _HOSTILE)
    (bucket / "wheelhouse/requirements.txt").write_text("")
    (bucket / "wheelhouse/python-version").write_text("3.11\n")
    sign(bucket)
    return bucket


def sign(bucket: Path, *, sums: str | None = None) -> None:
    """SHA256SUMS over what is there, and bootstrap.yaml with its digest."""
    wheels = bucket / "wheelhouse"
    lines = [f"{digest(each)}  {each.name}\n" for each in sorted(wheels.iterdir()) if each.name != "SHA256SUMS"]
    (wheels / "SHA256SUMS").write_text("".join(lines) if sums is None else sums)
    (bucket / "bootstrap.yaml").write_text(
        f"wheelhouse: s3://artifacts/wheelhouse  # a comment\nwheelhouse_sha256: '{digest(wheels / 'SHA256SUMS')}'\n"
        "mode: ringfence-kms\n"
    )


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def act(node: EmrNode, *arguments: str) -> subprocess.CompletedProcess[str]:
    return node.run("bash", _ACTION, *(arguments or (_CONFIG,)), expect=None)


def ran(node: EmrNode) -> bool:
    return node.path("/srv/s3/ran").exists()


def test_a_wheelhouse_that_is_what_it_should_be_is_run(node: EmrNode, bucket: Path) -> None:
    act(node)
    assert ran(node)  # the control of the tests below


def test_an_exchanged_wheel_is_never_run(node: EmrNode, bucket: Path) -> None:
    with (bucket / "wheelhouse/pip-1.0-py3-none-any.whl").open("ab") as wheel:
        wheel.write(b"x")
    done = act(node)
    assert done.returncode == 2 and "is not what its SHA256SUMS says" in done.stderr
    assert not ran(node) and not node.path("/opt/ringfence").exists()


def test_exchanged_wheels_with_digests_to_match_are_never_run(node: EmrNode, bucket: Path) -> None:
    config = (bucket / "bootstrap.yaml").read_bytes()
    with (bucket / "wheelhouse/pip-1.0-py3-none-any.whl").open("ab") as wheel:
        wheel.write(b"x")
    sign(bucket)
    (bucket / "bootstrap.yaml").write_bytes(config)
    done = act(node)
    assert done.returncode == 2 and "is not the one that wheelhouse_sha256 names" in done.stderr
    assert not ran(node)


def test_what_the_list_does_not_name_is_not_fetched(node: EmrNode, bucket: Path) -> None:
    """/run is memory: whoever may write into the bucket would fill it."""
    with (bucket / "wheelhouse/zeros").open("wb") as zeros:
        zeros.truncate(1 << 40)
    done = act(node)
    assert ran(node), done.stderr


@pytest.mark.parametrize("name", ["bootstrap.yaml", "wheelhouse/python-version"])
def test_a_file_without_end_is_given_up(node: EmrNode, bucket: Path, name: str) -> None:
    os.truncate(bucket / name, 1 << 40)
    done = act(node)
    assert done.returncode == 1 and "cannot be fetched" in done.stderr and not ran(node)
    assert list(node.path("/run").glob("ringfence-bootstrap-??????")) == []


@pytest.mark.parametrize("name", ["../../etc/x", "/etc/x", "a b", "-rf"])
def test_a_name_that_leads_elsewhere_is_refused(node: EmrNode, bucket: Path, name: str) -> None:
    sign(bucket, sums=f"{'0' * 64}  {name}\n")
    done = act(node)
    assert done.returncode == 2 and "plain names" in done.stderr and not ran(node)


def test_a_configuration_that_was_exchanged_is_refused(node: EmrNode, bucket: Path) -> None:
    good = digest(bucket / "bootstrap.yaml")
    assert "not the one that was meant" not in act(node, _CONFIG, good).stderr
    node.run("rm", "-rf", "/opt/ringfence", "/srv/s3/ran")
    done = act(node, _CONFIG, "0" * 64)
    assert done.returncode == 2 and "not the one that was meant" in done.stderr and not ran(node)


@pytest.mark.parametrize(
    ("text", "message"),
    [("mode: ringfence-kms\n", "does not say wheelhouse and wheelhouse_sha256"), ("", "does not say wheelhouse")],
)
def test_a_configuration_without_a_wheelhouse_is_refused(node: EmrNode, bucket: Path, text: str, message: str) -> None:
    (bucket / "bootstrap.yaml").write_text(text)
    done = act(node)
    assert done.returncode == 2 and message in done.stderr


def test_what_cannot_be_fetched_names_the_permission(node: EmrNode, bucket: Path) -> None:
    done = act(node, "s3://artifacts/none.yaml")
    assert done.returncode == 1 and "may the instance profile do s3:GetObject" in done.stderr


def test_a_directory_that_is_not_ours_is_left_alone(node: EmrNode, bucket: Path) -> None:
    node.run("sh", "-c", "mkdir /opt/ringfence && touch /opt/ringfence/theirs")
    done = act(node)
    assert done.returncode == 1 and "was not made by this bootstrap action" in done.stderr
    assert node.path("/opt/ringfence/theirs").exists() and not ran(node)


def test_a_wheelhouse_for_another_python_says_so(node: EmrNode, bucket: Path) -> None:
    (bucket / "wheelhouse/python-version").write_text("3.99\n")
    sign(bucket)
    done = act(node)
    assert done.returncode == 2 and "packaging/scripts/wheelhouse --python VERSION" in done.stderr


def test_a_node_without_a_suitable_python_is_told_which_release_has_one(node: EmrNode, bucket: Path) -> None:
    node.run("mkdir", "-p", "/srv/s3/bin")
    for name in ("bash", "sed", "id", "sh"):
        node.run("ln", "-sf", f"/usr/bin/{name}", f"/srv/s3/bin/{name}")
    done = node.run("env", "PATH=/srv/s3/bin", "bash", _ACTION, _CONFIG, expect=None)
    assert done.returncode == 2 and "emr-7.1.0 or later" in done.stderr


def test_wrong_usage_says_what_is_right(node: EmrNode) -> None:
    done = node.run("bash", _ACTION, expect=None)
    assert done.returncode == 2 and "bootstrap-action.sh CONFIG [SHA256]" in done.stderr


def test_no_index_and_no_route_is_in_reach(node: EmrNode) -> None:
    assert node.run("ip", "route").stdout == ""
    assert node.run("ip", "-6", "route").stdout in ("", "::1 dev lo proto kernel metric 256 pref medium\n")
