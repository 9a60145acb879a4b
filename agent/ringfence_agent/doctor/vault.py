"""Whether Vault or OpenBao is what the key server relies on: its nodes, the token, its policies, keys and set-up.

Two identities look. The key server's own, with its token: what counts is what that may and may not do. And an
administrator's, when a token of one is given: only that sees mounts, roles, audit devices and the storage's peers, and
only that may make the temporary key with which `vault_trial` tries Transit out.

What an identity may not look at is "not checked", never "nothing found".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus

from ringfence_agent.doctor.vault_held import FindHeld, check_records
from ringfence_agent.doctor.vault_trial import check_transit
from ringfence_agent.vault.control import VaultControl
from ringfence_agent.vault.kv import MAX_VERSIONS
from ringfence_agent.vault.nodes import NodeHealth, Role
from ringfence_agent.vault.policy import (
    forbidden_paths,
    forbidden_store_capabilities,
    required_capabilities,
    store_capabilities,
)
from ringfence_agent.vault.refusal import VaultRefusedError
from ringfence_agent.vault.settings import WRAP_KEY, VaultSettings
from ringfence_agent.vault.tokens import DEFAULT_POLICY, ROOT_POLICY, TokenState
from ringfence_agent.vault.transit_keys import TransitKeys
from ringfence_zones.errors import ProtectorRefusedError, RingfenceError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.named_checks import Check, NotChecked, finding, finding_of

_SETUP = "ringfence vault setup"
_MIN_VOTERS = 3
_SHORT_TTL_S = 300
_SERVING = (Role.ACTIVE, Role.STANDBY, Role.PERFORMANCE_STANDBY)


@dataclass(slots=True)
class VaultSubject:
    """One Vault as the key server sees it, and as an administrator does when there is one.

    `nodes` is set by the first check; the others ask nothing of a Vault without an active node. `find_held` reads the
    key store; None where none is named.
    """

    own: VaultControl
    administrator: VaultControl | None = None
    find_held: FindHeld | None = None
    nodes: list[NodeHealth] = field(default_factory=list)
    token: TokenState | None = None

    @property
    def settings(self) -> VaultSettings:
        """The Vault's."""
        return self.own.settings

    def require_active(self) -> None:
        """Raises NotChecked when no node could answer."""
        if not any(node.role is Role.ACTIVE for node in self.nodes):
            raise NotChecked("no node of Vault is active")

    def require_token(self) -> TokenState:
        """Raises NotChecked when the key server is not logged in."""
        self.require_active()
        if self.token is None:
            raise NotChecked("the key server is not logged in")
        return self.token

    def require_administrator(self) -> VaultControl:
        """Raises NotChecked without one."""
        self.require_active()
        if self.administrator is None:
            raise NotChecked("only an administrator sees this: give a token with --token-file")
        return self.administrator


def check_nodes(subject: VaultSubject) -> Iterator[Finding]:
    """Whether every node answers and one is active."""
    subject.nodes = subject.own.nodes.probe_all()
    active = [node for node in subject.nodes if node.role is Role.ACTIVE]
    for node in subject.nodes:
        if node.role not in _SERVING:
            severity = Severity.WARN if active else Severity.ERROR
            message = f"the node is {node.sentence.partition(' is ')[2]}"
            yield finding(severity, Rule.VAULT, node.address, message, _way_back(node))
    if not active and all(node.role in _SERVING for node in subject.nodes):
        message = "every node named is a standby: nothing can be made or changed, and reads come late"
        yield finding(Severity.ERROR, Rule.VAULT, subject.settings.label, message, "name every node in vault.addresses")
    if len(active) > 1:
        message = f"{len(active)} nodes say that they are active: {', '.join(node.address for node in active)}"
        hint = "after a moment one is left; when it stays so, the addresses are of different clusters"
        yield finding(Severity.WARN, Rule.VAULT, subject.settings.label, message, hint)


def check_token(subject: VaultSubject) -> Iterator[Finding]:
    """Whether the key server is logged in, with a token that lasts and has no more power than it needs."""
    subject.require_active()
    place = subject.settings.token_file
    try:
        subject.token = subject.own.tokens.find_self()
    except RingfenceError as error:
        yield finding_of(error, Rule.VAULT_TOKEN, place)
        return
    if subject.token is None:
        message = "Vault does not take the key server's token: it ended or was revoked, or may not even look at itself"
        yield finding(Severity.ERROR, Rule.VAULT_TOKEN, place, message, "log in again", "ringfence vault login")
        return
    yield from _powers(subject.token, str(place))
    yield from _lifetime(subject.token, str(place))


