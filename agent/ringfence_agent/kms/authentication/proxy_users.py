"""Who may act for whom: `hadoop.kms.proxyuser.<user>.{users,groups,hosts}`.

Source: `DefaultImpersonationProvider` and `MachineList`, messages included. Rules:

1. A user that asks to act for another (`doAs`) must be configured, by its short name, for that user or one of the
   user's groups, *and* for the host it asks from. What is not configured is refused; so is acting for oneself.
2. The host is the socket's other end, never what a header says. Names are looked up when the server starts.
3. `*` stands for every user, group or host only when it is the whole value.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ringfence_agent.kms.authentication.caller import Caller
from ringfence_agent.kms.call import Call
from ringfence_zones.access_list import AccessList, GroupsOf
from ringfence_zones.errors import AccessDeniedError, AuthenticationError, ConfigError, InputError
from ringfence_zones.hadoop_conf import HadoopConf

_log = logging.getLogger(__name__)

PREFIX = "hadoop.kms.proxyuser."
_USERS, _GROUPS, _HOSTS = ".users", ".groups", ".hosts"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class ProxyRule:
    """For whom one user may act, and from which hosts: names, addresses, networks, or `*` alone."""

    targets: AccessList
    hosts: tuple[str, ...]


def read_proxy_rules(conf: HadoopConf) -> dict[str, ProxyRule]:
    """The rules by the acting user's short name. Raises ConfigError for a network that is none."""
    names = {
        name.removeprefix(PREFIX).removesuffix(suffix)
        for name in conf
        for suffix in (_USERS, _GROUPS, _HOSTS)
        if name.startswith(PREFIX) and name.endswith(suffix)
    }
    return {name: _read_rule(conf, name) for name in sorted(names)}


def _read_rule(conf: HadoopConf, name: str) -> ProxyRule:
    users, groups = (conf.get_list(PREFIX + name + suffix) for suffix in (_USERS, _GROUPS))
    everybody = users == ["*"] or groups == ["*"]
    hosts = tuple(conf.get_list(PREFIX + name + _HOSTS))
    for host in hosts:
        if "/" in host:
            _network(host, PREFIX + name + _HOSTS)
    return ProxyRule(AccessList(frozenset(users), frozenset(groups), everybody), hosts)


def _network(text: str, name: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigError(
            f"{name} holds {text!r}, which is no network", hint="write ADDRESS/BITS, for example 10.1.0.0/16"
        ) from error


class HostList:
    """The hosts of one rule, looked up once. Blocks while names are looked up."""

    def __init__(self, hosts: tuple[str, ...], name: str) -> None:
        self._everywhere = hosts == ("*",)
        self._networks: list[Network] = []
        self._addresses: set[Address] = set()
        for host in () if self._everywhere else hosts:
            if "/" in host:
                self._networks.append(_network(host, name))
            else:
                self._addresses |= _look_up(host, name)

    def includes(self, address: str | None) -> bool:
        """Whether a peer's address is on the list; a peer of the Unix socket has none."""
        if self._everywhere:
            return True
        if address is None:
            return False
        peer = ipaddress.ip_address(address)
        return peer in self._addresses or any(peer in network for network in self._networks)


def _look_up(host: str, name: str) -> set[Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        _log.warning("%s names %s, which has no address: nobody may act from there", name, host)
        return set()
    return {ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found}


class ProxyUsers:
    """The rules of one server. Made when a worker starts, because it looks names up."""

    def __init__(self, rules: Mapping[str, ProxyRule], groups_of: GroupsOf, short_name: Callable[[str], str]) -> None:
        self._groups_of = groups_of
        self._short_name = short_name
        self._rules = {
            name: (rule.targets, HostList(rule.hosts, PREFIX + name + _HOSTS)) for name, rule in rules.items()
        }

    def act_for(self, call: Call, session: Caller, do_as: str) -> Caller:
        """The caller when `session` acts for the user it names.

        Raises AccessDeniedError with Hadoop's sentence, InputError for what is no user, Unready while the user's
        groups are looked up.
        """
        # Hadoop answers the operations on tokens before it knows the full name.
        full_name = session.user if call.is_token_operation else session.principal or session.user
        try:
            user = self._short_name(do_as)
        except AuthenticationError as error:
            raise InputError(f"doAs names no user: {error.message}") from error
        targets, hosts = self._rules.get(session.user, (AccessList(), None))
        if hosts is None or not targets.admits(user, self._groups_of, session.user):
            raise AccessDeniedError(f"User: {full_name} is not allowed to impersonate {do_as}")
        address = call.request.peer.address
        if not hosts.includes(address):
            raise AccessDeniedError(f"Unauthorized connection for super-user: {full_name} from IP /{address}")
        return Caller(user, session.identity, session.expires_ms, session.user, session.principal)
