"""The name of a zone's key when the policy gives none.

A function of cluster and path alone, so that adding a zone never renames another's key:

1. Lower-case; every run of characters outside `a-z0-9` becomes one `-`; cluster and path are joined by `-`.
2. Where that loses anything but `/`, so that two paths could meet in one name, `-` and the first eight hex digits
   of SHA-256 over the path's UTF-8 bytes follow. `-` inside a path counts as lost: `/a-b` and `/a/b` must differ.

The result says where a key belongs; it is never parsed back.
"""

from __future__ import annotations

import hashlib
import re

from ringfence_zones.paths import HdfsPath

_OTHER = re.compile(r"[^a-z0-9]+")


def derive_key_name(cluster: str, path: HdfsPath) -> str:
    """`("analytics", /data/pii)` gives `analytics-data-pii`; may exceed what a policy takes as a key name."""
    cluster_slug, path_slug = _slug(cluster), _slug("/".join(path.components))
    parts = [part for part in (cluster_slug, path_slug) if part]
    lossless = cluster_slug == cluster and tuple(path_slug.split("-")) == (path.components or ("",))
    if not lossless:
        parts.append(hashlib.sha256(str(path).encode()).hexdigest()[:8])
    return "-".join(parts)


def _slug(text: str) -> str:
    # ASCII only: str.lower() would turn the Kelvin sign into a plain k.
    lowered = "".join(char.lower() if char.isascii() else char for char in text)
    return _OTHER.sub("-", lowered).strip("-")
