"""Hadoop's switch for its caches: the same answers, and changes are seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from kms_serving import KmsPlace, call, json_of


@pytest.mark.parametrize("source", ["kms-site.xml", "kms.yaml"])
def test_a_kms_with_its_caches_off_answers_as_with_them(tmp_path: Path, source: str) -> None:
    place = KmsPlace.make(tmp_path, site={"hadoop.kms.cache.enable": "false"} if source == "kms-site.xml" else None)
    options = []
    if source == "kms.yaml":
        config = tmp_path / "kms.yaml"
        config.write_text(f"key_memory: 0s\nadmin: {{socket: {place.admin_socket}}}\n")
        options = ["--config", str(config)]
    with place.serving(1, *options) as kms:
        client = kms.one_worker()
        assert call(client, "POST", "/kms/v1/keys", {"name": "k", "length": 256}).status == 201
        for version in ("k@0", "k@1"):
            (eek,) = json_of(call(client, "GET", "/kms/v1/key/k/_eek", query={"eek_op": "generate"}))
            assert eek["versionName"] == version
            body = {"name": "k", "iv": eek["iv"], "material": eek["encryptedKeyVersion"]["material"]}
            path = f"/kms/v1/keyversion/{version.replace('@', '%40')}/_eek"
            opened = [json_of(call(client, "POST", path, body, query={"eek_op": "decrypt"})) for _ in range(3)]
            assert opened[0] == opened[1] == opened[2]
            assert call(client, "POST", "/kms/v1/key/k", {}).status == 200
        batch = json_of(call(client, "POST", "/kms/v1/key/k/_reencryptbatch", [eek, eek]))
        assert [each["versionName"] for each in batch] == ["k@2", "k@2"]
        body = {"name": "k", "iv": batch[0]["iv"], "material": batch[0]["encryptedKeyVersion"]["material"]}
        path = "/kms/v1/keyversion/k%402/_eek"
        assert json_of(call(client, "POST", path, body, query={"eek_op": "decrypt"})) == opened[0]
        versions = json_of(call(client, "GET", "/kms/v1/key/k/_versions"))
        assert [each["versionName"] for each in versions] == ["k@0", "k@1", "k@2"]
        assert json_of(call(client, "GET", "/kms/v1/keyversion/k%401")) == versions[1]
        assert call(client, "DELETE", "/kms/v1/key/k").status == 200
        assert call(client, "POST", path, body, query={"eek_op": "decrypt"}).status == 400
