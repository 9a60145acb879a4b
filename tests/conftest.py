"""Fixtures that every suite may ask for; code they share lies in tests/support."""

from __future__ import annotations

pytest_plugins = [
    "allowed_skips",
    "aws_kms_places",
    "certificates",
    "databases",
    "kdc",
    "sandboxes",
    "secure_clusters",
    "store_places",
    "vault_doubles",
]
