"""Every error Ringfence raises on purpose, as one tree.

    RingfenceError                     message, hint, command
    ├── InputError                     the caller gave something unusable           (exit 2)
    │   ├── PathError                  .path: not a usable HDFS path
    │   ├── PolicyError                .findings: everything wrong with a document
    │   ├── DocumentError              .findings: everything wrong with another kind of document
    │   ├── ConfigError                a configuration file or option cannot be used
    │   ├── MalformedJsonError         a body of the KMS dialect that is not what it should be
    │   └── MissingExtraError          .extra: an optional dependency is not installed
    ├── RefusedError                   .rule: a rule forbids it                      (exit 1)
    │   └── PlanRefusedError           .findings: the plan has problems apply will not pass
    ├── AuthenticationError            who is calling was not proven
    │   └── InvalidTokenError          a delegation token that is not, or no longer, good
    ├── AccessDeniedError              the caller is known and not allowed
    ├── KeyStoreError
    │   ├── KeyExistsError             .key_name
    │   ├── KeyConflictError           .conflicts: keys to import are not those that are here
    │   ├── KeyNotFoundError           .key_name
    │   ├── KeyVersionNotFoundError    .version_name
    │   ├── KeyMismatchError           a key version does not belong to the key
    │   ├── UnconfirmedChangeError     .key_name: the same request changed it before, perhaps unanswered
    │   ├── RevisionConflictError      .expected, .actual: somebody else published first
    │   ├── LeaseHeldError             .lease_name, .holder, .left_s: somebody else has the lease
    │   ├── GrantNotFoundError         .grant_id
    │   ├── UnsupportedByStoreError    this kind of key store cannot do it, and never will by asking again
    │   ├── WrongRootKeyError          the root key does not open this store
    │   ├── StoreTamperedError         the store fails its integrity check
    │   ├── ProtectorRefusedError      .reason: what protects the keys answers no
    │   └── StoreUnavailableError      disk full, locked, unreadable: nothing was changed
    │       ├── KeyChangedError        .key_name: somebody else changed the key at the same moment
    │       ├── StoreUnreachableError  the database server does not answer: the same call may do later
    │       └── ProtectorUnavailableError   .reason: what protects the keys does not answer, is sealed, throttles
    ├── KmsError                       talking to a KMS failed
    │   ├── KmsUnavailableError        no answer, or not now
    │   └── KmsRemoteError             .status, .java_class: it answered with an error
    ├── HdfsError                      talking to HDFS failed
    │   ├── NameNodeUnavailableError
    │   ├── SafeModeError
    │   ├── NoKeyProviderError
    │   ├── HdfsPermissionError
    │   ├── HdfsNotFoundError          a path that does not exist
    │   └── HadoopNotFoundError        no Hadoop jars or Java on this machine
    ├── YarnUnavailableError           no ResourceManager answers
    ├── AgentUnavailableError          the agent's socket does not answer
    ├── TransferError                  a transfer between zones failed; the source is as it was
    │   ├── TransferNotFoundError      no such transfer, or not the caller's
    │   ├── SourceChangedError         the source is not what it was when the transfer began
    │   └── HandsLostError             the process that copies ended or stood still: worth another try
    ├── ReceiptError                   a receipt that nobody should believe
    ├── AwsError                       .code: AWS refuses what was asked for
    │   └── AwsUnavailableError        it does not answer, throttles, or nobody's credentials are found
    ├── SandboxError                   the sandbox cannot be started, used or stopped
    └── InstallError                   a step on this machine failed
        ├── RolledBackError            and everything is as it was
        └── NotRolledBackError         and putting it back failed too

Attributes carry the facts; nothing ever parses a message. Foreign exceptions are translated in the file that
calls the SDK. Exactly three tables turn an error into something a caller outside sees: the KMS's status and
RemoteException (`ringfence_agent.kms.remote_exception`), the agent API's problem document
(`ringfence_agent.api.problems`) and the exit code with its hint (`ringfence_zones.cli.exits`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ringfence_zones.findings import Finding, Rule

_SHOWN_CONFLICTS = 5


class RingfenceError(Exception):
    """Root of the tree: a sentence, and where there is one the way out.

    `hint` says what to do in words; `command` is an exact command that works today. Neither ever holds a secret.
    """

    def __init__(self, message: str, *, hint: str | None = None, command: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.command = command


class InputError(RingfenceError):
    """The caller gave something that cannot be used; nothing was attempted."""


class KeyLengthError(InputError):
    """A length that keys of this cipher cannot have."""


class PathError(InputError):
    """A string that is not a usable HDFS path."""

    def __init__(self, path: str, why: str, *, hint: str | None = None) -> None:
        super().__init__(f"{path!r} {why}", hint=hint)
        self.path = path


class PolicyError(InputError):
    """A policy document with problems: all of them, in document order."""

    def __init__(self, message: str, findings: Sequence[Finding], *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.findings = tuple(findings)


class DocumentError(InputError):
    """A document for AWS that cannot be used, with everything that is wrong with it, in document order."""

    def __init__(self, message: str, findings: Sequence[Finding], *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.findings = tuple(findings)


class ConfigError(InputError):
    """A configuration file or option that cannot be used; names the field and the fix."""


class MalformedJsonError(InputError):
    """JSON of the KMS dialect that cannot be read: not JSON, a field of another type, an IV of another length."""


class MissingExtraError(InputError):
    """A feature whose optional dependency is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the extra '{extra}', which is not installed",
            hint="install it into the same environment",
            command=f"pip install 'ringfence[{extra}]'",
        )
        self.extra = extra


