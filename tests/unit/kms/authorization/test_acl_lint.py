from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest
from acl_files import SOUND, write_acls

from ringfence_agent.kms.authorization.acl_document import read_acl_document
from ringfence_agent.kms.authorization.acl_lint import find_acl_problems
from ringfence_zones.errors import ConfigError
from ringfence_zones.findings import Finding, Rule, Severity


def lint(directory: Path, changes: dict[str, str | None], **more: object) -> list[Finding]:
    properties = {name: value for name, value in {**SOUND, **changes}.items() if value is not None}
    return find_acl_problems(read_acl_document(write_acls(directory, properties)), **more)  # type: ignore[arg-type]


def test_nothing_is_found_in_a_sound_file(tmp_path: Path) -> None:
    assert lint(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("changes", "rule", "severity", "line"),
    [
        ({"hadoop.kms.acl.GET": "*"}, Rule.ACL_GET_OPEN, Severity.ERROR, 6),
        ({"hadoop.kms.acl.GET": None}, Rule.ACL_GET_OPEN, Severity.ERROR, None),
        ({"hadoop.kms.acl.DELETE": None}, Rule.ACL_UNSET, Severity.WARN, None),
        ({"hadoop.kms.acl.GENERATE_EEK": None}, Rule.ACL_UNSET, Severity.INFO, None),
        ({"hadoop.kms.acl.ROLLOVER": ""}, Rule.ACL_EMPTY, Severity.ERROR, 4),
        ({"hadoop.kms.blacklist.DECRYPT_EEK": None}, Rule.ACL_SUPERUSER_DECRYPTS, Severity.WARN, None),
        ({"hadoop.kms.blacklist.DECRYPT_EEK": "etl"}, Rule.ACL_SUPERUSER_DECRYPTS, Severity.WARN, 11),
        ({"key.acl.pii.ALL": None, "key.acl.pii.READ": "etl"}, Rule.ACL_DEFAULTS_OFF, Severity.WARN, 15),
        ({"default.key.acl.ALL": "*"}, Rule.ACL_NO_EFFECT, Severity.WARN, 16),
        ({"whitelist.key.acl.ALL": "*"}, Rule.ACL_NO_EFFECT, Severity.WARN, 16),
        ({"hadoop.kms.acl.CRATE": "keyadmin"}, Rule.ACL_NO_EFFECT, Severity.WARN, 16),
        ({"key.acl.pii.WRITE": "etl"}, Rule.ACL_NO_EFFECT, Severity.WARN, 16),
        ({"hadoop.kms.acl.CREATE": " keyadmin"}, Rule.ACL_NAMES_ARE_GROUPS, Severity.ERROR, 2),
        ({"hadoop.kms.acl.CREATE": "\n  admins"}, Rule.ACL_NAMES_ARE_GROUPS, Severity.WARN, 2),
        ({"hadoop.kms.acl.CREATE": "keyadmin etl alice"}, Rule.ACL_BLANK_IN_NAME, Severity.WARN, 2),
        ({"hadoop.kms.acl.CREATE": "keyadmin,*"}, Rule.ACL_WILDCARD_IN_LIST, Severity.WARN, 2),
        ({"hadoop.kms.acl.CREATE": "keyadmin,nobody-of-that-name"}, Rule.ACL_UNKNOWN_NAME, Severity.INFO, 2),
        ({"hadoop.kms.acl.CREATE": "keyadmin no-such-group"}, Rule.ACL_UNKNOWN_NAME, Severity.WARN, 2),
        ({"key.acl.PII.ALL": "etl"}, Rule.ACL_KEY_CASE, Severity.WARN, 16),
        ({"hadoop.kms.acl.GET_KEYS": "${user.name}"}, Rule.ACL_VARIABLE, Severity.WARN, 7),
    ],
)
def test_each_trap_is_found_where_it_stands(
    tmp_path: Path, changes: dict[str, str | None], rule: Rule, severity: Severity, line: int | None
) -> None:
    found = [finding for finding in lint(tmp_path, changes) if finding.rule is rule]
    assert [finding.severity for finding in found] == [severity]
    path = str(tmp_path / "kms-acls.xml")
    assert found[0].path == (path if line is None else f"{path}:{line}")


def test_a_default_that_lets_everybody_delete_every_key_is_an_error(tmp_path: Path) -> None:
    changes: dict[str, str | None] = {"hadoop.kms.acl.DELETE": "*", "default.key.acl.MANAGEMENT": "*"}
    assert [finding.rule for finding in lint(tmp_path, changes)] == [Rule.ACL_OPEN]


def test_a_file_without_key_acls_closes_every_key(tmp_path: Path) -> None:
    changes = dict.fromkeys(name for name in SOUND if "key.acl" in name)
    assert Rule.ACL_KEYS_CLOSED in {finding.rule for finding in lint(tmp_path, changes)}


def test_key_acls_that_nobody_looks_at_are_told(tmp_path: Path) -> None:
    path = write_acls(tmp_path, SOUND, {"hadoop.kms.key.authorization.enable": "false"})
    (found,) = find_acl_problems(read_acl_document(path))
    assert found.rule is Rule.ACL_NO_EFFECT
    assert "hadoop.kms.key.authorization.enable" in found.message


def test_a_line_for_a_key_that_a_policy_names_is_void(tmp_path: Path) -> None:
    (found,) = lint(tmp_path, {}, published_keys={"pii"})
    assert (found.rule, found.key) == (Rule.ACL_NO_EFFECT, "pii")


def test_another_superuser_is_looked_for_when_named(tmp_path: Path) -> None:
    (found,) = lint(tmp_path, {}, superuser="nn")
    assert found.rule is Rule.ACL_SUPERUSER_DECRYPTS
    assert found.message.startswith("nn,")


def test_users_and_groups_of_the_system_are_known(tmp_path: Path) -> None:
    me = pwd.getpwuid(os.geteuid())
    mine = grp.getgrgid(me.pw_gid).gr_name
    assert lint(tmp_path, {"hadoop.kms.acl.CREATE": f"{me.pw_name},~{me.pw_name} {mine}"}) == []


def test_a_missing_file_is_named_with_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no .*kms-acls\.xml") as refused:
        read_acl_document(tmp_path / "kms-acls.xml")
    assert "--hadoop-conf" in (refused.value.hint or "")
