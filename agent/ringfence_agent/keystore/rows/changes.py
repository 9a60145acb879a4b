"""Changes of a store's rows: which key a change is told as one of, and how long one waits for others."""

from __future__ import annotations

KEPT_CHANGES = 512
"""How many of the newest changes are told one by one."""
NO_KEY = ""
"""What a change of no key is told as: one of policy or slots."""
SEVERAL_KEYS = None
"""What a change of more than one key is told as: an import."""
WRITE_WAIT_S = 10.0
"""How long a writer waits for the others before it gives up with StoreUnavailableError."""
