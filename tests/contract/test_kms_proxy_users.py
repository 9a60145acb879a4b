"""Acting for others over the wire: who may, from where, and how a refusal looks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kdc import Kdc
from kerberos_kms import KerberosKms, cookie_of, serving_kerberos
from kms_serving import OPEN_ACLS, json_of, remote_exception_of

NAMES = "/kms/v1/keys/names"
AUTHORIZATION = "org.apache.hadoop.security.authorize.AuthorizationException"
PROXY = "hadoop.kms.proxyuser."


@pytest.fixture(scope="module")
def kerberos(tmp_path_factory: pytest.TempPathFactory, kdc: Kdc) -> Iterator[KerberosKms]:
    site = {
        PROXY + "hive.users": "alice",
        PROXY + "hive.groups": "analysts",
        PROXY + "hive.hosts": "localhost",
        PROXY + "far.users": "*",
        PROXY + "far.hosts": "10.0.0.0/8",
    }
    core = {"hadoop.user.group.static.mapping.overrides": "carol=analysts;alice=;bob=;hive="}
    acls = {**OPEN_ACLS, "hadoop.kms.acl.GET_METADATA": "~hive"}
    with serving_kerberos(tmp_path_factory.mktemp("kms"), kdc, site=site, core=core, acls=acls) as running:
        yield running


@pytest.mark.parametrize("user", ["alice", "carol"])
def test_a_configured_user_acts_for_users_and_members_of_groups(kerberos: KerberosKms, user: str) -> None:
    for name in ("doAs", "doas", "DOAS"):
        answer = kerberos.ask("GET", NAMES, user="hive", query={name: user})
        assert answer.status == 200
        assert "u=hive&" in cookie_of(answer)
        line = kerberos.place.audit_lines()[-1]
        assert (line["user"], line["real_user"], line["principal"]) == (user, "hive", kerberos.full("hive"))


def test_the_first_of_several_counts(kerberos: KerberosKms) -> None:
    headers = {"Cookie": kerberos.cookie("hive")}
    for target, status in ((NAMES + "?doAs=alice&doas=bob", 200), (NAMES + "?DOAS=bob&doAs=alice", 403)):
        assert kerberos.ask("GET", target, headers=headers).status == status


@pytest.mark.parametrize(
    ("real_user", "user"), [("hive", "bob"), ("hive", "hive"), ("alice", "hive"), ("client/host.example", "foo1")]
)
def test_a_refusal_has_hadoops_words_and_keeps_the_callers_session(
    kerberos: KerberosKms, real_user: str, user: str
) -> None:
    expected = (403, AUTHORIZATION, f"User: {kerberos.full(real_user)} is not allowed to impersonate {user}")
    first = kerberos.ask("OPTIONS", NAMES, user=real_user, query={"doAs": user})
    assert (first.reason, remote_exception_of(first)) == ("Forbidden", expected)
    assert (first.header("WWW-Authenticate") or "").startswith("Negotiate ")
    short = real_user.partition("/")[0]
    # As the Java client goes on: with the cookie it was given, and its own name.
    headers = {"Cookie": cookie_of(first)}
    for method in ("OPTIONS", "GET"):
        again = kerberos.ask(method, NAMES, query={"doAs": user, "user.name": short}, headers=headers)
        assert (again.reason, remote_exception_of(again)) == ("Forbidden", expected)
    line = kerberos.place.audit_lines()[-1]
    assert (line["user"], line["real_user"], line["outcome"]) == (short, None, "denied")


def test_a_host_that_is_not_listed_is_refused_whatever_a_header_says(kerberos: KerberosKms) -> None:
    answer = kerberos.ask("GET", NAMES, user="far", query={"doAs": "alice"}, headers={"X-Forwarded-For": "10.0.0.1"})
    assert answer.reason == "Forbidden"
    assert remote_exception_of(answer) == (
        403,
        AUTHORIZATION,
        f"Unauthorized connection for super-user: {kerberos.full('far')} from IP /127.0.0.1",
    )


@pytest.mark.parametrize("name", ["", "alice@ELSEWHERE", "a&b"])
def test_who_is_no_user_is_400(kerberos: KerberosKms, name: str) -> None:
    assert kerberos.ask("GET", NAMES, user="hive", query={"doAs": name}).status == 400


def test_an_acl_can_name_who_acts(kerberos: KerberosKms) -> None:
    path = "/kms/v1/key/absent/_metadata"
    assert kerberos.ask("GET", path, user="hive", query={"doAs": "alice"}).status == 200
    assert kerberos.ask("GET", path, user="alice").status == 403
    assert kerberos.ask("GET", path, user="hive").status == 403


def test_a_token_for_another_user_speaks_for_both(kerberos: KerberosKms) -> None:
    query = {"op": "GETDELEGATIONTOKEN", "renewer": "yarn", "doAs": "alice"}
    token = json_of(kerberos.ask("GET", "/kms/v1/", user="hive", query=query))["Token"]["urlString"]
    answer = kerberos.ask(
        "GET", "/kms/v1/key/absent/_metadata", headers={"X-Hadoop-Delegation-Token": token}, query={"doAs": "bob"}
    )
    assert answer.status == 200
    line = kerberos.place.audit_lines()[-1]
    assert (line["user"], line["real_user"], line["identity"]) == ("alice", "hive", "token")


def test_a_token_for_another_user_is_refused_with_the_short_name_and_without_a_session(kerberos: KerberosKms) -> None:
    query = {"op": "GETDELEGATIONTOKEN", "doAs": "bob"}
    answer = kerberos.ask("GET", "/kms/v1/", user="hive", query=query)
    assert remote_exception_of(answer)[2] == "User: hive is not allowed to impersonate bob"
    assert answer.header("Set-Cookie") is None