class RefusedError(RingfenceError):
    """A rule forbids what was asked for."""

    def __init__(self, message: str, rule: Rule, *, hint: str | None = None, command: str | None = None) -> None:
        super().__init__(message, hint=hint, command=command)
        self.rule = rule


class PlanRefusedError(RingfenceError):
    """A plan with problems that apply does not pass over; nothing was changed."""

    def __init__(self, message: str, findings: Sequence[Finding], *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.findings = tuple(findings)


class AuthenticationError(RingfenceError):
    """Who is calling was not proven."""


class InvalidTokenError(AuthenticationError):
    """A delegation token that is unknown, cancelled, expired or not what was issued."""


class AccessDeniedError(RingfenceError):
    """The caller is known and not allowed to do this."""


class KeyStoreError(RingfenceError):
    """The key store could not do what was asked."""


class KeyExistsError(KeyStoreError):
    """A key of this name is already there."""

    def __init__(self, key_name: str, where: str, message: str | None = None) -> None:
        super().__init__(message or f"Key {key_name} already exists in {where}")
        self.key_name = key_name


class KeyConflictError(KeyStoreError):
    """Keys to import that are not the keys of that name here. `conflicts` says why, by key name."""

    def __init__(self, conflicts: Mapping[str, str]) -> None:
        reasons = [f"key {name}: {why}" for name, why in sorted(conflicts.items())]
        left_out = len(reasons) - _SHOWN_CONFLICTS
        shown = "; ".join(reasons[:_SHOWN_CONFLICTS]) + (f"; and {left_out} keys more" if left_out > 0 else "")
        super().__init__(
            f"nothing was imported, for some keys are not those that are here: {shown}",
            hint="import into an empty key store, or find out which of the two keys the files were written with",
        )
        self.conflicts = dict(conflicts)


class KeyNotFoundError(KeyStoreError):
    """No key of this name."""

    def __init__(self, key_name: str, message: str | None = None) -> None:
        super().__init__(message or f"Key {key_name} not found")
        self.key_name = key_name


class KeyVersionNotFoundError(KeyStoreError):
    """No such version of a key."""

    def __init__(self, version_name: str) -> None:
        super().__init__(f"'{version_name}' not found")
        self.version_name = version_name


class KeyMismatchError(KeyStoreError):
    """A key version that does not belong to the key it was named with."""

    def __init__(self, version_name: str, key_name: str | None) -> None:
        super().__init__(f"KeyVersion '{version_name}' does not belong to the key '{key_name or 'null'}'")
        self.version_name = version_name
        self.key_name = key_name


class UnconfirmedChangeError(KeyStoreError):
    """The same request changed this key before, and nobody knows yet whether it was answered. Nothing was changed."""

    def __init__(self, key_name: str) -> None:
        super().__init__(f"the same change of key {key_name} was made before, and may not have been answered")
        self.key_name = key_name


class RevisionConflictError(KeyStoreError):
    """Compare-and-set on the published policy lost: read, plan and publish again."""

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(
            f"the published policy is revision {actual}, not {expected}: somebody published in between",
            hint="look at what changed, then run the same command again",
        )
        self.expected = expected
        self.actual = actual


class LeaseHeldError(KeyStoreError):
    """Somebody else holds the lease; it can be taken in `left_s` seconds at the earliest."""

    def __init__(self, lease_name: str, holder: str, left_s: float) -> None:
        super().__init__(
            f"lease {lease_name} is held by {holder} for another {max(left_s, 0):.1f} s at least",
            hint="whoever holds it acts; it is free when its holder stops renewing it, or gives it back",
        )
        self.lease_name = lease_name
        self.holder = holder
        self.left_s = left_s


class GrantNotFoundError(KeyStoreError):
    """No such grant, or one that ended so long ago that it is forgotten."""

    def __init__(self, grant_id: str) -> None:
        super().__init__(f"there is no grant {grant_id}")
        self.grant_id = grant_id


class UnsupportedByStoreError(KeyStoreError):
    """A kind of key store that cannot do this: asking again does not help, another kind of store does."""


class WrongRootKeyError(KeyStoreError):
    """The root key given does not open this store; the store is untouched."""


class StoreTamperedError(KeyStoreError):
    """The store fails its integrity check: rows were changed, removed, swapped or truncated."""


class BackupError(KeyStoreError):
    """A backup cannot be made, read or believed, or restored where it was told to."""


class StoreRollbackError(BackupError):
    """A restore would undo changes: this node has seen the store at a later change number than the backup's."""

    def __init__(
        self, message: str, *, backup_number: int, seen_number: int, hint: str | None = None, command: str | None = None
    ) -> None:
        super().__init__(message, hint=hint, command=command)
        self.backup_number = backup_number
        self.seen_number = seen_number


class StoreUnavailableError(KeyStoreError):
    """The store cannot be read or written now (disk full, locked, permissions).

    Nothing was changed, unless `may_have_changed`: then nobody knows whether a commit was made.
    """

    def __init__(self, message: str, *, hint: str | None = None, may_have_changed: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.may_have_changed = may_have_changed


class KeyChangedError(StoreUnavailableError):
    """Somebody else rolled the key, or made it again, while a change of it was under way: nothing was changed."""

    def __init__(self, key_name: str) -> None:
        super().__init__(f"key {key_name} was changed by somebody else at the same moment; nothing was changed")
        self.key_name = key_name


class StoreUnreachableError(StoreUnavailableError):
    """The database server that holds the store does not answer, or not now: nobody has to mend anything here."""


class ProtectorUnavailableError(StoreUnavailableError):
    """What protects the keys (Vault, AWS KMS) does not answer, is sealed or throttles: the same call may do later.

    `reason` is a stable word for which of them, None where the protector tells no more.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, may_have_changed: bool = False, reason: str | None = None
    ) -> None:
        super().__init__(message, hint=hint, may_have_changed=may_have_changed)
        self.reason = reason


class ProtectorRefusedError(KeyStoreError):
    """What protects the keys answers no: policy, disabled key, pending deletion, wrong context, wrong account.

    Says which of them, and the fix. `reason` is a stable word for it, None where the protector tells no more.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, command: str | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message, hint=hint, command=command)
        self.reason = reason


class KmsError(RingfenceError):
    """Talking to a KMS failed."""


class KmsUnavailableError(KmsError):
    """The KMS does not answer, or says that it cannot now."""


class KmsRemoteError(KmsError):
    """The KMS answered with an error. `java_class` is RemoteException's `javaClassName`, None without one."""

    def __init__(self, message: str, *, status: int, java_class: str | None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.java_class = java_class


class HdfsError(RingfenceError):
    """Talking to HDFS failed."""


class NameNodeUnavailableError(HdfsError):
    """The NameNode does not answer."""


class SafeModeError(HdfsError):
    """The NameNode is in safe mode and takes no changes."""


class NoKeyProviderError(HdfsError):
    """The NameNode has no key provider, so it can make no encryption zone."""


class HdfsPermissionError(HdfsError):
    """HDFS refused this user."""


class HdfsNotFoundError(HdfsError):
    """A path that does not exist."""


class HadoopNotFoundError(HdfsError):
    """No Hadoop jars, configuration or Java on this machine."""


class YarnUnavailableError(RingfenceError):
    """No ResourceManager answers, or not now."""


class AgentUnavailableError(RingfenceError):
    """The agent's socket does not answer."""


class TransferError(RingfenceError):
    """A transfer between zones failed or cannot be made. The source is as it was."""


class TransferNotFoundError(TransferError):
    """No such transfer, or one of somebody else's: the caller is not told which."""


class SourceChangedError(TransferError):
    """The source is not what it was when the transfer began, so what was copied is no copy of it."""


class HandsLostError(TransferError):
    """The process that copies ended or stood still; the transfer is tried again."""


class ReceiptError(RingfenceError):
    """A receipt that nobody should believe: altered, signed by another key, or in contradiction to itself."""


class AwsError(RingfenceError):
    """AWS refuses what was asked for. `code` is AWS's own word for why, empty where it gave none."""

    def __init__(self, message: str, *, code: str = "", hint: str | None = None, command: str | None = None) -> None:
        super().__init__(message, hint=hint, command=command)
        self.code = code


class AwsUnavailableError(AwsError):
    """AWS does not answer, throttles or finds no credentials: the same request may do later."""


class SandboxError(RingfenceError):
    """The sandbox cannot be started, used or stopped; says what stands in the way and the fix."""


class InstallError(RingfenceError):
    """A step that changes this machine failed: a command, a service, a file."""


class RolledBackError(InstallError):
    """A change of several steps failed or was interrupted, and everything is as it was before."""


class NotRolledBackError(InstallError):
    """A change of several steps failed, and so did putting it back: the journal says what is left to do."""
