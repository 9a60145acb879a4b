"""Who may act for whom, and from where."""

from __future__ import annotations

import logging

import pytest

from ringfence_agent.http.request import Peer, Request
from ringfence_agent.kms.authentication.caller import Caller, Identity
from ringfence_agent.kms.authentication.proxy_users import HostList, ProxyUsers, read_proxy_rules
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.routes import Query, TokenOperation
from ringfence_agent.spnego.auth_to_local import AuthToLocal, Mechanism
from ringfence_zones.errors import AccessDeniedError, ConfigError, InputError
from ringfence_zones.hadoop_conf import HadoopConf

CLIENT = Caller("client", Identity.KERBEROS, 5, None, "client/host@REALM", (("Set-Cookie", "x"),))
EVERYWHERE = {"hadoop.kms.proxyuser.client.hosts": "*"}


def proxies(properties: dict[str, str], mechanism: Mechanism = Mechanism.HADOOP) -> ProxyUsers:
    def groups_of(user: str) -> frozenset[str]:
        return frozenset({"staff"}) if user == "carol" else frozenset()

    names = AuthToLocal("DEFAULT", "REALM", mechanism)
    return ProxyUsers(read_proxy_rules(HadoopConf(properties)), groups_of, names.short_name)


def call_from(address: str | None, query: Query | None = None) -> Call:
    request = Request(b"GET", b"/kms/v1/", b"", {b"x-forwarded-for": b"10.0.0.1"}, b"", Peer(address), keep_alive=True)
    return Call(request, query or Query())


def act(rules: ProxyUsers, do_as: str, address: str | None = "127.0.0.1") -> Caller:
    return rules.act_for(call_from(address), CLIENT, do_as)


@pytest.mark.parametrize(
    ("properties", "allowed"),
    [
        ({"users": "alice,bob"}, {"alice", "bob"}),
        ({"users": "*"}, {"alice", "bob", "carol", "client"}),
        ({"groups": "staff"}, {"carol"}),
        ({"groups": "*"}, {"alice", "bob", "carol", "client"}),
        ({"users": "alice", "groups": "staff"}, {"alice", "carol"}),
        ({"users": "alice, *"}, {"alice"}),
        ({"users": ""}, set()),
        ({}, set()),
    ],
)
def test_users_and_groups(properties: dict[str, str], allowed: set[str]) -> None:
    named = {f"hadoop.kms.proxyuser.client.{name}": value for name, value in properties.items()}
    rules = proxies({**EVERYWHERE, **named})
    admitted = set()
    for user in ("alice", "bob", "carol", "client"):
        try:
            caller = act(rules, user)
        except AccessDeniedError as refusal:
            assert refusal.message == f"User: client/host@REALM is not allowed to impersonate {user}"
            continue
        assert (caller.real_user, caller.principal) == ("client", "client/host@REALM")
        assert caller.identity is Identity.KERBEROS
        admitted.add(caller.user)
    assert admitted == allowed


@pytest.mark.parametrize(
    ("hosts", "address", "allowed"),
    [
        ("localhost", "127.0.0.1", True),
        ("localhost", "10.0.0.1", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("10.0.0.0/8", "10.9.8.7", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.1.2.3/8", "10.9.8.7", True),
        ("10.0.0.1, 127.0.0.0/8", "127.0.0.9", True),
        ("fd00::/8", "fd00::1", True),
        ("fd00::/8", "127.0.0.1", False),
        ("*", "203.0.113.9", True),
        ("*", None, True),
        ("127.0.0.1", None, False),
        ("*,10.0.0.1", "203.0.113.9", False),
        ("no-such-host.invalid", "127.0.0.1", False),
    ],
)
def test_hosts_are_names_addresses_and_networks(hosts: str, address: str | None, allowed: bool) -> None:
    rules = proxies({"hadoop.kms.proxyuser.client.users": "*", "hadoop.kms.proxyuser.client.hosts": hosts})
    if allowed:
        assert act(rules, "alice", address).user == "alice"
        return
    with pytest.raises(AccessDeniedError) as caught:
        act(rules, "alice", address)
    assert caught.value.message == f"Unauthorized connection for super-user: client/host@REALM from IP /{address}"


def test_without_hosts_nobody_acts_from_anywhere() -> None:
    with pytest.raises(AccessDeniedError, match="from IP /127"):
        act(proxies({"hadoop.kms.proxyuser.client.users": "*"}), "alice")


def test_a_rule_is_for_one_user_by_its_short_name() -> None:
    rules = proxies({"hadoop.kms.proxyuser.other.users": "*", "hadoop.kms.proxyuser.other.hosts": "*"})
    with pytest.raises(AccessDeniedError):
        act(rules, "alice")
    dotted = proxies({"hadoop.kms.proxyuser.svc.one.users": "*", "hadoop.kms.proxyuser.svc.one.hosts": "*"})
    caller = dotted.act_for(call_from("127.0.0.1"), Caller("svc.one", Identity.CLAIMED), "alice")
    assert (caller.user, caller.real_user, caller.identity) == ("alice", "svc.one", Identity.CLAIMED)


def test_token_operations_name_the_short_name() -> None:
    call = call_from("127.0.0.1", Query(token_operation=TokenOperation.GET))
    with pytest.raises(AccessDeniedError, match=r"^User: client is not allowed to impersonate alice$"):
        proxies({}).act_for(call, CLIENT, "alice")


@pytest.mark.parametrize("name", ["", "a&b", "alice@ELSEWHERE", "foo/localhost"])
def test_who_is_no_user_is_nobody_to_act_for(name: str) -> None:
    rules = proxies({**EVERYWHERE, "hadoop.kms.proxyuser.client.users": "*"})
    with pytest.raises(InputError, match="doAs names no user"):
        act(rules, name)


def test_a_full_name_is_mapped_and_under_mit_kept() -> None:
    open_rules = {**EVERYWHERE, "hadoop.kms.proxyuser.client.users": "alice,foo/localhost"}
    assert act(proxies(open_rules), "alice@REALM").user == "alice"
    assert act(proxies(open_rules, Mechanism.MIT), "foo/localhost").user == "foo/localhost"


def test_a_host_without_an_address_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not HostList(("no-such-host.invalid",), "p.hosts").includes("127.0.0.1")
    assert "no-such-host.invalid" in caplog.text


def test_a_bad_network_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="is no network"):
        read_proxy_rules(HadoopConf({"hadoop.kms.proxyuser.client.hosts": "10.0.0.0/x"}))
