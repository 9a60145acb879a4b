"""What an installation pulls in, and that what it has is enough: real `pip install` into fresh environments.

Built from a copy of the checkout, so that neither a build directory nor the development environment's packages
make it pass.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
READY = re.compile(r"ready kms://http@(?P<host>[^:]+):(?P<port>\d+)/kms\s*")
# The key server must not bring these along (design, section 2).
TOO_HEAVY_FOR_THE_KMS = {"pyarrow", "jpype1", "fastapi", "numpy", "boto3", "botocore", "hvac", "hdfs-native", "uvicorn"}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a source distribution holds, away from the checkout."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(CHECKOUT / name, copy)
    for name in ("zones", "agent", "bootstrap", "packaging"):
        shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return copy


@pytest.fixture(scope="module")
def bare(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the base package and no extra."""
    return install(tmp_path_factory.mktemp("bare"), str(source))


@pytest.fixture(scope="module")
def kms_only(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the extra `kms` alone."""
    return install(tmp_path_factory.mktemp("kms"), f"{source}[kms]")


@pytest.fixture(scope="module")
def agent_only(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the extra `agent` alone."""
    return install(tmp_path_factory.mktemp("agent"), f"{source}[agent]")


@pytest.fixture
def kms_port(kms_only: Path, tmp_path: Path) -> Iterator[int]:
    """The port of a key server started from the environment that has nothing but its extra."""
    for file_name in ("core-site.xml", "kms-site.xml", "kms-acls.xml"):
        (tmp_path / file_name).write_text("<configuration/>")
    argv = [kms_only / "ringfence", "kms", "serve", "--hadoop-conf", tmp_path, "--listen", "localhost:0"]
    server = subprocess.Popen(
        [*argv, "--keystore", f"sqlite:///{tmp_path}/keys.db"],
        env=clean_environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        match = READY.fullmatch(line)
        if match is None:
            server.kill()
            pytest.fail(f"the key server did not become ready: {line!r} {server.communicate()}")
        yield int(match["port"])
    finally:
        server.terminate()
        server.communicate(timeout=30)
    assert server.returncode == 0, "SIGTERM is a clean end"


def install(directory: Path, requirement: str) -> Path:
    """A fresh environment with `requirement` in it; its directory of programs."""
    venv.create(directory / "venv", with_pip=True, symlinks=True)
    programs = directory / "venv" / "bin"
    pip = [programs / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet", requirement]
    finished = subprocess.run(pip, capture_output=True, text=True, timeout=400, check=False)
    assert finished.returncode == 0, finished.stderr
    return programs


def clean_environment(home: Path) -> dict[str, str]:
    """No virtual environment, path or configuration of whoever runs the tests."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}


def distributions(programs: Path) -> set[str]:
    """Names of everything installed, lower case."""
    listing = subprocess.run(
        [programs / "python", "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True
    )
    return {package["name"].lower() for package in json.loads(listing.stdout)}


def test_the_kms_extra_brings_no_jvm_no_framework_and_no_cloud_sdk(kms_only: Path) -> None:
    installed = distributions(kms_only)
    assert {"ringfence", "httptools", "sqlalchemy", "cryptography"} <= installed
    assert not installed & TOO_HEAVY_FOR_THE_KMS


def test_the_kms_extra_alone_serves_a_key(kms_port: int) -> None:
    with contextlib.closing(http.client.HTTPConnection("localhost", kms_port, timeout=30)) as connection:
        connection.request("GET", "/kms/v1/keys/names?user.name=hdfs")
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())) == (200, [])


@pytest.mark.parametrize("command", [["vault", "status"], ["doctor", "vault"]])
def test_vault_s_commands_name_their_extra_where_only_the_key_server_is_installed(
    kms_only: Path, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "kms.yaml").write_text(
        "vault: {addresses: ['http://localhost:1'], cluster: c1, auth: {method: token_file}}\n"
    )
    finished = subprocess.run(
        [kms_only / "ringfence", *command, "--config", tmp_path / "kms.yaml"],
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (finished.returncode, "pip install 'ringfence[vault]'" in finished.stderr) == (2, True), finished.stderr


@pytest.mark.parametrize("command", [["doctor", "aws-kms", "--config"], ["kms", "serve", "--init", "--config"]])
def test_an_aws_key_s_users_name_their_extra_where_only_the_key_server_is_installed(
    kms_only: Path, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "store").mkdir(mode=0o700)
    (tmp_path / "kms.yaml").write_text(
        f"keystore: sqlite:///{tmp_path}/store/keys.db\nprotector: [aws-kms]\nlisten: localhost:0\n"
        "aws_kms: {key: alias/ringfence, region: eu-west-1, cluster: c}\n"
    )
    finished = subprocess.run(
        [kms_only / "ringfence", *command, tmp_path / "kms.yaml"],
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (finished.returncode, "pip install 'ringfence[aws]'" in finished.stderr) == (2, True), finished.stderr


def test_the_agent_extra_alone_brings_all_that_the_agent_imports(agent_only: Path, tmp_path: Path) -> None:
    argv = [agent_only / "ringfence", "agent", "serve", "--config", tmp_path / "agent.yaml"]
    (tmp_path / "agent.yaml").write_text("no_such_setting: 1\n")
    finished = subprocess.run(
        argv, env=clean_environment(tmp_path), capture_output=True, text=True, timeout=60, check=False
    )
    # Far enough to read its settings, and no further.
    assert (finished.returncode, "no_such_setting" in finished.stderr) == (2, True), finished.stderr
    module = subprocess.run(
        [agent_only / "python", "-c", "import ringfence_agent.serve"], capture_output=True, text=True, check=False
    )
    assert module.returncode == 0, module.stderr


def test_the_base_package_needs_no_compiled_server_part(bare: Path) -> None:
    assert not distributions(bare) & (TOO_HEAVY_FOR_THE_KMS | {"httptools", "uvloop", "sqlalchemy"})


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (["kms", "serve"], "kms"),
        (["agent", "serve"], "agent"),
        (["status"], "hdfs"),
        (["vault", "status"], "vault"),
        (["emr", "security-config", "list", "--region", "eu-west-1"], "emr"),
    ],
)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    bare: Path, tmp_path: Path, command: list[str], extra: str
) -> None:
    (tmp_path / "core-site.xml").write_text(
        "<configuration><property><name>fs.defaultFS</name><value>hdfs://localhost:1</value></property></configuration>"
    )
    hadoop = tmp_path / "bin" / "hadoop"
    hadoop.parent.mkdir()
    hadoop.write_text("#!/bin/sh\necho /opt/hadoop-common-3.4.2.jar:/opt/hadoop-hdfs-client-3.4.2.jar\n")
    hadoop.chmod(0o755)
    (tmp_path / "agent.yaml").write_text("{}\n")
    argv = [bare / "ringfence", "--hadoop-conf", tmp_path, *command]
    environment = clean_environment(tmp_path) | {"HADOOP_HOME": str(tmp_path)}
    finished = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (finished.returncode, f"pip install 'ringfence[{extra}]'" in finished.stderr) == (2, True), finished.stderr


def test_help_lists_every_command_without_importing_what_is_not_installed(bare: Path, tmp_path: Path) -> None:
    finished = subprocess.run(
        [bare / "ringfence", "--help"],
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr
    for command in ("apply", "check", "kms", "mv", "plan"):
        assert command in finished.stdout
