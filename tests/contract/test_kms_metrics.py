"""`/metrics` of the real server: every worker's counts, whoever answers and whoever died."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from kms_serving import DEADLINE_S, KmsPlace, RunningKms, call, json_of
from prometheus_client.parser import text_string_to_metric_families


@pytest.fixture
def place(tmp_path: Path) -> KmsPlace:
    return KmsPlace.make(tmp_path)


def read(kms: RunningKms) -> dict[str, float]:
    """Every sample by its name and labels, parsed as Prometheus does."""
    with kms.connect() as client:
        answer = call(client, "GET", "/metrics", user=None)
    assert (answer.status, answer.header("Content-Type")) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def test_counts_of_all_workers_are_added_up_and_outlive_each_of_them(place: KmsPlace) -> None:
    with place.serving(2) as kms:
        client = kms.one_worker()
        assert call(client, "POST", "/kms/v1/keys", {"name": "k", "length": 256}).status == 201
        for each in kms.every_worker():
            (eek,) = json_of(call(each, "GET", "/kms/v1/key/k/_eek", query={"eek_op": "generate"}))
            body = {"name": "k", "iv": eek["iv"], "material": eek["encryptedKeyVersion"]["material"]}
            for _ in range(5):
                call(each, "POST", "/kms/v1/keyversion/k%400/_eek", body, query={"eek_op": "decrypt"})
        call(client, "GET", "/kms/v1/key/k/_eek", query={"eek_op": "generate", "num_keys": "150"})
        call(client, "GET", "/kms/v1/keys/names", user=None)
        found = read(kms)
        assert found["ringfence_kms_requests_total DECRYPT_EEK ok"] == 10
        assert found["ringfence_kms_request_seconds_count DECRYPT_EEK"] == 10
        assert found["ringfence_kms_request_seconds_bucket +Inf DECRYPT_EEK"] == 10
        assert found["ringfence_kms_eeks_decrypted_total"] == 10
        assert found["ringfence_kms_eeks_generated_total"] == 152
        assert found["ringfence_kms_requests_total OTHER unauthenticated"] == 1
        assert found["ringfence_kms_authentications_total none"] == 1
        assert found["ringfence_kms_workers"] == 2
        assert found["ringfence_kms_worker_starts_total"] == 2
        with kms.connect_admin() as admin:
            status = json_of(call(admin, "GET", "/ringfence/v1/status", user=None))
        pid = status["server"]["workers"][0]["pid"]
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + DEADLINE_S
        while found["ringfence_kms_worker_crashes_total"] != 1 or found["ringfence_kms_workers"] != 2:
            assert time.monotonic() < deadline, found
            with suppress(OSError):
                found = read(kms)
        assert found["ringfence_kms_requests_total DECRYPT_EEK ok"] == 10
        assert found["ringfence_kms_eeks_generated_total"] == 152
        assert found["ringfence_kms_worker_starts_total"] == 3


def test_what_is_counted_elsewhere_follows_within_seconds(place: KmsPlace) -> None:
    with place.serving(1) as kms:
        client = kms.one_worker()
        call(client, "POST", "/kms/v1/keys", {"name": "k"})
        for _ in range(5):
            call(client, "GET", "/kms/v1/key/k/_metadata")
        deadline = time.monotonic() + DEADLINE_S
        found = read(kms)
        while not (
            found["ringfence_kms_key_cache_hits_total"] >= 4
            and found["ringfence_kms_key_cache_loads_total"] >= 1
            and found["ringfence_kms_audit_syncs_total"] >= 1
            and found["ringfence_kms_connections"] >= 1
        ):
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
            found = read(kms)
        assert found["ringfence_kms_audit_bytes_total"] > 1000
        assert found["ringfence_kms_store_seconds_count change"] >= 1
        assert found["ringfence_kms_policy_revision"] == 0


def test_no_label_names_a_user_a_key_or_an_address(place: KmsPlace) -> None:
    with place.serving(1) as kms:
        client = kms.one_worker()
        call(client, "POST", "/kms/v1/keys", {"name": "canary-key"}, user="canary-user")
        call(client, "GET", "/kms/v1/key/canary-key/_eek", user="canary-user", query={"eek_op": "generate"})
        with kms.connect() as other:
            text = call(other, "GET", "/metrics", user=None).body
        assert b"GENERATE_EEK" in text
        for secret in (b"canary", b"127.0.0.1"):
            assert secret not in text
