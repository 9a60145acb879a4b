"""Who may do what: operation ACLs and blacklists from `kms-acls.xml`, key ACLs from the published policy or from there.

Messages are Hadoop's own, word for word: tests and operators match on them. Source: `KMSACLs.assertAccess` and
`KeyAuthorizationKeyProvider`. Nothing is granted by default but what Hadoop grants (an operation without ACL); for a
key that the published policy names, its material (operation GET) is refused to everyone.
"""

from __future__ import annotations

from collections.abc import Callable

from ringfence_agent.kms.acls import AccessList, KeyOperation, KmsAcls, Operation
from ringfence_agent.kms.published import NOTHING_PUBLISHED, PublishedPolicy
from ringfence_zones.errors import AccessDeniedError

_NOBODY = AccessList()
_MEMO_LIMIT = 50_000


class AccessRules:
    """Decides; remembers only what was allowed, until `forget` (called each second, so groups keep their bound)."""

    def __init__(
        self, acls: KmsAcls, groups_of: Callable[[str], frozenset[str]], *, key_authorization: bool = True
    ) -> None:
        self._acls = acls
        self._groups_of = groups_of
        self._key_authorization = key_authorization
        self._allowed: set[tuple[str, Operation, str]] = set()
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

    def is_known(self, user: str, operation: Operation, key: str) -> bool:
        """Whether operation and key ACL were both found to allow this a moment ago: the hot path's one look-up."""
        return (user, operation, key) in self._allowed

    def remember(self, user: str, operation: Operation, key: str) -> None:
        """Records that operation and key ACL both allow this."""
        if len(self._allowed) >= _MEMO_LIMIT:
            self._allowed.clear()
        self._allowed.add((user, operation, key))

    def has_operation(self, user: str, operation: Operation) -> bool:
        """Whether the operation ACLs let this user do this to some key."""
        return self._acls.allows_operation(operation, user, self._groups_of)

    def may_see_material(self, user: str, key: str) -> bool:
        """Whether an answer to this user may hold material of this key."""
        return key not in self.published.grants and self.has_operation(user, Operation.GET)

    def require_operation(self, user: str, name: str, key: str | None, *operations: Operation) -> None:
        """Any of `operations` must be allowed; `name` is Hadoop's KMSOp. Raises AccessDeniedError."""
        if not any(self.has_operation(user, operation) for operation in operations):
            raise _operation_denied(user, name, key)

    def require_material(self, user: str, name: str, key: str) -> None:
        """Operation GET on a key that the published policy does not name. Raises AccessDeniedError."""
        if not self.may_see_material(user, key):
            raise _operation_denied(user, name, key)

    def require_key(self, user: str, key: str, acl_name: str, operation: KeyOperation) -> None:
        """The key ACL of an existing key. Raises AccessDeniedError."""
        if not self._allows_key(user, key, acl_name, operation):
            raise AccessDeniedError(
                f"User [{user}] is not authorized to perform [{operation.value}] on key with ACL name [{acl_name}]!!"
            )

    def require_creation(self, user: str, key: str, acl_name: str | None) -> None:
        """MANAGEMENT on the name, or on the `key.acl.name` given. Raises AccessDeniedError."""
        if not self._allows_key(user, key, acl_name or key, KeyOperation.MANAGEMENT):
            raise AccessDeniedError(f"User [{user}] is not authorized to create key !!")

    @property
    def stores_acl_name(self) -> bool:
        """Whether a created key gets its `key.acl.name`, as Hadoop's server adds it."""
        return self._key_authorization

    def _allows_key(self, user: str, key: str, acl_name: str, operation: KeyOperation) -> bool:
        grants = self.published.grants.get(key)
        if grants is not None:
            return grants.get(operation, _NOBODY).admits(user, self._groups_of)
        if not self._key_authorization:
            return True
        return self._acls.allows_key(acl_name, operation, user, self._groups_of)


def _operation_denied(user: str, name: str, key: str | None) -> AccessDeniedError:
    on_key = f" on '{key}'" if key is not None else ""
    return AccessDeniedError(f"User:{user} not allowed to do '{name}'{on_key}")
