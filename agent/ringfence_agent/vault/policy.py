"""The least that each part of Ringfence needs in Vault, as HCL.

Four roles (they were tried on a real server, what they allow and what they deny):

- `service`    encrypts, decrypts and rewraps with the cluster's keys and reads its records; makes and changes nothing.
- `generator`  a service for NameNodes alone: it can make new data keys and open none.
- `keyadmin`   makes, rolls and disables keys and writes their records; has no plaintext.
- `destroyer`  for a person and a moment, given to no program: destroys keys. Nobody else can.

Rules: `encrypt` gets `update` and never `create`, so that a misspelled name makes no key; `+` stands for one segment,
for a trailing `*` under `keys/` would reach `rotate` and `config` too; nobody may export or back up a key, or delete a
record. What a key may be made as is bounded where it is said. That it must be said (`required_parameters`) is not asked
for: Vault would then refuse to show a key to whoever may make one, for a read says nothing. A key that was made with
something left out is refused wherever it is used (`transit_keys`).

The built-in `default` policy is not used: it allows what nobody needs, and costs Vault up to a millisecond a request.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from ringfence_agent.vault.settings import VaultSettings
from ringfence_agent.vault.transit_keys import KEY_TYPE


class PolicyRole(enum.StrEnum):
    """Who gets a policy; the value is the word on the command line."""

    SERVICE = "service"
    GENERATOR = "generator"
    KEYADMIN = "keyadmin"
    DESTROYER = "destroyer"


_MEANINGS = {
    PolicyRole.SERVICE: "wraps and unwraps with the cluster's keys, and reads its records",
    PolicyRole.GENERATOR: "makes data keys for NameNodes, and opens none",
    PolicyRole.KEYADMIN: "makes, rolls and disables keys, and writes their records; has no plaintext",
    PolicyRole.DESTROYER: "destroys keys; for a person and a moment, never for a program",
}
_SELF = (
    ("auth/token/lookup-self", "read"),
    ("auth/token/renew-self", "update"),
    ("auth/token/revoke-self", "update"),
    ("sys/capabilities-self", "update"),
)


def policy_name(role: PolicyRole, settings: VaultSettings) -> str:
    """`ringfence-service-CLUSTER`."""
    return f"ringfence-{role.value}-{settings.cluster}"


def policy_hcl(role: PolicyRole, settings: VaultSettings) -> str:
    """The policy's text, ready for `vault policy write`."""
    head = f"# {policy_name(role, settings)}: {_MEANINGS[role]}\n"
    return head + "".join([*_STANZAS[role](settings), *(_path(path, capability) for path, capability in _SELF)])


def required_capabilities(settings: VaultSettings, key: str) -> dict[str, str]:
    """What the key server's own token must be able to do with the Transit key `key`: path to capability."""
    mount = settings.transit_mount
    return {
        f"{mount}/encrypt/{key}": "update",
        f"{mount}/decrypt/{key}": "update",
        f"{mount}/rewrap/{key}": "update",
        f"{mount}/keys/{key}": "read",
        **dict(_SELF),
    }


def transit_custody_capabilities(settings: VaultSettings, key: str) -> dict[str, str]:
    """What it must be able to do besides with the Transit key of a zone, to make it and roll it: path to capability."""
    mount = settings.transit_mount
    return {f"{mount}/keys/{key}": "update", f"{mount}/keys/{key}/rotate": "update"}


def forbidden_paths(settings: VaultSettings, key: str) -> Sequence[str]:
    """What the key server's own token must not be able to do at all."""
    mount = settings.transit_mount
    return [
        f"{mount}/export/encryption-key/{key}",
        f"{mount}/backup/{key}",
        f"{mount}/datakey/plaintext/{key}",
        f"{mount}/keys/{key}/config",
        f"{mount}/keys/{key}/trim",
        f"{mount}/restore/{key}",
        "sys/raw/core",
        "sys/policies/acl/ringfence",
    ]