def _powers(token: TokenState, place: str) -> Iterator[Finding]:
    if ROOT_POLICY in token.policies:
        message = "the key server has a root token: whoever takes it over has all of Vault"
        hint = "revoke it, and log in with a role that has no more than `ringfence vault policy` prints"
        yield finding(Severity.ERROR, Rule.VAULT_TOKEN, place, message, hint)
    elif DEFAULT_POLICY in token.policies:
        message = "the token has the policy `default`, which no call needs and which costs Vault up to 1 ms a request"
        hint = "set token_no_default_policy on its role and log in again"
        yield finding(Severity.WARN, Rule.VAULT_TOKEN, place, message, hint, _SETUP)


def _lifetime(token: TokenState, place: str) -> Iterator[Finding]:
    hint = "give its role a token_period, and log in again"
    if token.num_uses:
        message = f"the token is good for {token.num_uses} calls more and then for none"
        yield finding(Severity.ERROR, Rule.VAULT_TOKEN, place, message, "set token_num_uses to 0 on its role")
    if not token.expires:
        if ROOT_POLICY not in token.policies:
            message = "the token never ends, so that a copy is good for ever"
            yield finding(Severity.WARN, Rule.VAULT_TOKEN, place, message, hint)
    elif not token.renewable:
        message = f"the token cannot be renewed ({token.type} token): in {token.ttl_s} s it takes a new login"
        yield finding(Severity.WARN, Rule.VAULT_TOKEN, place, message, hint)
    elif token.ttl_s < min(_SHORT_TTL_S, (token.period_s or token.creation_ttl_s) // 10):
        message = f"the token ends in {token.ttl_s} s and was not renewed: is the key server running?"
        yield finding(Severity.ERROR, Rule.VAULT_TOKEN, place, message, "start it, or log in", "ringfence vault login")
    elif token.explicit_max_ttl_s:
        message = f"the token ends {token.explicit_max_ttl_s} s after its login, however often it is renewed"
        yield finding(Severity.INFO, Rule.VAULT_TOKEN, place, message, hint)


def check_policy(subject: VaultSubject) -> Iterator[Finding]:
    """Whether the key server's token may do all that it has to, and nothing that would undo what Vault is there for."""
    subject.require_token()
    settings = subject.settings
    required, forbidden = required_capabilities(settings, WRAP_KEY), forbidden_paths(settings, WRAP_KEY)
    try:
        found = subject.own.system.capabilities([*required, *forbidden])
    except VaultRefusedError:
        message = "the token may not ask what it may do (sys/capabilities-self)"
        yield _policy_finding(Severity.ERROR, settings.label, message)
        return
    for path, capability in required.items():
        if not found[path] & {capability, "root"}:
            message = f"the key server's token needs `{capability}` here and has it not"
            yield _policy_finding(Severity.ERROR, path, message)
    for path in forbidden:
        if found[path] - {"deny"}:
            may = ", ".join(sorted(found[path]))
            yield _policy_finding(Severity.ERROR, path, f"the key server's token may {may} here, which it must not")
    encrypt = f"{settings.transit_mount}/encrypt/{WRAP_KEY}"
    if "create" in found[encrypt]:
        message = "the key server's token may create keys by encrypting with a name that is none"
        yield _policy_finding(Severity.WARN, encrypt, message)


def _policy_finding(severity: Severity, path: str, message: str) -> Finding:
    hint = "attach to its role what this prints, and nothing else"
    return finding(severity, Rule.VAULT_POLICY, path, message, hint, "ringfence vault policy --role service")


def check_keys(subject: VaultSubject) -> Iterator[Finding]:
    """Whether the wrap key is there, and every key of the mount is bound and cannot leave Vault."""
    subject.require_active()
    if subject.administrator is None:
        subject.require_token()
    keys = (subject.administrator or subject.own).transit
    if keys.find(WRAP_KEY) is None:
        message = "there is no such key: zone keys in envelope custody cannot be wrapped"
        yield finding(Severity.ERROR, Rule.VAULT_KEY, f"{keys.mount}/keys/{WRAP_KEY}", message, "make it", _SETUP)
    try:
        names = keys.list_names()
    except VaultRefusedError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        names = None
    for name in [WRAP_KEY] if names is None else names:
        yield from _key_faults(keys, name)
    if names is None:
        raise NotChecked(f"only {WRAP_KEY} could be looked at: the token may not list keys")


def _key_faults(keys: TransitKeys, name: str) -> Iterator[Finding]:
    found = keys.find(name)
    place = f"{keys.mount}/keys/{name}"
    for fault in found.find_faults() if found is not None else ():
        hint = "it cannot be undone: move what it protects to another key, and find out who made or changed it"
        yield finding(Severity.ERROR, Rule.VAULT_KEY, place, fault, hint)
    if found is not None and found.deletion_allowed:
        message = "the key may be deleted at any moment (deletion_allowed)"
        yield finding(Severity.WARN, Rule.VAULT_KEY, place, message, "set deletion_allowed to false on it")


def check_held(subject: VaultSubject) -> Iterator[Finding]:
    """Whether keys in custody transit are there, and can be rolled."""
    subject.require_token()
    if subject.find_held is None:
        raise NotChecked("no key store is named, so that what it holds in Vault is not known")
    yield from check_records(subject.own, (subject.administrator or subject.own).transit, subject.find_held)


def check_engines(subject: VaultSubject) -> Iterator[Finding]:
    """Whether no key is made by accident, and no record is overwritten by a race."""
    control, settings = subject.require_administrator(), subject.settings
    if not control.transit.is_upsert_disabled():
        message = "an encrypt with a name that is none makes a key, with default options"
        place = f"{settings.transit_mount}/config/keys"
        yield finding(Severity.ERROR, Rule.VAULT_SETUP, place, message, "switch it off", _SETUP)
    if settings.keystore_prefix is None or settings.kv_mount not in control.system.list_mounts():
        return
    config = control.kv.read_config()
    place = f"{settings.kv_mount}/config"
    if not config.cas_required:
        message = "records can be written without check-and-set: of two writers the second wins, and nobody notices"
        yield finding(Severity.WARN, Rule.VAULT_SETUP, place, message, "set cas_required", _SETUP)
    if config.max_versions < MAX_VERSIONS:
        message = f"{config.max_versions or 10} versions of a record are kept, {MAX_VERSIONS} are wanted for forensics"
        yield finding(Severity.INFO, Rule.VAULT_SETUP, place, message, "raise max_versions", _SETUP)


def check_store(subject: VaultSubject) -> Iterator[Finding]:
    """Whether the key store is there, and what the key server's token may do with its documents."""
    subject.require_token()
    settings, prefix = subject.settings, subject.settings.keystore_prefix
    if prefix is None:
        raise NotChecked("the key store is not in Vault")
    required, forbidden = store_capabilities(settings, prefix), forbidden_store_capabilities(settings, prefix)
    found = subject.own.system.capabilities([*required, *forbidden])
    for path, needed in required.items():
        missing = needed - found[path]
        if missing and "root" not in found[path]:
            message = f"the key server's token needs {_words(missing)} here and has it not"
            yield _store_finding(path, message)
    for path, denied in forbidden.items():
        if found[path] & denied:
            may = _words(found[path] & denied)
            yield _store_finding(path, f"the key server's token may {may} here: that asks for no check-and-set")
    head = f"{prefix}/head"
    if "read" in found[f"{settings.kv_mount}/data/{head}"] and subject.own.kv.find(head) is None:
        message = "there is no key store yet"
        hint = "start the key server once with --init; if there was one, find out who removed it"
        yield finding(Severity.WARN, Rule.VAULT, f"{settings.kv_mount}/{prefix}", message, hint)


def _store_finding(path: str, message: str) -> Finding:
    hint = "write the policies of this cluster again, and give its role no others"
    return finding(Severity.ERROR, Rule.VAULT_POLICY, path, message, hint, _SETUP)


def _words(capabilities: frozenset[str]) -> str:
    return ", ".join(f"`{word}`" for word in sorted(capabilities))


def check_login(subject: VaultSubject) -> Iterator[Finding]:
    """Whether the role gives the tokens it should, and cannot be locked out from outside."""
    control, settings = subject.require_administrator(), subject.settings
    if settings.auth.method != "approle":
        raise NotChecked(f"the login is {settings.auth.method}, whose role is not looked at")
    place = f"auth/{settings.auth_mount}/role/{settings.role}"
    role = control.system.find_role(settings.auth_mount, settings.role)
    if role is None:
        yield finding(Severity.ERROR, Rule.VAULT_SETUP, place, "there is no such role", "make it", _SETUP)
        return
    if not control.system.is_lockout_disabled(settings.auth_mount):
        message = "whoever knows the role id, which is no secret, can lock the key server's login out for 15 minutes"
        hint = "switch the user lockout of this login off"
        yield finding(Severity.WARN, Rule.VAULT_SETUP, f"auth/{settings.auth_mount}", message, hint, _SETUP)
    faults = {
        "its tokens have the policy `default`": not role.token_no_default_policy,
        "its tokens are not periodic, so that each ends however often it is renewed": role.token_period_s == 0,
        "a secret id logs in more than once": role.secret_id_num_uses != 1 and settings.auth.secret_id_file is None,
        "a secret id never runs out": role.secret_id_ttl_s == 0 and settings.auth.secret_id_file is None,
        "no secret id is asked for": not role.bind_secret_id,
    }
    for message in (message for message, is_so in faults.items() if is_so):
        yield finding(Severity.WARN, Rule.VAULT_SETUP, place, message, "set the role up anew", _SETUP)
    if not role.token_bound_cidrs:
        hint = "bind it with `ringfence vault setup --bound-cidr NET`"
        yield finding(Severity.INFO, Rule.VAULT_SETUP, place, "a stolen token is good from everywhere", hint)


def check_audit(subject: VaultSubject) -> Iterator[Finding]:
    """Whether Vault keeps evidence, on more than one device: with one that is full, every call fails."""
    devices = subject.require_administrator().system.find_audit_devices()
    if devices is None:
        raise NotChecked("the token may not see audit devices (sys/audit takes sudo)")
    if not devices:
        message = "Vault keeps no audit log: nobody will know who opened what"
        yield finding(Severity.ERROR, Rule.VAULT_SETUP, "sys/audit", message, "enable two audit devices")
    elif len(devices) == 1:
        message = f"there is one audit device ({devices[0]}): when it is full or blocks, every call to Vault fails"
        yield finding(Severity.WARN, Rule.VAULT_SETUP, "sys/audit", message, "enable a second one, elsewhere")


def check_voters(subject: VaultSubject) -> Iterator[Finding]:
    """Whether Vault's own storage survives the loss of a node."""
    peers = subject.require_administrator().system.find_raft_peers()
    if peers is None:
        raise NotChecked("the storage is not raft, or the token may not see its peers")
    voters = [peer for peer in peers if peer.is_voter]
    if len(voters) < _MIN_VOTERS:
        message = (
            f"raft has {len(voters)} of the {_MIN_VOTERS} voting nodes it needs: losing one loses the majority,"
            " and with it every change"
        )
        hint = "run three or five; a new node votes about ten seconds after it joined"
        yield finding(Severity.WARN, Rule.VAULT_SETUP, "sys/storage/raft", message, hint)


def check_trial(subject: VaultSubject) -> Iterator[Finding]:
    """Whether Transit does what the key server relies on, tried with a temporary key (else with the wrap key)."""
    subject.require_active()
    if subject.administrator is None:
        subject.require_token()
    yield from check_transit(subject.own if subject.token is not None else None, subject.administrator)


def _way_back(node: NodeHealth) -> str:
    if node.role is Role.SEALED:
        return "unseal it"
    if node.role is Role.UNINITIALISED:
        return "initialise it, and unseal it"
    return "is it running, is its address right, and does this machine reach it?"


def _settled(check: Check[VaultSubject]) -> Check[VaultSubject]:
    """A check that an answer of Vault's ends: what it may not look at is not checked, what failed is found."""

    def run(subject: VaultSubject) -> Iterator[Finding]:
        try:
            yield from check.run(subject)
        except VaultRefusedError as error:
            if error.status == HTTPStatus.FORBIDDEN:
                raise NotChecked(f"the token may not look: {error.message}") from None
            yield finding_of(error, Rule.VAULT, subject.settings.label)
        except ProtectorRefusedError as error:
            yield finding_of(error, Rule.VAULT_KEY, subject.settings.label)
        except RingfenceError as error:
            yield finding_of(error, Rule.VAULT, subject.settings.label)

    return Check(check.name, check.meaning, run)


CHECKS = tuple(
    _settled(check)
    for check in (
        Check("nodes", "every node answers, and one is active", check_nodes),
        Check("token", "the key server's token: good, lasting, no more than needed", check_token),
        Check("policy", "what the token may do, and must not be able to", check_policy),
        Check("keys", "the Transit keys: bound, not exportable", check_keys),
        Check("held", "the keys that Vault holds: all there, and on record", check_held),
        Check("engines", "no key by accident, no record lost in a race", check_engines),
        Check("store", "the key store in the KV engine, and what the token may do with it", check_store),
        Check("login", "the role the key server logs in as", check_login),
        Check("audit", "the audit devices", check_audit),
        Check("voters", "the voting nodes of Vault's storage", check_voters),
        Check("trial", "Transit does what the key server relies on", check_trial),
    )
)
