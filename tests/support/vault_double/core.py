"""One request's way: body, namespace, mount, quota, token, policy, handler, wrapping; the order of the real servers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vault_double import wrapping
from vault_double.acl import Acl
from vault_double.approle import APPROLE
from vault_double.aws_auth import AWS
from vault_double.backend import FALSE_WORDS, TRUE_WORDS, Backend, Call, Mount, Route, run_route, unsupported_path
from vault_double.clock import Clock
from vault_double.cluster import Cluster, Node
from vault_double.flavour import Flavour
from vault_double.jwt_auth import JWT
from vault_double.kv import KV
from vault_double.policies import PathRules, parse_policy
from vault_double.quotas import QuotaGate
from vault_double.storage import NotActiveError, Storage, View
from vault_double.system import SYSTEM
from vault_double.token_auth import TOKEN
from vault_double.tokens import Token, TokenStore
from vault_double.transit import TRANSIT
from vault_double.wire import Answer, HttpRequest, JsonLimits, RefusedError, Reply, duration_s, parse_body

BACKENDS: dict[str, Backend] = {
    "system": SYSTEM,
    "token": TOKEN,
    "transit": TRANSIT,
    "kv": KV,
    "approle": APPROLE,
    "jwt": JWT,
    "aws": AWS,
}
_OPERATIONS = {"GET": "read", "HEAD": "read", "LIST": "list", "POST": "update", "PUT": "update", "DELETE": "delete"}
_BUILT_IN_MOUNTS = (Mount("sys/", "system", "system_0", "sys"), Mount("auth/token/", "token", "auth_token_0", "token"))
# Paths whose data also stands at the top of the answer, for clients of the first versions.
_DATA_ON_TOP = re.compile(r"sys/(audit|auth|capabilities|mounts|policy|rotate|key-status|wrapping/wrap)\b(?!/acl)")
_UPGRADING = (
    "Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period and will "
    "resume service shortly."
)
_DEFAULT_POLICY = """
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
path "sys/internal/ui/resultant-acl" { capabilities = ["read"] }
path "sys/renew" { capabilities = ["update"] }
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/leases/lookup" { capabilities = ["update"] }
path "cubbyhole/*" { capabilities = ["create", "read", "update", "delete", "list"] }
path "sys/wrapping/wrap" { capabilities = ["update"] }
path "sys/wrapping/lookup" { capabilities = ["update"] }
path "sys/wrapping/unwrap" { capabilities = ["update"] }
"""
_WRAPPING_POLICY = """
path "cubbyhole/response" { capabilities = ["create", "read"] }
path "sys/wrapping/unwrap" { capabilities = ["update"] }
"""


class Core:
    """The server's state and its answers. One request at a time: the storage's lock is held throughout."""

    def __init__(self, flavour: Flavour, clock: Clock) -> None:
        self.flavour = flavour
        self.clock = clock
        self.storage = Storage()
        self.tokens = TokenStore(self.storage, clock, flavour.token_prefix)
        self.quotas = QuotaGate(clock)
        self.cluster = Cluster(flavour, clock, began=clock.now())
        # How long a fresh mount of KV is busy with itself; on real servers, some milliseconds now and then.
        self.kv_upgrade_s = 0.0
        self.root_token = self.tokens.make_root().id
        self._built_in_policies = {
            "default": (_DEFAULT_POLICY, parse_policy(_DEFAULT_POLICY)),
            wrapping.POLICY_NAME: (_WRAPPING_POLICY, parse_policy(_WRAPPING_POLICY)),
        }

    def answer(self, node: Node, request: HttpRequest) -> Answer:
        """What this node answers; never raises."""
        with self.storage.lock:
            try:
                raw = self.cluster.answer_unsealed(node, request)
                if raw is not None:
                    return raw
                return self._answer_as(node, request)
            except RefusedError as refused:
                return refused.answer

    def _answer_as(self, node: Node, request: HttpRequest) -> Answer:
        if self.cluster.is_active(node):
            return self._answer(node, View(self.storage), request)
        if self.flavour.standby_serves_reads:
            try:
                return self._answer(node, View(self.storage, self.cluster.standby_lag_s(), is_active=False), request)
            except NotActiveError:
                pass
        active = self.cluster.get_active()
        if request.headers.get("x-vault-no-request-forwarding", "").lower() == "true":
            return Answer(307, None, {"Location": f"{active.address}/v1/{request.path}"})
        return self._answer(node, View(self.storage), request)

    def _answer(self, node: Node, view: View, request: HttpRequest) -> Answer:
        fields = parse_body(request, JsonLimits(self.flavour.max_json_strings))
        namespace, path = self._resolve_namespace(view, request)
        operation = _operation(request)
        if operation == "update" and path.endswith("/"):
            raise RefusedError(400, "cannot write to a path ending in '/'")
        if operation in ("read", "list", "delete"):
            fields = {name: value for name, value in request.query.items() if name != "list"}
        mount = self._find_mount(view, namespace, path)
        self.quotas.check(view, namespace + path, request.peer)
        found = self._find_route(mount, operation, path)
        store = view.below(f"data/{mount.uuid}/") if mount else view
        call = Call(
            self,
            node,
            request,
            namespace,
            mount or _BUILT_IN_MOUNTS[0],
            store,
            operation,
            fields,
            found[1] if found else {},
            None,
        )
        if found and operation == "update" and found[0].exists is not None and not found[0].exists(call):
            call.operation = "create"
        if not (found and found[0].is_login):
            self._authorize(call, namespace, path, found[0] if found else None)
        if mount is None:
            raise RefusedError(404, f'no handler for route "{path}". route entry not found.')
        if found is None:
            raise unsupported_path()
        if mount.kind == "kv" and self.clock.now() < mount.made_at + self.kv_upgrade_s:
            raise RefusedError(400, _UPGRADING)
        return self._finish(call, path, run_route(found[0], call))

    def _find_route(self, mount: Mount | None, operation: str, path: str) -> tuple[Route, dict[str, str]] | None:
        if mount is None:
            return None
        if not self.flavour.has_soft_delete and path.endswith(("/soft-delete", "/soft-delete-restore")):
            return None
        # A list looks like a directory: a path that is a name does not match it.
        routed = path.rstrip("/") + "/" if operation == "list" else path
        return BACKENDS[mount.kind].find_route(routed.removeprefix(mount.path))

    def _finish(self, call: Call, path: str, reply: Reply) -> Answer:
        wrap_ttl = call.request.headers.get("x-vault-wrap-ttl")
        if wrap_ttl and not reply.is_empty and reply.status == 200:
            reply = wrapping.wrap_reply(call, reply, duration_s(wrap_ttl), path)
        if reply.is_empty:
            return Answer(204)
        body = reply.envelope()
        if _DATA_ON_TOP.match(path) and reply.data is not None:
            body = reply.data | body
        return Answer(reply.status, body)

    def _authorize(self, call: Call, namespace: str, path: str, found: Route | None) -> None:
        token = self.tokens.find(call.request.token)
        if token is None:
            raise RefusedError(403, *self.flavour.dead_token_errors)
        if not token.may_come_from(call.request.peer) or not namespace.startswith(token.role.namespace):
            raise RefusedError(403, *self.flavour.dead_token_errors)
        acl = self.acl_of(token, call.view)
        acl_path = namespace.removeprefix(token.role.namespace) + path
        if call.operation == "list":
            acl_path = acl_path.rstrip("/") + "/"
        allowed = acl.allows(call.operation, acl_path, call.data)
        if found is not None and found.needs_sudo and not acl.has_sudo(acl_path):
            allowed = False
        self.tokens.use(token)
        if not allowed:
            raise RefusedError(403, *self.flavour.no_policy_errors)
        call.token = token

    def acl_of(self, token: Token, view: View) -> Acl:
        """The token's rules; a policy that is gone counts as none."""
        if token.is_root:
            return Acl({}, is_root=True)
        named = (self.find_policy(view, token.role.namespace, name) for name in token.role.policies)
        return Acl.of(rules for _, rules in (policy for policy in named if policy is not None))

    def find_policy(self, view: View, namespace: str, name: str) -> tuple[str, tuple[PathRules, ...]] | None:
        """Text and rules, or None."""
        written: tuple[str, tuple[PathRules, ...]] | None = view.get(self.policy_key(namespace, name))
        return written or self._built_in_policies.get(name)

    @staticmethod
    def policy_key(namespace: str, name: str) -> str:
        return f"ns/{namespace}policy:{name}"

    @staticmethod
    def mount_key(namespace: str, path: str) -> str:
        return f"ns/{namespace}mount:{path}"

    @staticmethod
    def built_in_mounts(_namespace: str) -> tuple[Mount, ...]:
        return _BUILT_IN_MOUNTS

    def mounts(self, view: View, namespace: str) -> Iterator[Mount]:
        """Those that somebody mounted in this namespace."""
        prefix = self.mount_key(namespace, "")
        for path in view.names(prefix):
            yield view.get(prefix + path)

    def is_mounted(self, view: View, path: str) -> bool:
        """Whether a path, with its namespace before it, lies in a mount or is one."""
        namespace = self._namespace_of(view, path)
        return self._find_mount(view, namespace, path.removeprefix(namespace).rstrip("/") + "/") is not None

    def _find_mount(self, view: View, namespace: str, path: str) -> Mount | None:
        mounts = [*_BUILT_IN_MOUNTS, *self.mounts(view, namespace)]
        fitting = [mount for mount in mounts if f"{path}/".startswith(mount.path)]
        return max(fitting, key=lambda mount: len(mount.path), default=None)

    def _resolve_namespace(self, view: View, request: HttpRequest) -> tuple[str, str]:
        given = request.headers.get("x-vault-namespace", "").strip("/")
        base = f"{given}/" if given and given != "root" else ""
        if base and view.get(f"namespace/{base}") is None:
            raise RefusedError(404, "namespace not found")
        full = base + request.path
        inside = self._namespace_of(view, full)
        return inside, full.removeprefix(inside)

    @staticmethod
    def _namespace_of(view: View, path: str) -> str:
        return max((name for name in view.names("namespace/") if path.startswith(name)), key=len, default="")


def _operation(request: HttpRequest) -> str:
    if request.method == "PATCH":
        raise RefusedError(400, "mime: no media type")  # No path here can be patched.
    operation, lists = _OPERATIONS[request.method], request.query.get("list", "")
    if lists not in TRUE_WORDS | FALSE_WORDS:
        raise RefusedError(400)
    return "list" if operation == "read" and lists in TRUE_WORDS else operation
