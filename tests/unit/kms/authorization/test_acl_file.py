from __future__ import annotations

import logging
from pathlib import Path

import pytest
from kms_serving import write_xml

from ringfence_agent.kms.authorization.acl_file import AclFile
from ringfence_agent.kms.authorization.acls import Operation
from ringfence_zones.access_list import AccessList
from ringfence_zones.errors import ConfigError


def test_a_change_is_found_once(tmp_path: Path) -> None:
    path = tmp_path / "kms-acls.xml"
    write_xml(path, {})
    file = AclFile(tmp_path)
    file.load()
    assert file.find_changed() is None
    write_xml(path, {"hadoop.kms.acl.GET": "alice"})
    changed = file.find_changed()
    assert changed is not None
    assert changed.operations == {Operation.GET: AccessList(frozenset({"alice"}))}
    assert file.find_changed() is None


def test_a_broken_or_removed_file_is_told_once_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "kms-acls.xml"
    write_xml(path, {})
    file = AclFile(tmp_path)
    file.load()
    path.write_text("<configuration>")
    for _ in range(3):
        assert file.find_changed() is None
    path.unlink()
    for _ in range(3):
        assert file.find_changed() is None
    assert len(caplog.records) == 2
    write_xml(path, {"hadoop.kms.acl.GET": "alice"})
    assert file.find_changed() is not None


def test_a_worker_does_not_start_on_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "kms-acls.xml").write_text("<configuration>")
    with pytest.raises(ConfigError, match=r"kms-acls\.xml is not well-formed"):
        AclFile(tmp_path).load()


def test_a_worker_does_not_start_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no kms-acls\.xml in"):
        AclFile(tmp_path).load()


def test_without_a_directory_hadoops_defaults_hold() -> None:
    file = AclFile(None)
    acls = file.load()
    assert not acls.operations and not acls.keys and not acls.defaults
    assert file.find_changed() is None


def test_a_property_without_effect_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_xml(tmp_path / "kms-acls.xml", {"hadoop.kms.acl.CRATE": "*"})
    with caplog.at_level(logging.WARNING):
        AclFile(tmp_path).load()
    assert "hadoop.kms.acl.CRATE has no effect" in caplog.text
