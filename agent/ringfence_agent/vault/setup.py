"""What a cluster needs in Vault, compared with what is there, and made: for an administrator, once.

It is a plan first: each step says what is there, what will be done, and whether something else than Ringfence feels it.
What is as it should be is left alone, so that a second run does nothing. What is there and must not be changed by a
program (a mount of another type, a key that can be exported) ends the plan with an error that says so.

Nothing here is made that a step before did not make sure of, and nothing is deleted.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

from ringfence_agent.vault.control import VaultControl
from ringfence_agent.vault.kv import MAX_VERSIONS, KvConfig
from ringfence_agent.vault.policy import PolicyRole, policy_hcl, policy_name
from ringfence_agent.vault.settings import WRAP_KEY, VaultSettings
from ringfence_agent.vault.system import AppRole, Mount, WrappingToken
from ringfence_zones.errors import ConfigError, ProtectorRefusedError

NO_KV = KvConfig(cas_required=False, max_versions=0)
TOKEN_PERIOD_S = 3600
SECRET_ID_TTL_S = 600


@dataclass(frozen=True, slots=True)
class Step:
    """One thing. `found` says what is there; `action` what would be done, None when nothing has to be.

    `affects_others`: who uses Vault beside Ringfence may feel it.
    """

    thing: str
    found: str
    action: str | None = None
    apply: Callable[[], object] | None = None
    affects_others: bool = False

    def to_json(self) -> dict[str, object]:
        """`{"thing", "found", "action", "affects_others"}`; `action` is null when nothing has to be done."""
        return {
            "thing": self.thing,
            "found": self.found,
            "action": self.action,
            "affects_others": self.affects_others,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupChoices:
    """What the administrator decides beyond kms.yaml. CIDRs bound where a secret id and its token may be used from."""

    bound_cidrs: tuple[str, ...] = ()


class VaultSetup:
    """Plans and makes what one cluster needs. `control` is an administrator's."""

    def __init__(self, control: VaultControl, choices: SetupChoices = SetupChoices()) -> None:
        self._control = control
        self._settings: VaultSettings = control.settings
        self._choices = choices

    def plan(self) -> list[Step]:
        """Every step in order, also those that are done. Reads only.

        Raises ProtectorRefusedError for what is there and must not be changed, or may not be seen.
        """
        return list(self._steps())

    def apply(self) -> list[Step]:
        """Makes what the plan says, and returns the steps that were taken. Then the plan holds nothing more to do,
        which is looked at: ProtectorRefusedError otherwise."""
        taken = []
        # What a step finds depends on those before it: each is looked at when its turn comes.
        for step in self._steps():
            if step.apply is not None:
                step.apply()
                taken.append(step)
        left = [step.thing for step in self.plan() if step.action is not None]
        if left:
            raise ProtectorRefusedError(
                f"Vault took every step and is still not as it should be: {', '.join(left)}",
                hint="somebody else may be changing it; run the command again",
            )
        return taken

    def issue_secret_id(self) -> tuple[str, WrappingToken]:
        """The role's id, and a wrapped secret id for one login: what a node needs to log in the first time."""
        settings, system = self._settings, self._control.system
        role_id = system.read_role_id(settings.auth_mount, settings.role)
        return role_id, system.wrap_secret_id(settings.auth_mount, settings.role, SECRET_ID_TTL_S)

    def _steps(self) -> Iterator[Step]:
        yield from self._transit_steps()
        if self._settings.keystore_prefix is not None:
            yield from self._kv_steps()
        for role in PolicyRole:
            yield self._policy(role)
        if self._settings.auth.method == "approle":
            yield from self._approle_steps()

    # Transit

    def _transit_steps(self) -> Iterator[Step]:
        mount, keys, system = self._settings.transit_mount, self._control.transit, self._control.system
        thing = f"Transit engine {mount}/"
        there = _require_type(system.list_mounts().get(mount), "transit", thing)
        description = f"Ringfence: keys of {self._settings.cluster}"
        yield _step(thing, there, "missing", "mount it", lambda: system.enable_engine(mount, "transit", description))
        is_mounted = there or mount in system.list_mounts()
        yield _step(
            f"keys of {mount}/ are made by a create only",
            is_mounted and keys.is_upsert_disabled(),
            "an encrypt would make them too",
            "set disable_upsert",
            keys.disable_upsert,
        )
        key = keys.find(WRAP_KEY) if is_mounted else None
        if key is not None:
            key.require_sound()
        yield _step(
            f"Transit key {mount}/keys/{WRAP_KEY}",
            key is not None,
            "missing",
            "make it, derived, not exportable",
            lambda: keys.create(WRAP_KEY),
        )

    # KV

    def _kv_steps(self) -> Iterator[Step]:
        mount, system, kv = self._settings.kv_mount, self._control.system, self._control.kv
        thing = f"KV version 2 engine {mount}/"
        found = system.list_mounts().get(mount)
        there = _require_type(found, "kv", thing)
        if found is not None and found.options.get("version") != "2":
            raise ProtectorRefusedError(
                f"{mount}/ is a KV engine of version 1, which has no check-and-set",
                hint="name another in vault.kv_mount",
            )
        options = {"version": "2"}
        yield _step(
            thing,
            there,
            "missing",
            "mount it",
            lambda: system.enable_engine(mount, "kv", "Ringfence: key records", options),
        )
        config = kv.read_config() if there or mount in system.list_mounts() else NO_KV
        yield _step(
            f"writes to {mount}/ are by check-and-set, at least {MAX_VERSIONS} versions are kept",
            config.cas_required and config.max_versions >= MAX_VERSIONS,
            f"cas_required is {config.cas_required}, max_versions {config.max_versions or 'the default'}",
            "set both",
            lambda: kv.require_cas(max(config.max_versions, MAX_VERSIONS)),
            affects_others=there,
        )

    # Policies and logins

    def _policy(self, role: PolicyRole) -> Step:
        name, hcl, system = policy_name(role, self._settings), policy_hcl(role, self._settings), self._control.system
        found = system.find_policy(name)
        is_same = found is not None and found.strip() == hcl.strip()
        state = "missing" if found is None else "another text"
        return _step(f"policy {name}", is_same, state, "write it", lambda: system.write_policy(name, hcl))

    def _approle_steps(self) -> Iterator[Step]:
        mount, system = self._settings.auth_mount, self._control.system
        thing = f"AppRole login auth/{mount}/"
        there = _require_type(system.list_logins().get(mount), "approle", thing)
        description = "Ringfence: key servers"
        yield _step(thing, there, "missing", "enable it", lambda: system.enable_login(mount, "approle", description))
        is_enabled = there or mount in system.list_logins()
        yield _step(
            f"five wrong secret ids do not lock a role of auth/{mount}/ out",
            is_enabled and system.is_lockout_disabled(mount),
            "whoever knows a role id could lock it out",
            "disable the lockout",
            lambda: system.disable_lockout(mount),
            affects_others=there,
        )
        yield self._role(is_enabled=is_enabled)

    def _role(self, *, is_enabled: bool) -> Step:
        mount, name, system = self._settings.auth_mount, self._settings.role, self._control.system
        found = system.find_role(mount, name) if is_enabled else None
        wanted = self._wanted_role(found)
        state = "missing" if found is None else _differences(found, wanted)
        thing = f"role {name} of auth/{mount}/"
        return _step(thing, found == wanted, state, "write it", lambda: system.write_role(mount, name, wanted))

    def _wanted_role(self, found: AppRole | None) -> AppRole:
        """What somebody set by hand and nobody asks to be otherwise stays."""
        is_wrapped = self._settings.auth.wrapped_secret_id_file is not None
        cidrs = self._choices.bound_cidrs
        return AppRole(
            token_policies=key_server_policies(self._settings),
            token_no_default_policy=True,
            token_period_s=TOKEN_PERIOD_S,
            token_type="service",  # noqa: S106 - a kind of token
            secret_id_num_uses=1 if is_wrapped else 0,
            secret_id_ttl_s=SECRET_ID_TTL_S if is_wrapped else (found.secret_id_ttl_s if found else 0),
            secret_id_bound_cidrs=cidrs or (found.secret_id_bound_cidrs if found else ()),
            token_bound_cidrs=cidrs or (found.token_bound_cidrs if found else ()),
            bind_secret_id=True,
        )


