"""Who may ask the agent: the kernel says who it is, the configuration says who may."""

from __future__ import annotations

from typing import ClassVar

import pytest

from ringfence_agent.api.access import AccessRules, Accounts, Members, RememberedAccounts, SystemAccounts
from ringfence_agent.api.caller import Proof, Role
from ringfence_agent.http.request import Peer
from ringfence_zones.errors import AccessDeniedError, AuthenticationError


class _Accounts:
    names: ClassVar = {0: "root", 500: "ringfence", 1000: "hadoop", 1001: "analyst", 1002: "mallory"}
    groups: ClassVar = {"analyst": frozenset({"data", "analyst"}), "mallory": frozenset({"mallory"})}

    def find_name(self, uid: int) -> str | None:
        return self.names.get(uid)

    def groups_of(self, user: str) -> frozenset[str]:
        return self.groups.get(user, frozenset())


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _rules(accounts: Accounts | None = None) -> AccessRules:
    return AccessRules(
        viewers=Members.of(groups=["data"]),
        operators=Members.of(["hadoop"]),
        admins=Members.of(["boss"]),
        delegate_users=["hadoop"],
        trusted_uids=[0, 500],
        accounts=accounts or _Accounts(),
    )


def _peer(uid: int | None) -> Peer:
    return Peer(None, uid=uid, gid=uid, pid=1)


@pytest.mark.parametrize(
    ("uid", "user", "may_delegate"),
    [(0, "root", True), (500, "ringfence", True), (1000, "hadoop", True), (1001, "analyst", False)],
)
def test_root_the_agent_itself_and_the_listed_are_admitted(uid: int, user: str, may_delegate: bool) -> None:
    caller = _rules().admit_peer(_peer(uid))
    assert (caller.user, caller.may_delegate) == (user, may_delegate)


@pytest.mark.parametrize(
    ("uid", "role"), [(0, Role.ADMIN), (500, Role.ADMIN), (1000, Role.OPERATOR), (1001, Role.VIEWER)]
)
def test_everybody_has_the_role_of_the_list_that_names_them(uid: int, role: Role) -> None:
    caller = _rules().admit_peer(_peer(uid))
    assert (caller.roles, caller.verbs) == (role.included, role.verbs)


def test_a_proven_name_has_its_own_rights_and_never_those_of_a_uid() -> None:
    rules = _rules()
    assert rules.admit_name("boss", Proof.KERBEROS, "boss@REALM").roles == Role.ADMIN.included
    assert rules.admit_name("hadoop", Proof.CERTIFICATE, "CN=hadoop").roles == Role.OPERATOR.included
    for name in ("root", "ringfence", "mallory", ""):
        with pytest.raises(AccessDeniedError):
            rules.admit_name(name, Proof.KERBEROS, None)


def test_the_user_of_all_steps_is_an_administrator_by_no_list_and_no_group() -> None:
    rules = AccessRules(
        viewers=Members.of(["hadoop"]),
        admins=Members.of(["hadoop"], ["data"]),
        never_admins=["hadoop", "analyst"],
        trusted_uids=[],
        accounts=_Accounts(),
    )
    assert rules.admit_peer(_peer(1000)).roles == Role.VIEWER.included
    with pytest.raises(AccessDeniedError):
        rules.admit_peer(_peer(1001))  # in the group, and named nowhere else


def test_everybody_else_is_refused() -> None:
    with pytest.raises(AccessDeniedError, match="mallory may not use the agent"):
        _rules().admit_peer(_peer(1002))


@pytest.mark.parametrize("peer", [_peer(4711), _peer(None), Peer("127.0.0.1"), Peer("127.0.0.1", uid=0, gid=0, pid=1)])
def test_a_peer_without_a_name_of_this_machine_matches_no_rule(peer: Peer) -> None:
    with pytest.raises(AuthenticationError):
        _rules().admit_peer(peer)


def test_naming_another_user_needs_the_right_to() -> None:
    accounts = _Accounts()
    asked = _rules().admit_peer(_peer(1000)).on_behalf_of("analyst", accounts)
    assert (asked.user, asked.real_user, asked.groups) == ("analyst", "hadoop", frozenset({"data", "analyst"}))
    analyst = _rules().admit_peer(_peer(1001))
    assert analyst.on_behalf_of(None, accounts) == analyst.on_behalf_of("analyst", accounts) == analyst
    with pytest.raises(AccessDeniedError, match="on behalf of hdfs"):
        analyst.on_behalf_of("hdfs", accounts)
    # Once only: who is asked for asks for nobody.
    with pytest.raises(AccessDeniedError, match="on behalf of hdfs"):
        asked.on_behalf_of("hdfs", accounts)


def test_a_right_taken_away_is_gone_within_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock()
    rules = _rules(RememberedAccounts(_Accounts(), clock))
    rules.admit_peer(_peer(1001))
    monkeypatch.setattr(_Accounts, "groups", {})
    clock.now = 29.0
    rules.admit_peer(_peer(1001))
    clock.now = 31.0
    with pytest.raises(AccessDeniedError):
        rules.admit_peer(_peer(1001))


def test_the_machines_accounts_are_read() -> None:
    accounts = SystemAccounts()
    assert accounts.find_name(0) == "root"
    assert accounts.find_name(2**31 - 7) is None
    assert "root" in accounts.groups_of("root")
    assert accounts.groups_of("no-such-user-here") == frozenset()
