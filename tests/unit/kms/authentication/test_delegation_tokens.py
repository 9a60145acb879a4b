"""Delegation tokens on a store in memory: lives, rolls, instances that share a store, and forgeries."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Iterator
from dataclasses import replace
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kms_authenticators import call_with
from memory_keystore import MemoryKeyStore

from ringfence_agent.http.generation import GenerationTable
from ringfence_agent.kms.authentication.caller import Caller, Identity
from ringfence_agent.kms.authentication.delegation_token import Token, decode_url
from ringfence_agent.kms.authentication.delegation_tokens import DelegationTokens, TokenLifetimes
from ringfence_agent.kms.authentication.simple import plain_name
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_agent.kms.unready import Unready
from ringfence_agent.spnego.auth_to_local import AuthToLocal
from ringfence_zones.errors import AccessDeniedError, InputError, InvalidTokenError

T = TypeVar("T")
START_MS = 1_700_000_000_000
LIFETIMES = TokenLifetimes(1000, 400, 600, 100)
KEEP_MS = 50
DAY_MS = 86_400_000


class Clock:
    now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms


class Instance:
    """One KMS on a store that others may share; `worker` is a counter of the shared generation."""

    def __init__(
        self,
        store: MemoryKeyStore,
        clock: Clock,
        table: GenerationTable | None = None,
        identity: Identity = Identity.TOKEN,
    ) -> None:
        table = table or GenerationTable(1)
        self.access = StoreAccess(store, GenerationTable(1).view(0), table.view(0))
        names = AuthToLocal("DEFAULT", "REALM").short_name
        self.tokens = DelegationTokens(self.access, LIFETIMES, identity, names, clock, KEEP_MS)

    def issue(self, owner: str = "alice", renewer: str | None = "yarn", real_user: str | None = None) -> str:
        return run(self.tokens.issue(owner, renewer, real_user, None))

    def verify(self, token: str) -> Caller:
        call = call_with()
        try:
            return self.tokens.verify(call, token.encode())
        except Unready as missing:
            run(missing.load())
        assert call.session is not None
        return call.session

    def is_remembered(self, token: str) -> bool:
        with contextlib.suppress(Unready):
            self.tokens.verify(call_with(), token.encode())
            return True
        return False

    def renew(self, token: str, renewer: str = "yarn") -> int:
        return run(self.tokens.renew(token, renewer))

    def cancel(self, token: str, canceller: str | None = None) -> None:
        run(self.tokens.cancel(token, canceller))


def run(awaitable: Awaitable[T]) -> T:
    async def inner() -> T:
        return await awaitable

    return asyncio.run(inner())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> MemoryKeyStore:
    return MemoryKeyStore()


@pytest.fixture
def instance(store: MemoryKeyStore, clock: Clock) -> Iterator[Instance]:
    made = Instance(store, clock)
    yield made
    made.access.close()


def test_a_token_speaks_for_its_owner_and_is_remembered(instance: Instance) -> None:
    token = instance.issue()
    for _ in range(2):
        caller = instance.verify(token)
        assert (caller.user, caller.identity, caller.real_user, caller.is_token) == (
            "alice",
            Identity.TOKEN,
            None,
            True,
        )
    assert instance.is_remembered(token)


def test_the_names_in_a_token_become_short_names(instance: Instance) -> None:
    caller = instance.verify(instance.issue("alice@REALM", "yarn/host@REALM", "oozie@REALM"))
    assert (caller.user, caller.real_user) == ("alice", "oozie")
    _, identifier = decode_url(instance.issue("alice", "yarn/host@REALM").encode())
    assert (identifier.owner, identifier.renewer) == ("alice", "yarn")


def test_without_a_renewer_the_owner_renews(instance: Instance) -> None:
    assert instance.renew(instance.issue(renewer=None), "alice") > START_MS


def test_a_real_user_that_is_the_owner_acts_for_nobody(instance: Instance) -> None:
    assert instance.verify(instance.issue("alice", "yarn", "alice")).real_user is None


@pytest.mark.parametrize("renewer", ["x" * 300, "a\nb", "bob@ELSEWHERE"])
def test_a_renewer_that_is_no_user_is_refused(instance: Instance, renewer: str) -> None:
    with pytest.raises(InputError):
        instance.issue(renewer=renewer)


def test_an_expired_token_is_refused_in_hadoops_words_until_it_is_renewed(instance: Instance, clock: Clock) -> None:
    token = instance.issue()
    instance.verify(token)
    clock.now_ms += 401
    with pytest.raises(InvalidTokenError) as caught:
        instance.verify(token)
    assert caught.value.message == (
        "org.apache.hadoop.security.token.SecretManager$InvalidToken: Token  has expired, current time:"
        " 2023-11-14 22:13:20,401+0000 expected renewal time: 2023-11-14 22:13:20,400+0000"
    )
    assert instance.renew(token) == START_MS + 801
    assert instance.verify(token).user == "alice"


def test_renewals_grow_by_milliseconds_and_end_at_the_maximum_life(instance: Instance, clock: Clock) -> None:
    token = instance.issue()
    dates = []
    for _ in range(3):
        clock.now_ms += 3
        dates.append(instance.renew(token))
    assert dates == [START_MS + 403, START_MS + 406, START_MS + 409]
    for now_ms, expires_ms in ((500, 900), (900, 1000)):
        clock.now_ms = START_MS + now_ms
        assert instance.renew(token) == START_MS + expires_ms
    clock.now_ms = START_MS + 1001
    with pytest.raises(InvalidTokenError, match=r"yarn tried to renew an expired token .*max expiration date"):
        instance.renew(token)


def test_only_the_renewer_renews_and_the_sentence_is_hadoops(instance: Instance) -> None:
    token = instance.issue("client", "client1")
    with pytest.raises(AccessDeniedError) as caught:
        instance.renew(token, "client")
    assert caught.value.message == (
        "client tries to renew a token (kms-dt owner=client, renewer=client1, realUser=,"
        f" issueDate={START_MS}, maxDate={START_MS + 1000}, sequenceNumber=1, masterKeyId=1)"
        " with non-matching renewer client1"
    )
    with pytest.raises(AccessDeniedError, match="without a renewer"):
        instance.renew(instance.issue(renewer=""), "")


def test_owner_renewer_and_whoever_has_the_token_may_cancel_it(instance: Instance) -> None:
    for canceller in ("alice", "yarn", None):
        token = instance.issue()
        instance.verify(token)
        with pytest.raises(AccessDeniedError, match="bob is not authorized to cancel"):
            instance.cancel(token, "bob")
        instance.cancel(token, canceller)
        with pytest.raises(InvalidTokenError, match="Token for real user: , can't be found in cache"):
            instance.verify(token)
        with pytest.raises(InvalidTokenError, match="Renewal request for unknown token"):
            instance.renew(token)
        for again in ("alice", None):
            with pytest.raises(InvalidTokenError):
                instance.cancel(token, again)


def test_whoever_has_an_expired_token_cannot_cancel_it_but_its_owner_can(instance: Instance, clock: Clock) -> None:
    token = instance.issue()
    clock.now_ms += 401
    with pytest.raises(InvalidTokenError, match="has expired"):
        instance.cancel(token)
    instance.cancel(token, "alice")


def test_a_token_of_one_instance_is_good_at_another(store: MemoryKeyStore, clock: Clock) -> None:
    one, other = Instance(store, clock), Instance(store, clock)
    token = one.issue()
    assert other.verify(token).user == "alice"
    assert other.renew(token) == START_MS + 400
    other.cancel(token)
    with pytest.raises(InvalidTokenError):
        one.renew(token)
    one.access.close()
    other.access.close()


def test_a_cancel_is_seen_at_once_by_workers_and_within_the_bound_elsewhere(
    store: MemoryKeyStore, clock: Clock
) -> None:
    table = GenerationTable(1)
    one, neighbour, elsewhere = Instance(store, clock, table), Instance(store, clock, table), Instance(store, clock)
    token = one.issue()
    for each in (one, neighbour, elsewhere):
        each.verify(token)
    one.cancel(token)
    for each in (one, neighbour):
        with pytest.raises(InvalidTokenError):
            each.verify(token)
    assert elsewhere.is_remembered(token)
    clock.now_ms += KEEP_MS + 1
    with pytest.raises(InvalidTokenError):
        elsewhere.verify(token)
    for each in (one, neighbour, elsewhere):
        each.access.close()


def test_a_clock_set_back_makes_no_memory_live_longer(instance: Instance, clock: Clock) -> None:
    token = instance.issue()
    instance.verify(token)
    clock.now_ms -= 10_000
    assert not instance.is_remembered(token)


def test_master_keys_roll_and_old_tokens_live_on(store: MemoryKeyStore, instance: Instance, clock: Clock) -> None:
    first = instance.issue()
    clock.now_ms += 300
    instance.renew(first)
    clock.now_ms += 301
    second = instance.issue()
    assert [decode_url(token.encode())[1].master_key_id for token in (first, second)] == [1, 2]
    assert instance.verify(first).user == instance.verify(second).user == "alice"
    assert [key.expires_ms - key.created_ms for key in store.list_master_keys()] == [1600, 1600]
    assert len({key.secret.reveal() for key in store.list_master_keys()}) == 2
    assert {len(key.secret) for key in store.list_master_keys()} == {32}


def test_a_longer_life_configured_anew_rolls_the_key_that_would_not_last(
    store: MemoryKeyStore, instance: Instance, clock: Clock
) -> None:
    instance.issue()
    instance.tokens._lifetimes = replace(LIFETIMES, max_life_ms=100_000)
    _, identifier = decode_url(instance.issue().encode())
    assert identifier.master_key_id == 2
    assert store.list_master_keys()[1].expires_ms >= identifier.max_date_ms


def test_tokens_of_a_store_with_other_keys_are_forgeries(instance: Instance, clock: Clock) -> None:
    foreign = Instance(MemoryKeyStore(), clock)
    token = foreign.issue()
    instance.issue()
    with pytest.raises(InvalidTokenError, match="password doesn't match"):
        instance.verify(token)
    for attempt in (
        lambda: instance.renew(token),
        lambda: instance.cancel(token),
        lambda: instance.cancel(token, "alice"),
    ):
        with pytest.raises((InvalidTokenError, AccessDeniedError)):
            attempt()
    foreign.access.close()


def test_a_token_that_a_claimed_name_was_given_is_none_where_names_are_proven(
    store: MemoryKeyStore, instance: Instance, clock: Clock
) -> None:
    claimed = Instance(store, clock, identity=Identity.CLAIMED)
    token = claimed.issue()
    assert claimed.verify(token).identity is Identity.CLAIMED
    with pytest.raises(InvalidTokenError, match="password doesn't match"):
        instance.verify(token)
    with pytest.raises(InvalidTokenError):
        instance.cancel(token)
    with pytest.raises(AccessDeniedError, match="wrong password"):
        instance.renew(token)
    claimed.access.close()


def test_memory_is_bounded(instance: Instance) -> None:
    token = instance.issue()
    for number in range(4096):
        instance.tokens._known[b"%d" % number] = (0, Caller("x", Identity.TOKEN))
    instance.verify(token)
    assert len(instance.tokens._known) == 1


@pytest.fixture
def genuine(instance: Instance) -> Token:
    return decode_url(instance.issue(real_user="oozie").encode())[0]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(["identifier", "password"]), place=st.integers(0, 1000), change=st.integers(1, 255))
def test_no_changed_byte_of_identifier_or_password_is_accepted(
    instance: Instance, genuine: Token, field: str, place: int, change: int
) -> None:
    changed = bytearray(getattr(genuine, field))
    changed[place % len(changed)] ^= change
    forged = replace(genuine, **{field: bytes(changed)}).encode_url()
    with pytest.raises(InvalidTokenError):
        instance.verify(forged)
    for attempt in (instance.renew, instance.cancel):
        with pytest.raises((InvalidTokenError, AccessDeniedError)):
            attempt(forged)


@pytest.mark.parametrize("sequence", [0, -1, 2**31 - 1])
def test_a_number_that_was_never_given_out_is_no_token(instance: Instance, sequence: int) -> None:
    token, identifier = decode_url(instance.issue().encode())
    forged = Token(replace(identifier, sequence=sequence).encode(), token.password).encode_url()
    with pytest.raises(InvalidTokenError):
        instance.verify(forged)


def test_what_expired_two_days_ago_is_removed(store: MemoryKeyStore, instance: Instance, clock: Clock) -> None:
    instance.issue()
    clock.now_ms += 401 + 2 * DAY_MS

    async def scan() -> None:
        task = asyncio.create_task(instance.tokens.keep_clean())
        await asyncio.wait_for(asyncio.to_thread(wait_until_removed), 20)
        task.cancel()

    def wait_until_removed() -> None:
        deadline = time.monotonic() + 10
        while store.find_token(1) is not None:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    run(scan())


def test_a_server_whose_clock_is_a_day_ahead_takes_no_token_from_the_others(
    store: MemoryKeyStore, instance: Instance, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = Clock()
    ahead.now_ms = clock.now_ms + DAY_MS
    elsewhere, scanned = Instance(store, ahead), threading.Event()
    real = store.remove_expired

    def remove_expired(now_ms: int) -> int:
        removed = real(now_ms)
        scanned.set()
        return removed

    async def scan() -> None:
        task = asyncio.create_task(elsewhere.tokens.keep_clean())
        assert await asyncio.to_thread(scanned.wait, 20)
        task.cancel()

    monkeypatch.setattr(store, "remove_expired", remove_expired)
    token = instance.issue()
    with pytest.raises(InvalidTokenError):
        elsewhere.verify(token)
    run(scan())
    assert instance.verify(token).user == "alice"
    assert instance.renew(token) == START_MS + 400
    elsewhere.access.close()


def test_what_expired_longer_ago_than_hadoop_keeps_it_is_not_renewed(instance: Instance, clock: Clock) -> None:
    instance.tokens._lifetimes = replace(LIFETIMES, max_life_ms=100_000)
    token = instance.issue()
    clock.now_ms += 400 + LIFETIMES.removal_scan_ms
    assert instance.renew(token) == clock.now_ms + 400
    clock.now_ms += 400 + LIFETIMES.removal_scan_ms + 1
    with pytest.raises(InvalidTokenError, match="Renewal request for unknown token"):
        instance.renew(token)


def test_under_simple_authentication_names_stay_as_they_are(store: MemoryKeyStore, clock: Clock) -> None:
    access = StoreAccess(store, GenerationTable(1).view(0), GenerationTable(1).view(0))
    tokens = DelegationTokens(access, LIFETIMES, Identity.CLAIMED, plain_name, clock, KEEP_MS)
    call = call_with()
    with pytest.raises(Unready) as missing:
        tokens.verify(call, run(tokens.issue("nn/host@REALM", None, None, "svc")).encode())
    run(missing.value.load())
    assert call.session is not None
    assert (call.session.user, call.session.identity) == ("nn/host@REALM", Identity.CLAIMED)
    access.close()