def store_capabilities(settings: VaultSettings, prefix: str) -> dict[str, frozenset[str]]:
    """What the key server's own token must be able to do with the documents of a key store: path to capabilities."""
    return {
        f"{settings.kv_mount}/data/{prefix}/head": frozenset({"create", "read", "update"}),
        f"{settings.kv_mount}/data/{prefix}/keys/a": frozenset({"create", "read", "update"}),
        f"{settings.kv_mount}/metadata/{prefix}/keys/": frozenset({"list"}),
    }


def forbidden_store_capabilities(settings: VaultSettings, prefix: str) -> dict[str, frozenset[str]]:
    """What it must not be able to do with them: none of that asks for check-and-set."""
    mount = settings.kv_mount
    changing = frozenset({"create", "update", "patch", "delete", "sudo", "root"})
    return {
        f"{mount}/data/{prefix}/head": frozenset({"delete", "sudo", "root"}),
        f"{mount}/metadata/{prefix}/head": changing,
        **{f"{mount}/{operation}/{prefix}/head": changing for operation in ("delete", "undelete", "destroy")},
        f"{mount}/config": changing,
    }


def _service(settings: VaultSettings) -> list[str]:
    mount = settings.transit_mount
    return [
        _path(f"{mount}/encrypt/+", "update"),
        _path(f"{mount}/decrypt/+", "update"),
        _path(f"{mount}/rewrap/+", "update"),
        *_reading(settings),
    ]


def _generator(settings: VaultSettings) -> list[str]:
    return [_path(f"{settings.transit_mount}/encrypt/+", "update"), *_reading(settings)]


def _keyadmin(settings: VaultSettings) -> list[str]:
    mount = settings.transit_mount
    allowed = {
        "type": f'["{KEY_TYPE}"]',
        "derived": "[true]",
        "exportable": "[false]",
        "allow_plaintext_backup": "[false]",
    }
    return [
        _path(f"{mount}/keys", "list"),
        _path(f"{mount}/keys/+", "read", "update", allowed=allowed),
        _path(f"{mount}/keys/+/rotate", "update"),
        _path(f"{mount}/keys/+/soft-delete", "delete"),
        _path(f"{mount}/keys/+/soft-delete-restore", "update"),
        *_documents(settings, "create", "read", "update"),
    ]


def _destroyer(settings: VaultSettings) -> list[str]:
    mount = settings.transit_mount
    return [
        _path(f"{mount}/keys/+", "read", "delete"),
        _path(
            f"{mount}/keys/+/config",
            "update",
            # One-way switches that anybody with `config` could turn on otherwise.
            denied={"exportable": "[]", "allow_plaintext_backup": "[]"},
        ),
        _path(f"{mount}/keys/+/trim", "update"),
    ]


def _reading(settings: VaultSettings) -> list[str]:
    return [
        _path(f"{settings.transit_mount}/keys/+", "read"),
        *_documents(settings, "read"),
    ]


def _documents(settings: VaultSettings, *capabilities: str) -> list[str]:
    """Those of the key store, where Vault keeps it."""
    mount, prefix = settings.kv_mount, settings.keystore_prefix
    if prefix is None:
        return []
    return [
        _path(f"{mount}/data/{prefix}/*", *capabilities),
        _path(f"{mount}/metadata/{prefix}/*", "read", "list"),
        _path(f"{mount}/metadata/{prefix}", "list"),
    ]


_STANZAS = {
    PolicyRole.SERVICE: _service,
    PolicyRole.GENERATOR: _generator,
    PolicyRole.KEYADMIN: _keyadmin,
    PolicyRole.DESTROYER: _destroyer,
}


def _path(
    path: str,
    *capabilities: str,
    allowed: dict[str, str] | None = None,
    denied: dict[str, str] | None = None,
) -> str:
    lines = [f"  capabilities = [{_quoted(capabilities)}]"]
    for word, parameters in (("allowed", allowed), ("denied", denied)):
        if parameters:
            inner = "".join(f'    "{name}" = {values}\n' for name, values in parameters.items())
            lines.append(f"  {word}_parameters = {{\n{inner}  }}")
    return f'path "{path}" {{\n' + "\n".join(lines) + "\n}\n"


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)
