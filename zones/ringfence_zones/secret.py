"""Bytes that do not print themselves."""

from __future__ import annotations

import hmac


class Secret:
    """Secret bytes: no `repr`, `str`, pickling or ordering gives them away; `reveal()` is the one way out.

    Equality is constant-time. Python cannot wipe memory that it may have copied, so this class makes no such
    promise; the key server is made non-dumpable instead.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)

    def reveal(self) -> bytes:
        """The bytes themselves. Every call site is a place to review."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        raise TypeError("a Secret is not hashable: a hash is a fingerprint")

    def __repr__(self) -> str:
        return f"<Secret {len(self._value)} bytes>"

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")
