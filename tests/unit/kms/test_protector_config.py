"""Which protectors kms.yaml names, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from vault_settings import make_settings

from ringfence_agent.keystore.protectors.aws_kms_config import AwsKmsSettings
from ringfence_agent.kms.config import Options, load_store_settings
from ringfence_agent.kms.protector_config import (
    FILE_ONLY,
    ProtectorName,
    open_protectors,
    protector_settings,
    require_memory,
)
from ringfence_zones.errors import ConfigError

AWS = AwsKmsSettings(
    key="arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", cluster="c", region="eu-west-1"
)


def test_nothing_named_is_a_root_key_file() -> None:
    assert open_protectors(FILE_ONLY).with_file
    assert open_protectors(FILE_ONLY).others == ()
    assert not FILE_ONLY.has_remote


def test_protectors_are_tried_in_the_order_in_which_they_are_named(tmp_path: Path) -> None:
    vault = make_settings("http://127.0.0.1:8200", tmp_path)
    settings = protector_settings(["aws-kms", "vault-transit"], vault, AWS)
    opened = open_protectors(settings)
    assert not opened.with_file
    assert [protector.scheme for protector in opened.others] == ["aws-kms", "vault-transit"]
    assert settings.with_one("file").names == ("aws-kms", "vault-transit", "file")
    assert settings.with_one("aws-kms") == settings


@pytest.mark.parametrize(
    ("names", "words"),
    [([], "empty list"), (["file", "file"], "names one twice"), (["aws-kms"], "no aws_kms block"),
     (["file", "vault-transit"], "no vault block")],
)  # fmt: skip
def test_what_is_not_set_up_is_refused_with_the_block_that_is_missing(names: list[ProtectorName], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        protector_settings(names, None, None)
    assert caught.value.hint


def test_a_block_alone_names_no_protector(tmp_path: Path) -> None:
    assert protector_settings(["file"], make_settings("http://127.0.0.1:8200", tmp_path), AWS).names == ("file",)
    with pytest.raises(ConfigError):
        FILE_ONLY.with_one("aws-kms")


def test_a_remote_protector_needs_a_key_memory() -> None:
    remote = protector_settings(["file", "aws-kms"], None, AWS)
    require_memory(remote, 1.0)
    require_memory(FILE_ONLY, 0.0)
    with pytest.raises(ConfigError, match=r"key_memory is 0 .* protector aws-kms") as caught:
        require_memory(remote, 0.0)
    assert "key_memory: 1 or more seconds" in str(caught.value.hint)


def test_a_command_finds_the_store_of_kms_yaml_and_options_overrule_it(tmp_path: Path) -> None:
    config = tmp_path / "kms.yaml"
    config.write_text(
        "keystore: sqlite:////var/lib/ringfence/keys.db\nroot_key_file: /etc/r.key\nprotector: [file, aws-kms]\n"
        f"aws_kms: {{key: '{AWS.key}', cluster: c}}\n"
    )
    found = load_store_settings(Options(config=config))
    assert found.keystore == "sqlite:////var/lib/ringfence/keys.db"
    assert (found.root_key, found.keystore_password_file) == (Path("/etc/r.key"), None)
    assert found.protectors.names == ("file", "aws-kms")
    assert found.protectors.aws_kms is not None and found.protectors.aws_kms.key == AWS.key
    other = load_store_settings(Options(config=config, keystore="sqlite:////k.db", root_key=Path("/r")))
    assert (other.keystore, other.root_key) == ("sqlite:////k.db", Path("/r"))


@pytest.mark.parametrize("line", ["protector: []", "protector: file", "protector: [vault]"])
def test_a_list_that_is_none_is_refused(tmp_path: Path, line: str) -> None:
    config = tmp_path / "kms.yaml"
    config.write_text(f"keystore: sqlite:////k.db\n{line}\n")
    with pytest.raises(ConfigError, match="protector"):
        load_store_settings(Options(config=config))
