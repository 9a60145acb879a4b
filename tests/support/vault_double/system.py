"""The paths below `sys/`: mounts, login methods, policies, capabilities, namespaces, quotas, wrapping, sealing."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from vault_double import lockout, quotas, wrapping
from vault_double.backend import Backend, Call, Mount, route
from vault_double.policies import parse_policy
from vault_double.tokens import random_name
from vault_double.transit import random_bytes
from vault_double.wire import PERMISSION_DENIED, RefusedError, Reply, duration_s, in_multierror

ENGINES = ("kv", "transit")
LOGIN_METHODS = ("approle", "jwt")
_SYSTEM_TTL_S = 768 * 3600
_POLICY = r"(?P<name>[^/]+)"
_PATH = r"(?P<path>.+?)/?"


def list_mounts(call: Call) -> dict[str, Any]:
    return _describe_all(call, "")


def list_auth(call: Call) -> dict[str, Any]:
    return _describe_all(call, "auth/")


def _describe_all(call: Call, above: str) -> dict[str, Any]:
    mounts = [*call.core.built_in_mounts(call.namespace), *call.core.mounts(call.view, call.namespace)]
    wanted = [mount for mount in mounts if mount.path.startswith("auth/") == bool(above)]
    return {mount.path.removeprefix(above): _describe(call, mount) for mount in wanted}


def _describe(call: Call, mount: Mount) -> dict[str, Any]:
    return {
        "accessor": mount.accessor,
        "config": _tuning(mount) | {"force_no_cache": False},
        "description": mount.description,
        "external_entropy_access": False,
        "local": False,
        "options": mount.options,
        "plugin_version": "",
        "running_plugin_version": f"v{call.core.flavour.version}+builtin.bao",
        "running_sha256": "",
        "seal_wrap": False,
        "type": mount.kind,
        "uuid": mount.uuid,
    }


def mount_engine(call: Call) -> None:
    if call.names["path"].split("/")[0] in ("sys", "auth", "cubbyhole", "identity"):
        raise RefusedError(400, f'cannot mount "{call.names["path"]}/"')
    kind, options = call.text("type"), call.data.get("options")
    if kind == "kv-v2":
        kind, options = "kv", {"version": "2"}
    _mount(call, call.names["path"] + "/", kind, ENGINES, options if isinstance(options, dict) else None)


def mount_auth(call: Call) -> None:
    known = (*LOGIN_METHODS, "aws") if call.core.flavour.has_aws_auth else LOGIN_METHODS
    _mount(call, f"auth/{call.names['path']}/", call.text("type"), known, None)


def _mount(call: Call, path: str, kind: str, known: tuple[str, ...], options: dict[str, str] | None) -> None:
    if not kind:
        raise RefusedError(400, "backend type must be specified as a string")
    if kind not in known:
        raise RefusedError(400, f"plugin not found in the catalog: {kind}")
    if kind == "kv" and str((options or {}).get("version", "1")) != "2":
        raise RefusedError(400, "the double has only version 2 of kv")
    for mount in call.core.mounts(call.view, call.namespace):
        if mount.path.startswith(path) or path.startswith(mount.path):
            raise RefusedError(400, f"path is already in use at {mount.path.removeprefix('auth/')}")
    config = call.data.get("config")
    mount = Mount(
        path,
        kind,
        f"{'auth_' if path.startswith('auth/') else ''}{kind}_{random_name(8).lower()}",
        str(uuid.uuid4()),
        options,
        call.text("description"),
        config if isinstance(config, dict) else {},
        call.core.clock.now(),
    )
    call.view.put(call.core.mount_key(call.namespace, path), mount)


def read_mount(call: Call) -> dict[str, Any]:
    path = f"{call.names['path']}/"
    return _describe(call, _get_mount(call, path, f"No secret engine mount at {path}"))


def read_auth(call: Call) -> dict[str, Any]:
    path = call.names["path"]
    return _describe(call, _get_mount(call, f"auth/{path}/", f"No auth engine at {path}/"))


def unmount_engine(call: Call) -> None:
    _unmount(call, f"{call.names['path']}/")


def unmount_auth(call: Call) -> None:
    _unmount(call, f"auth/{call.names['path']}/")


def _unmount(call: Call, path: str) -> None:
    """204, whether it was mounted or not."""
    mount = call.view.get(call.core.mount_key(call.namespace, path))
    if mount is not None:
        call.view.below(f"data/{mount.uuid}/").clear()
        call.view.delete(call.core.mount_key(call.namespace, path))


def read_mount_tuning(call: Call) -> dict[str, Any]:
    return _read_tuning(call, f"{call.names['path']}/")


def read_auth_tuning(call: Call) -> dict[str, Any]:
    return _read_tuning(call, f"auth/{call.names['path']}/")


def tune_mount(call: Call) -> None:
    _tune(call, f"{call.names['path']}/")


def tune_auth(call: Call) -> None:
    _tune(call, f"auth/{call.names['path']}/")


def _read_tuning(call: Call, path: str) -> dict[str, Any]:
    mount = _get_mount(call, path, f'cannot fetch sysview for path "{path}"')
    data = _effective_ttls(mount) | {"description": mount.description, "force_no_cache": False}
    if mount.options:
        data["options"] = mount.options
    config = mount.tuning.get("user_lockout_config")
    if config:
        data |= {
            "user_lockout_counter_reset_duration": int(duration_s(config.get("lockout_counter_reset_duration", 0))),
            "user_lockout_disable": bool(config.get("lockout_disable")),
            "user_lockout_duration": int(duration_s(config.get("lockout_duration", 0))),
            "user_lockout_threshold": int(config.get("lockout_threshold", 0)),
        }
    return data


def _effective_ttls(mount: Mount) -> dict[str, Any]:
    return {name: value or _SYSTEM_TTL_S if name.endswith("ttl") else value for name, value in _tuning(mount).items()}


def _tuning(mount: Mount) -> dict[str, Any]:
    ttls = {name: int(duration_s(mount.tuning.get(name, 0))) for name in ("default_lease_ttl", "max_lease_ttl")}
    return ttls | ({"token_type": "default-service"} if mount.path.startswith("auth/") else {})


def _tune(call: Call, path: str) -> None:
    mount = _get_mount(call, path, f'tune of path "{path}" failed: no mount entry found')
    for name in ("default_lease_ttl", "max_lease_ttl"):
        call.seconds(name)
    if not isinstance(call.data.get("user_lockout_config"), dict | None):
        raise call.invalid("user_lockout_config", call.data["user_lockout_config"])
    tuned = {name: value for name, value in call.data.items() if name not in ("path", "description")}
    mount = replace(mount, tuning={**mount.tuning, **tuned}, description=call.text("description", mount.description))
    call.view.put(call.core.mount_key(call.namespace, path), mount)


def _get_mount(call: Call, path: str, missing: str) -> Mount:
    mount: Mount | None = call.view.get(call.core.mount_key(call.namespace, path))
    if mount is None:
        raise RefusedError(400, missing)
    return mount


def write_policy(call: Call) -> None:
    name, text = call.name.lower(), call.text("policy") or call.text("rules")
    if name in ("root", wrapping.POLICY_NAME):
        raise RefusedError(400, f'cannot update "{name}" policy')
    if not text:
        raise RefusedError(400, "'policy' parameter not supplied or empty")
    call.view.put(call.core.policy_key(call.namespace, name), (text, parse_policy(text)))


def read_policy(call: Call) -> dict[str, Any] | None:
    text = _policy_text(call)
    return None if text is None else {"name": call.name.lower(), "policy": text}


def read_policy_as_rules(call: Call) -> dict[str, Any] | None:
    text = _policy_text(call)
    return None if text is None else {"name": call.name.lower(), "rules": text}


def _policy_text(call: Call) -> str | None:
    if call.name.lower() == "root":
        return ""
    found = call.core.find_policy(call.view, call.namespace, call.name.lower())
    return None if found is None else found[0]


def delete_policy(call: Call) -> None:
    if call.name.lower() in ("root", "default"):
        name = call.name.lower()
        raise RefusedError(
            400, f"cannot delete {name} policy" if name == "default" else f'cannot delete "{name}" policy'
        )
    call.view.delete(call.core.policy_key(call.namespace, call.name.lower()))


def list_policies(call: Call) -> dict[str, Any]:
    names = {*call.view.names(call.core.policy_key(call.namespace, "")), "default"}
    names |= set() if call.namespace else {"root"}
    return {"keys": sorted(names)}


def list_policies_as_policies(call: Call) -> dict[str, Any]:
    names = list_policies(call)["keys"]
    return {"keys": names, "policies": names}


def capabilities_of_self(call: Call) -> dict[str, Any]:
    if call.token is None:
        raise RefusedError(403, PERMISSION_DENIED)
    return _capabilities(call, call.token.id)


def capabilities_of(call: Call) -> dict[str, Any]:
    return _capabilities(call, call.text("token"))


def _capabilities(call: Call, identity: str) -> dict[str, Any]:
    token, paths = call.core.tokens.find(identity), call.strings("paths") or call.strings("path")
    if token is None:
        raise RefusedError(400, in_multierror("invalid token"))
    if not paths:
        raise RefusedError(400, "paths must be supplied")
    acl = call.core.acl_of(token, call.view)
    below = call.namespace.removeprefix(token.role.namespace)
    found: dict[str, Any] = {path: acl.capabilities(below + path.removeprefix("/")) for path in paths}
    return found | ({"capabilities": found[paths[0]]} if len(paths) == 1 else {})


def make_namespace(call: Call) -> dict[str, Any]:
    name = call.names["path"]
    if "/" in name:
        raise RefusedError(400, "namespace name cannot contain /")
    if name in ("root", "sys", "auth", "cubbyhole", "identity"):
        raise RefusedError(400, f'"{name}/" is a reserved path and cannot be used as a namespace name')
    path = f"{call.namespace}{call.names['path']}/"
    known = call.view.get(f"namespace/{path}") or {
        "custom_metadata": {},
        "locked": False,
        "tainted": False,
        "id": random_name(6),
        "path": path,
        "uuid": str(uuid.uuid4()),
    }
    call.view.put(f"namespace/{path}", known)
    return dict(known)


def read_namespace(call: Call) -> dict[str, Any] | None:
    found: dict[str, Any] | None = call.view.get(f"namespace/{call.namespace}{call.names['path']}/")
    return found


def delete_namespace(call: Call) -> Reply:
    path = f"{call.namespace}{call.names['path']}/"
    if call.view.get(f"namespace/{path}") is None:
        return Reply(warnings=["requested namespace does not exist"])
    for mount in call.core.mounts(call.view, path):
        call.view.below(f"data/{mount.uuid}/").clear()
    call.view.below(f"ns/{path}").clear()
    call.view.delete(f"namespace/{path}")
    return Reply({"status": "in-progress"})


def list_namespaces(call: Call) -> dict[str, Any] | None:
    names = [name for name in call.view.names(f"namespace/{call.namespace}") if name.count("/") == 1]
    return {"keys": names} if names else None


def seal(call: Call) -> None:
    """The node that is asked, standby or not."""
    call.core.cluster.seal(call.node)


def step_down(call: Call) -> None:
    call.core.cluster.step_down()


def list_audit_devices(call: Call) -> dict[str, Any]:
    return {}


def refuse_audit(call: Call) -> Reply:
    raise RefusedError(
        400, "cannot enable audit device via API; use declarative, config-based audit device management instead"
    )


SYSTEM = Backend(
    (
        route("mounts/?", read=list_mounts),
        route("mounts/(?P<path>.+?)/tune", None, read=read_mount_tuning, update=tune_mount),
        route(f"mounts/{_PATH}", None, read=read_mount, update=mount_engine, delete=unmount_engine),
        route("auth/?", read=list_auth),
        route("auth/(?P<path>.+?)/tune", None, read=read_auth_tuning, update=tune_auth),
        route(f"auth/{_PATH}", None, read=read_auth, update=mount_auth, delete=unmount_auth),
        route("policies/acl/?", list=list_policies),
        route(f"policies/acl/{_POLICY}", "name policy", read=read_policy, update=write_policy, delete=delete_policy),
        route("policy/?", read=list_policies_as_policies, list=list_policies_as_policies),
        route(
            f"policy/{_POLICY}",
            "name policy rules",
            read=read_policy_as_rules,
            update=write_policy,
            delete=delete_policy,
        ),
        route("capabilities-self", "token path paths", update=capabilities_of_self),
        route("capabilities", "token path paths", update=capabilities_of),
        route("namespaces/?", list=list_namespaces),
        route(f"namespaces/{_PATH}", None, read=read_namespace, update=make_namespace, delete=delete_namespace),
        route("quotas/config", None, read=quotas.read_quota_config, update=quotas.write_quota_config),
        route("quotas/rate-limit/?", list=quotas.list_quotas),
        route(
            f"quotas/rate-limit/{_POLICY}",
            None,
            read=quotas.read_quota,
            update=quotas.write_quota,
            delete=quotas.delete_quota,
        ),
        route("locked-users/(?P<accessor>[^/]+)/unlock/(?P<alias>.+)", None, update=lockout.unlock),
        route("tools/random(?:/(?P<bytes>[0-9]+))?", "bytes format source", update=random_bytes),
        route("wrapping/wrap", None, update=wrapping.wrap),
        route("wrapping/lookup", "token", is_login=True, update=wrapping.look_up, read=wrapping.look_up),
        route("wrapping/unwrap", "token", is_login=True, update=wrapping.unwrap),
        route("wrapping/rewrap", "token", update=wrapping.rewrap),
        route("seal", update=seal, needs_sudo=True),
        route("step-down", update=step_down, needs_sudo=True),
        route("audit/?", read=list_audit_devices, needs_sudo=True),
        route("audit/(?P<path>.+)", None, update=refuse_audit, needs_sudo=True),
    )
)
