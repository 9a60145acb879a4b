"""What an answer of Vault's other than success means, without a word of what it says.

Any body of Vault's may hold plaintext, even with status 400 or 500 (a batch in which one item failed), so a body is
looked at here for phrases that are known and then dropped: an error says what we know, never what was sent.

Two kinds come out: `ProtectorUnavailableError` when the same call may do later, and `VaultRefusedError` when it will
not before somebody changes something. The phrases are those of OpenBao 2.6; Vault's are the same where both have them.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence

from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError


class Reason(enum.StrEnum):
    """Why a request was refused, as far as that is known: a stable word, and the phrase Vault says it with."""

    phrase: str

    def __new__(cls, word: str, phrase: str) -> Reason:
        member = str.__new__(cls, word)
        member._value_ = word
        member.phrase = phrase
        return member

    ALREADY_MOUNTED = "already_mounted", "path is already in use at"
    AUTHENTICATION_FAILED = "authentication_failed", "message authentication failed"
    CAS_LOST = "cas_lost", "check-and-set parameter did not match the current version"
    CAS_REQUIRED = "cas_required", "check-and-set parameter required for this call"
    DELETION_NOT_ALLOWED = "deletion_not_allowed", "deletion is not allowed for this key"
    INVALID_CIPHERTEXT = "invalid_ciphertext", "invalid ciphertext"
    INVALID_LOGIN = "invalid_login", "invalid role or secret ID"
    INVALID_JWT = "invalid_jwt", "error validating token"
    KEY_ALREADY_DELETED = "key_already_deleted", "could not delete key; not found"
    KEY_NOT_FOUND = "key_not_found", "key not found"
    NAMESPACE_UNKNOWN = "namespace_unknown", "namespace not found"
    NO_PLUGIN = "no_plugin", "plugin not found in the catalog"
    NO_ROUTE = "no_route", "no handler for route"
    NOT_RENEWABLE = "not_renewable", "cannot be renewed"
    PREPARING = "preparing", "will resume service shortly"
    SOFT_DELETED = "soft_deleted", "refusing to use soft-deleted key"
    TOO_COMPLEX = "too_complex", "high complexity"
    TOO_LARGE = "too_large", "value being too large"
    VERSION_TOO_NEW = "version_too_new", "version is too new"
    VERSION_TOO_OLD = "version_too_old", "disallowed by policy (too old)"
    WRAPPING_TOKEN_SPENT = "wrapping_token_spent", "wrapping token is not valid or does not exist"


# A 500 that stays one however often it is asked.
_LASTING_500 = {Reason.SOFT_DELETED, Reason.TOO_LARGE}
# The server was not asked to do anything: it is sealed, throttles, cannot reach the active node, or left the cluster.
_NOT_NOW = {301, 302, 303, 307, 308, 412, 429, 472, 473, 474, 501, 503, 530}
# These may come after the fact: a rotation can succeed and answer 500.
_UNCERTAIN = {500, 502, 504}
_WORDS = {
    400: "it is preparing what was just mounted",
    307: "it answers with a redirect, which is never followed with a token",
    412: "it is not in step yet",
    429: "it throttles",
    472: "it is a disaster recovery secondary",
    473: "it is a performance standby",
    474: "it is a standby that cannot reach the active node",
    501: "it is not initialised",
    503: "it is sealed, or is not taking requests",
    530: "it was removed from its cluster",
}
_REASONS = {429: "throttled", 501: "uninitialised", 503: "sealed"}
_HINTS = {
    501: "initialise and unseal it",
    503: "unseal it: what is waiting then goes on by itself",
    500: "every call failing while sys/health answers 200 is what a full or blocked audit device looks like",
}
POLICY_HINT = "`ringfence vault policy` prints what the key server needs; `ringfence doctor vault` says what is missing"
_REDIRECT_HINT = "name the address of each node itself, https and without a path, in vault.addresses"


class VaultRefusedError(ProtectorRefusedError):
    """Vault answers no. `status` is HTTP's; `reason` a `Reason`, None when its words are none that are known here."""

    def __init__(self, message: str, *, status: int, reason: Reason | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, reason=reason)
        self.status = status


def find_reason(body: bytes) -> Reason | None:
    """The reason in an error answer `{"errors": [...]}`; None when there is none that is known."""
    texts = _error_texts(body)
    return next((reason for reason in Reason if any(reason.phrase in text for text in texts)), None)


def is_unavailable(status: int, body: bytes) -> bool:
    """Whether the same request may do later, or at another node."""
    if status == 400:
        # A KV engine in its first moments.
        return find_reason(body) is Reason.PREPARING
    return status in _NOT_NOW | _UNCERTAIN and not (status == 500 and find_reason(body) in _LASTING_500)


def unavailable(node: str, status: int, *, changes: bool) -> ProtectorUnavailableError:
    """The error of an answer that is `is_unavailable`. `changes`: the request was to change something."""
    redirected = 300 <= status < 400
    words = _WORDS[307] if redirected else _WORDS.get(status, f"it fails with status {status}")
    return ProtectorUnavailableError(
        f"Vault at {node} does not do what it was asked: {words}",
        hint=_REDIRECT_HINT if redirected else _HINTS.get(status),
        may_have_changed=changes and status in _UNCERTAIN,
        reason=_REASONS.get(status),
    )


def refused(what: str, status: int, body: bytes) -> VaultRefusedError:
    """The error of any other answer but success; `what` is method and path."""
    reason = find_reason(body)
    why = _sentence(status, reason)
    return VaultRefusedError(f"Vault refuses {what}: {why}", status=status, reason=reason, hint=_hint(status, reason))


def _error_texts(body: bytes) -> Sequence[str]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    errors = document.get("errors") if isinstance(document, dict) else None
    return [text for text in errors if isinstance(text, str)] if isinstance(errors, list) else ()


def _sentence(status: int, reason: Reason | None) -> str:
    if status == 403:
        return "its policy does not allow it"
    if reason is not None:
        return reason.phrase
    return {404: "there is no such thing", 405: "it knows no such operation", 413: "it is too large"}.get(
        status, f"status {status}, for a reason that is not shown because an answer can hold plaintext"
    )


def _hint(status: int, reason: Reason | None) -> str | None:
    if status == 403:
        return POLICY_HINT
    if reason is Reason.NO_PLUGIN:
        return "OpenBao has no AWS login: use approle or jwt (vault.auth.method in kms.yaml)"
    if reason in (Reason.NO_ROUTE, Reason.NAMESPACE_UNKNOWN):
        return "are vault.namespace and the mounts in kms.yaml right? `ringfence vault setup` makes what is missing"
    if reason is None and status in (400, 500):
        return "Vault's audit log names this request by its path and time"
    return None
