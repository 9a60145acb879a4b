"""Who may do what: operation ACLs and blacklists from `kms-acls.xml`, key ACLs from the published policy or from there.

Messages are Hadoop's own, word for word: tests and operators match on them. Source: `KMSACLs.assertAccess` and
`KeyAuthorizationKeyProvider`. Nothing is granted by default but what Hadoop grants (an operation without ACL). For a
key that any published revision ever named, its material (operation GET) is refused to everyone: leaving a zone out
of the policy must not hand its old EDEKs to whoever `kms-acls.xml` trusts.

Each decision leaves in `rule` of whoever asked what decided, in a form short enough for every audit line:

    policy:7                                   revision 7 of the published policy, which names the key
    kms-acls.xml:key.acl.k1.DECRYPT_EEK        that property (`none`: no property speaks of the key)
    kms-acls.xml:default:hadoop.kms.acl.GET    Hadoop's default for a property that is not set
    kms-site.xml:hadoop.kms.key.authorization.enable    key ACLs are switched off
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ringfence_agent.kms.authorization.acls import FILE_NAME, Decision, KeyOperation, KmsAcls, Operation
from ringfence_agent.kms.authorization.published import NOTHING_PUBLISHED, PublishedPolicy
from ringfence_zones.access_list import AccessList
from ringfence_zones.errors import AccessDeniedError

_NOBODY = AccessList()
_MEMO_LIMIT = 50_000
_AUTHORIZATION_OFF = "kms-site.xml:hadoop.kms.key.authorization.enable"


class Asker(Protocol):
    """On whose behalf something is decided: a `ringfence_agent.kms.call.Call`. `real_user` acts for `user`."""

    @property
    def user(self) -> str:
        """The short name that the ACLs know."""

    @property
    def real_user(self) -> str | None:
        """The short name of who acts for `user`, None when nobody does."""

    rule: str | None


@dataclass(slots=True)
class Subject:
    """An Asker apart from any request."""

    user: str
    real_user: str | None = None
    rule: str | None = None


class AccessRules:
    """Decides; remembers only what was allowed, until `forget` (called each second, so groups keep their bound)."""

    def __init__(
        self, acls: KmsAcls, groups_of: Callable[[str], frozenset[str]], *, key_authorization: bool = True
    ) -> None:
        self._acls = acls
        self._groups_of = groups_of
        self._key_authorization = key_authorization
        self._allowed: dict[tuple[str, str | None, Operation, str], str | None] = {}
        self.published = NOTHING_PUBLISHED

    def use_acls(self, acls: KmsAcls) -> None:
        """From now on these are the contents of kms-acls.xml."""
        self._acls = acls
        self.forget()

    def use_published(self, published: PublishedPolicy) -> None:
        """From now on this revision is in force."""
        self.published = published
        self.forget()

    def forget(self) -> None:
        """Decides everything anew."""
        self._allowed.clear()

    def is_known(self, asker: Asker, operation: Operation, key: str) -> bool:
        """Whether operation and key ACL were both found to allow this a moment ago: the hot path's one look-up."""
        rule = self._allowed.get((asker.user, asker.real_user, operation, key))
        if rule is None:
            return False
        asker.rule = rule
        return True

    def remember(self, asker: Asker, operation: Operation, key: str) -> None:
        """Records that operation and key ACL both allow this, the latter by the rule it left."""
        if len(self._allowed) >= _MEMO_LIMIT:
            self._allowed.clear()
        self._allowed[asker.user, asker.real_user, operation, key] = asker.rule

    def may_see_material(self, asker: Asker, key: str) -> bool:
        """Whether an answer to this user may hold material of this key. Leaves no rule."""
        return self.decide_material(asker, key).allowed

    def require_operation(self, asker: Asker, name: str, key: str | None, *operations: Operation) -> None:
        """Any of `operations` must be allowed; `name` is Hadoop's KMSOp. Raises AccessDeniedError."""
        decisions = (self.decide_operation(asker, operation) for operation in operations)
        decision = next((each for each in decisions if each.allowed), None)
        # When none allows it, the first is as good a reason as any.
        decision = decision or self.decide_operation(asker, operations[0])
        asker.rule = decision.rule
        if not decision.allowed:
            raise _operation_denied(asker.user, name, key)

    def require_material(self, asker: Asker, name: str, key: str) -> None:
        """Operation GET on a key that no published policy named. Raises AccessDeniedError."""
        decision = self.decide_material(asker, key)
        asker.rule = decision.rule
        if not decision.allowed:
            raise _operation_denied(asker.user, name, key)

    def require_key(self, asker: Asker, key: str, acl_name: str, operation: KeyOperation) -> None:
        """The key ACL of an existing key. Raises AccessDeniedError."""
        decision = self.decide_key(asker, key, acl_name, operation)
        asker.rule = decision.rule
        if not decision.allowed:
            raise AccessDeniedError(
                f"User [{asker.user}] is not authorized to perform [{operation.value}]"
                f" on key with ACL name [{acl_name}]!!"
            )

    def require_creation(self, asker: Asker, key: str, acl_name: str | None) -> None:
        """MANAGEMENT on the name, or on the `key.acl.name` given. Raises AccessDeniedError."""
        decision = self.decide_key(asker, key, acl_name or key, KeyOperation.MANAGEMENT)
        asker.rule = decision.rule
        if not decision.allowed:
            raise AccessDeniedError(f"User [{asker.user}] is not authorized to create key !!")

    @property
    def stores_acl_name(self) -> bool:
        """Whether a created key gets its `key.acl.name`, as Hadoop's server adds it."""
        return self._key_authorization

    def decide_operation(self, asker: Asker, operation: Operation) -> Decision:
        """What the operation ACLs say."""
        return _in_file(self._acls.decide_operation(operation, asker.user, self._groups_of, asker.real_user))

    def decide_material(self, asker: Asker, key: str) -> Decision:
        """What the published policies, then the operation ACLs, say about seeing the key's material."""
        revision = self.published.named.get(key)
        if revision is not None:
            return Decision(False, f"policy:{revision}")
        return self.decide_operation(asker, Operation.GET)

    def decide_key(self, asker: Asker, key: str, acl_name: str, operation: KeyOperation) -> Decision:
        """What the published policy says about a key it names, and what the key ACLs say about every other."""
        grants = self.published.grants.get(key)
        if grants is not None:
            granted = grants.get(operation, _NOBODY).admits(asker.user, self._groups_of, asker.real_user)
            return Decision(granted, self.published.rule)
        if not self._key_authorization:
            return Decision(True, _AUTHORIZATION_OFF)
        return _in_file(self._acls.decide_key(acl_name, operation, asker.user, self._groups_of, asker.real_user))


def _in_file(decision: Decision) -> Decision:
    return Decision(decision.allowed, f"{FILE_NAME}:{decision.rule}")


def _operation_denied(user: str, name: str, key: str | None) -> AccessDeniedError:
    on_key = f" on '{key}'" if key is not None else ""
    return AccessDeniedError(f"User:{user} not allowed to do '{name}'{on_key}")
