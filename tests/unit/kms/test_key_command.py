"""`ringfence key acl` and `ringfence policy acls` as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from acl_files import SOUND, write_acls

from ringfence_zones.cli.main import main
from ringfence_zones.hadoop_xml import read_properties

POLICY = """
version: 1
cluster: c
zones:
  - {path: /data/pii, key: pii, owner: etl}
kms: {namenode_users: [hdfs], admins: [keyadmin]}
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "zones.yaml"
    path.write_text(POLICY)
    return path


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    return int(done.value.code or 0), captured.out, captured.err


def test_lint_exits_0_on_a_sound_file_and_3_on_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_acls(tmp_path, SOUND)
    assert run(capsys, "key", "acl", "lint", "--hadoop-conf", tmp_path)[0] == 0
    path = write_acls(tmp_path, {**SOUND, "hadoop.kms.acl.GET": "*"})
    code, out, _ = run(capsys, "key", "acl", "lint", "--acls", path)
    assert code == 3
    assert f"acl_get_open  {path}:6" in out
    code, out, _ = run(capsys, "key", "acl", "lint", "--hadoop-conf", tmp_path, "--json")
    assert [finding["rule"] for finding in json.loads(out)["findings"]] == ["acl_get_open"]


def test_lint_of_a_file_that_is_not_there_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "key", "acl", "lint", "--hadoop-conf", tmp_path)
    assert code == 2
    assert "there is no" in err


def test_explain_exits_0_whatever_is_decided_and_names_the_line(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_acls(tmp_path, SOUND)
    code, out, err = run(capsys, "key", "acl", "explain", "etl", "decrypt_eek", "other", "--hadoop-conf", tmp_path)
    assert code == 0
    assert out.startswith("etl may not DECRYPT_EEK on other\n")
    assert f"{path}:10  hadoop.kms.acl.DECRYPT_EEK = '*'" in out
    assert "no published policy was looked at" in err
    words = ("key", "acl", "explain", "etl", "DECRYPT_EEK", "pii", "--hadoop-conf", tmp_path, "-f", policy)
    code, out, _ = run(capsys, *words)
    assert out.startswith("etl may DECRYPT_EEK on pii\n")
    assert f"{policy}: /data/pii  policy:0 = 'etl'" in out


def test_the_acls_of_the_kms_are_found_by_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "hadoop"
    directory.mkdir()
    path = write_acls(directory, SOUND)
    config = tmp_path / "kms.yaml"
    config.write_text(f"keystore: sqlite:///{tmp_path}/keys.db\nhadoop_conf: {directory}\n")
    explain = ("key", "acl", "explain", "etl", "READ", "k")
    assert str(path) in run(capsys, *explain, "--config", config)[1]
    monkeypatch.setenv("RINGFENCE_KMS_CONFIG", str(config))
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path / "elsewhere"))
    assert str(path) in run(capsys, *explain)[1]
    assert run(capsys, "key", "acl", "lint") == (0, f"{path}: nothing found\n", "")
    # What is typed counts more than the environment.
    assert run(capsys, *explain, "--hadoop-conf", tmp_path)[0] == 2
    config.write_text(f"keystore: sqlite:///{tmp_path}/keys.db\n")
    code, _, err = run(capsys, *explain)
    assert (code, "name no hadoop_conf" in err) == (2, True)


def test_explain_takes_groups_as_given_and_who_acts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_acls(tmp_path, {"default.key.acl.READ": "~hive ops"})
    for more in (("--group", "ops"), ("--real-user", "hive")):
        words = ("key", "acl", "explain", "nobody", "READ", "k", "--hadoop-conf", tmp_path, "--json", *more)
        assert json.loads(run(capsys, *words)[1])["allowed"] is True


def test_a_policy_is_printed_as_a_stock_kmss_file(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    existing = write_acls(tmp_path, {"default.key.acl.READ": "*"})
    code, out, _ = run(capsys, "policy", "acls", "-f", policy, "--merge", existing)
    assert code == 0
    found = read_properties(out.encode())
    assert (found["default.key.acl.READ"].value, found["key.acl.pii.DECRYPT_EEK"].value) == ("*", "etl")
    existing = write_acls(tmp_path, {"whitelist.key.acl.DECRYPT_EEK": "root"})
    code, _, err = run(capsys, "policy", "acls", "-f", policy, "--merge", existing, "--json")
    assert code == 2
    assert json.loads(err)["error"]["findings"][0]["rule"] == "needs_ringfence_kms"
