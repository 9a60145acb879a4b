"""The key server's copy of the stock KMS's keytab: when there is one, who reads it, and when it is stale."""

from __future__ import annotations

import os
import pwd
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from ringfence_bootstrap.journal import Journal, roll_back, run
from ringfence_bootstrap.node.configuration import parse_node_config
from ringfence_bootstrap.node.keytab import find_stale_copy, find_stock_keytab, keytab_step
from ringfence_zones.errors import ConfigError, RingfenceError, RolledBackError
from ringfence_zones.hadoop_xml import set_properties

WHEELS = f"wheelhouse: s3://bucket/wheels\nwheelhouse_sha256: {'a' * 64}\n"
OURS = WHEELS + "mode: ringfence-kms\n"
KEYS = b"\x05\x02 the keys of HTTP/localhost"
ME = pwd.getpwuid(os.geteuid()).pw_name
PREFIX = "hadoop.kms.authentication."
KERBEROS = {PREFIX + "type": "kerberos", PREFIX + "kerberos.keytab": "/etc/kms.keytab"}


def conf(directory: Path, values: dict[str, str]) -> Path:
    empty = b'<?xml version="1.0"?>\n<configuration>\n</configuration>\n'
    for name, content in (("kms-site.xml", set_properties(empty, values)), ("core-site.xml", empty)):
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "kms.keytab"
    path.write_bytes(KEYS)
    path.chmod(0o400)
    return path


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc/kms.keytab"


@pytest.mark.parametrize(
    ("text", "values", "found"),
    [
        (OURS, KERBEROS, Path("/etc/kms.keytab")),
        (OURS, {PREFIX + "type": "simple"}, None),
        (OURS, {}, None),
        (WHEELS + "mode: existing-kms\n", KERBEROS, None),
        (OURS + "kms: {settings: {keytab_file: /etc/ringfence/mine}}\n", KERBEROS, None),
        (OURS + "kms: {settings: {authentication: {type: simple}}}\n", KERBEROS, None),
    ],
)
def test_a_copy_is_for_our_key_server_in_the_place_of_one_with_kerberos(
    text: str, values: dict[str, str], found: Path | None, tmp_path: Path
) -> None:
    assert find_stock_keytab(parse_node_config(text), conf(tmp_path, values)) == found


def test_kerberos_without_a_keytab_is_refused_by_its_property(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"kerberos\.keytab in .* names no file"):
        find_stock_keytab(parse_node_config(OURS), conf(tmp_path, {PREFIX + "type": "kerberos"}))
    assert find_stock_keytab(parse_node_config(OURS), None) is None


def test_the_copy_is_its_owners_alone_and_goes_whatever_it_holds(tmp_path: Path, source: Path, copy: Path) -> None:
    journal = Journal(tmp_path / "journal.json")
    run(journal, {}, [keytab_step(source, copy, ME)], lambda _text: None)
    assert copy.read_bytes() == KEYS and stat.S_IMODE(copy.stat().st_mode) == 0o400
    assert KEYS not in b"".join(each.read_bytes() for each in tmp_path.glob("journal*"))

    copy.chmod(0o600)
    copy.write_bytes(b"of a later key")
    roll_back(journal, [keytab_step(source, copy, ME)], "uninstalling", lambda _text: None)
    assert list(copy.parent.iterdir()) == [] and source.read_bytes() == KEYS


def test_a_file_of_somebody_else_stays_and_stops_the_set_up(tmp_path: Path, source: Path, copy: Path) -> None:
    copy.write_bytes(b"an administrator's")
    with pytest.raises(RolledBackError, match=r"kms\.keytab is there already"):
        run(Journal(tmp_path / "journal.json"), {}, [keytab_step(source, copy, ME)], lambda _text: None)
    assert copy.read_bytes() == b"an administrator's"


@pytest.mark.parametrize("content", [None, b"", b"x" * (1024 * 1024 + 1)])
def test_a_keytab_that_is_none_leaves_nothing(content: bytes | None, tmp_path: Path, copy: Path) -> None:
    source = tmp_path / "kms.keytab"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(RingfenceError, match=r"kms\.keytab"):
        run(Journal(tmp_path / "journal.json"), {}, [keytab_step(source, copy, ME)], lambda _text: None)
    assert list(copy.parent.iterdir()) == []


def test_what_is_wrong_with_the_copy_is_told_with_the_command_that_mends_it(source: Path, copy: Path) -> None:
    keytab_step(source, copy, ME).do()
    assert list(find_stale_copy(source, copy, ME)) == []

    def remade() -> None:
        source.chmod(0o600)
        source.write_bytes(KEYS + b" anew")

    for spoil, said in (
        (remade, "was made anew"),
        (lambda: copy.chmod(0o440), "alone any more"),
        (copy.unlink, "is gone"),
    ):
        spoil()
        (finding,) = find_stale_copy(source, copy, ME)
        assert said in finding.message and finding.command is not None
        subprocess.run(shlex.split(finding.command), check=True)
        assert list(find_stale_copy(source, copy, ME)) == []
        assert copy.read_bytes() == source.read_bytes()
