"""Where things are on a node. One list, because `uninstall` has to find all of it again."""

from __future__ import annotations

from pathlib import Path

HOME = Path("/opt/ringfence")
"""The virtual environment that the bootstrap action makes."""
SHIPPED_UNITS = HOME / "share/ringfence/systemd"
UNITS = Path("/etc/systemd/system")
WAITER_UNIT = "ringfence-bootstrap.service"
KMS_UNIT = "ringfence-kms.service"

SETTINGS = Path("/etc/ringfence")
BOOTSTRAP_CONFIG = SETTINGS / "bootstrap.yaml"
KMS_CONFIG = SETTINGS / "kms.yaml"
KMS_SETTINGS = SETTINGS / "kms-settings.yaml"
KMS_KEYTAB = SETTINGS / "kms.keytab"
CLIENT_CONFIG = SETTINGS / "client.yaml"
TRUST_STORE = SETTINGS / "truststore.jks"

KMS_STATE = Path("/var/lib/ringfence")
KMS_LOGS = Path("/var/log/ringfence")
KMS_USER = "ringfence"

# Not the key server's directory, which is its user's: journals hold commands that root will run.
STATE = Path("/var/lib/ringfence-node")
JOURNALS = STATE / "journal"
STATUS = STATE / "status.json"
TAKEOVER_STATE = Path("/var/lib/ringfence-takeover")
HARDENING_STATE = Path("/var/lib/ringfence-stock-kms")
