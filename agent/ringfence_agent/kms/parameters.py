"""Parameter checks with Hadoop's messages (`org.apache.hadoop.util.KMSUtil.checkNotNull` and `checkNotEmpty`)."""

from __future__ import annotations

import functools

from ringfence_agent.http.request import Request
from ringfence_agent.kms.key_cache import CachedKey, KeyCache
from ringfence_agent.kms.routes import MAX_NAME_CHARS
from ringfence_zones.errors import InputError
from ringfence_zones.keys import split_version_name

# The same few version names come with every open of a file.
_split = functools.lru_cache(maxsize=8192)(split_version_name)


def require(value: str | None, name: str) -> str:
    """The value of a parameter that must be there. Raises InputError."""
    if value is None:
        raise InputError(f"Parameter '{name}' cannot be null")
    return value


def require_text(value: str | None, name: str) -> str:
    """The value of a parameter that must be there and not empty. Raises InputError."""
    text = require(value, name)
    if not text:
        raise InputError(f"Parameter '{name}' cannot be empty")
    return text


def json_body(request: Request) -> bytes:
    """The body of a request that says it carries JSON. Raises InputError.

    Hadoop's server refuses other types too; a web page can make a browser send those to another site.
    """
    content_type = request.headers.get(b"content-type", b"")
    if not content_type.startswith(b"application/json") and not content_type.lower().startswith(b"application/json"):
        raise InputError("the body must come with the Content-Type application/json")
    return request.body


def check_name(name: str | None) -> str | None:
    """The key name in a body, when it is short enough to be logged and looked up. Raises InputError."""
    if name is not None and len(name) > MAX_NAME_CHARS:
        raise InputError(f"a key name has at most {MAX_NAME_CHARS} characters")
    return name


def find_version(keys: KeyCache, version_name: str) -> tuple[CachedKey, int] | None:
    """The key and the number of an existing key version. Raises Unready."""
    split = _split(version_name)
    key = keys.find(split[0]) if split is not None else None
    if split is None or key is None or split[1] not in key.numbers:
        return None
    return key, split[1]