def _step(
    thing: str,
    is_done: bool,
    found: str,
    action: str,
    apply: Callable[[], object],
    *,
    affects_others: bool = False,
) -> Step:
    return Step(thing, "as it should be") if is_done else Step(thing, found, action, apply, affects_others)


def key_server_policies(settings: VaultSettings) -> tuple[str, ...]:
    """What the key server's role has: it opens keys and makes them."""
    return tuple(sorted(policy_name(role, settings) for role in (PolicyRole.SERVICE, PolicyRole.KEYADMIN)))


def parse_cidrs(texts: Sequence[str]) -> tuple[str, ...]:
    """Networks as Vault spells them. Raises ConfigError naming the one that is none."""
    found = []
    for text in texts:
        try:
            found.append(str(ipaddress.ip_network(text)))
        except ValueError:
            raise ConfigError(f"{text!r} is no network", hint="write it as 10.1.0.0/16, or 10.1.2.3/32") from None
    return tuple(sorted(found))


def _require_type(mount: Mount | None, kind: str, thing: str) -> bool:
    """Whether it is mounted. Raises ProtectorRefusedError when something else is there."""
    if mount is None:
        return False
    if mount.type != kind:
        raise ProtectorRefusedError(
            f"{thing} cannot be made: something of the type {mount.type} is mounted there",
            hint="name another place in the vault block of kms.yaml",
        )
    return True


def _differences(found: AppRole, wanted: AppRole) -> str:
    """`token_period_s is 0`: what is not as it is wanted."""
    return "; ".join(
        f"{field.name} is {_shown(getattr(found, field.name))}"
        for field in fields(AppRole)
        if getattr(found, field.name) != getattr(wanted, field.name)
    )


def _shown(value: object) -> str:
    return ", ".join(value) or "none" if isinstance(value, tuple) else str(value)
