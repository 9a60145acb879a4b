"""Fixtures that every suite may ask for; code they share lies in tests/support."""

from __future__ import annotations

pytest_plugins = [
    "allowed_skips",
    "aws_kms_places",
    "browser",
    "certificates",
    "databases",
    "kdc",
    "sandboxes",
    "secure_clusters",
    "vault_doubles",
    # These stand on others above.
    "protector_places",
    "store_places",
]
