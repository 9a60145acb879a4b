"""What a database server's errors mean to whoever runs a key server: one sentence and one fix for each cause.

The engines map their codes to causes. The server's own text is used for nothing but a connection that was never made,
since elsewhere it may quote values.
"""

from __future__ import annotations

from enum import Enum, auto

from ringfence_agent.keystore.rows.changes import WRITE_WAIT_S
from ringfence_agent.keystore.sql.database import Called
from ringfence_zones.errors import KeyStoreError, StoreTamperedError, StoreUnavailableError, StoreUnreachableError

SERVER_RESTORE_HINT = "stop the key servers, keep the database as it is, and restore it from the newest backup"
KEY_STORE = Called("key store", SERVER_RESTORE_HINT)


class Cause(Enum):
    """Why a statement or a connection failed, other than by a connection that was lost.

    UNREACHABLE is what passes by itself or at the server: a start waits for it, and for nothing else of these.
    """

    LOCKED = auto()
    CONFLICT = auto()
    FULL = auto()
    READ_ONLY = auto()
    REFUSED = auto()
    NO_DATABASE = auto()
    NO_RIGHTS = auto()
    DAMAGED = auto()
    NO_TLS = auto()
    UNREACHABLE = auto()


_SENTENCES: dict[Cause, tuple[str, str | None]] = {
    Cause.LOCKED: (
        f"stayed locked by someone else for {WRITE_WAIT_S:g} s; nothing was changed",
        "find the session that holds it in the server's list of sessions",
    ),
    Cause.CONFLICT: ("was changed by others at the same time; nothing was changed", "try again"),
    Cause.FULL: ("has no space left on its server; nothing was changed", "free space; the store goes on by itself"),
    Cause.READ_ONLY: ("cannot be written: its server is a replica, or read-only", "name the primary in --keystore"),
    Cause.REFUSED: (
        "refuses this user or password",
        "check the user in the URI, keystore_password_file, and who the server lets in from this machine",
    ),
    Cause.NO_DATABASE: ("is on a server without that database", "make it first, owned by the user in the URI"),
    Cause.NO_RIGHTS: ("does not give this user the rights it needs", "make the user the owner of the database"),
    Cause.DAMAGED: ("is damaged or was changed by something else", SERVER_RESTORE_HINT),
    Cause.NO_TLS: (
        "cannot be reached over TLS",
        "give the server a certificate for the name in the URI, and name its CA there with tls_ca",
    ),
    Cause.UNREACHABLE: ("cannot be reached", "see whether the server runs and the network lets this machine through"),
}


def explain(label: str, cause: Cause | None, detail: str, called: Called = KEY_STORE) -> KeyStoreError:
    """`detail` is the engine's code, or the client's reason for a connection that was never made."""
    if cause is None:
        return StoreUnavailableError(f"{called.kind} {label} could not be used ({detail}); nothing was changed")
    sentence, hint = _SENTENCES[cause]
    kinds: dict[Cause, type[StoreTamperedError | StoreUnavailableError]]
    kinds = {Cause.DAMAGED: StoreTamperedError, Cause.UNREACHABLE: StoreUnreachableError}
    kind = kinds.get(cause, StoreUnavailableError)
    return kind(
        f"{called.kind} {label} {sentence} ({detail})", hint=called.when_damaged if cause is Cause.DAMAGED else hint
    )
