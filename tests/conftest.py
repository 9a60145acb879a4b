"""Fixtures that every suite may ask for; code they share lies in tests/support."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Speed is shown by benchmarks alone: a busy machine fails no test.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

pytest_plugins = [
    "allowed_skips",
    "aws_kms_places",
    "browser",
    "certificates",
    "databases",
    "emr_places",
    "kdc",
    "node_life",
    "sandboxes",
    "secure_clusters",
    "sql_places",
    "vault_doubles",
    # These stand on others above.
    "protector_places",
    "store_places",
]
