"""Leases through two instances on one database: one holder for both, and none while the database is away."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from databases import DatabaseServer
from holding_proxy import holding_proxy
from kms_instances import Instance, running_pair

from ringfence_zones.client_config import ClientConfig
from ringfence_zones.errors import KmsRemoteError, KmsUnavailableError, LeaseHeldError
from ringfence_zones.kms_admin import AdminClient, open_admin_client
from ringfence_zones.kms_uri import parse_kms_uri
from ringfence_zones.leases import Lease

TAKERS = 20
KINDS = ["postgresql", pytest.param("mariadb", marks=pytest.mark.long)]


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> DatabaseServer:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, DatabaseServer)
    return found


def admin_of(instance: Instance) -> AdminClient:
    socket = instance.place.directory / "s"
    return open_admin_client(ClientConfig(kms_admin_socket=socket), parse_kms_uri("kms://http@localhost:9600/kms"))


def ends_of(outcomes: list[Lease | LeaseHeldError]) -> tuple[list[Lease], set[str]]:
    winners = [outcome for outcome in outcomes if isinstance(outcome, Lease)]
    return winners, {outcome.holder for outcome in outcomes if isinstance(outcome, LeaseHeldError)}


def test_of_twenty_takers_at_two_instances_one_gets_it(server: DatabaseServer, tmp_path: Path) -> None:
    with running_pair(server, tmp_path) as pair:
        admins = [admin_of(instance) for instance in pair.both]

        def take(number: int) -> Lease | LeaseHeldError:
            try:
                return admins[number % 2].take_lease("agent", f"taker-{number}", 60)
            except LeaseHeldError as error:
                return error

        with ThreadPoolExecutor(TAKERS) as takers:
            (winner,), told = ends_of(list(takers.map(take, range(TAKERS))))
        assert told == {winner.holder}
        # What one instance has given out, the other knows, renews and takes back; and so it does when that one died.
        for admin in admins:
            assert admin.get_lease("agent").holder == winner.holder
            assert admin.take_lease("agent", winner.holder, 60).epoch == winner.epoch
        pair.one.kill()
        with pytest.raises(LeaseHeldError):
            admins[1].take_lease("agent", "late", 60)
        assert admins[1].take_lease("agent", winner.holder, 60).epoch == winner.epoch
        admins[1].release_lease("agent", winner.holder)
        pair.one.start()
        assert admins[0].take_lease("agent", "late", 60).epoch == winner.epoch + 1


def test_while_the_database_is_away_nobody_gets_it_and_its_holder_knows_when_it_ends(
    server: DatabaseServer, tmp_path: Path
) -> None:
    with (
        holding_proxy(server.port) as proxy,
        running_pair(server, tmp_path, bound_s=2.0, ports=(server.port, proxy.port)) as pair,
    ):
        near, far = (admin_of(instance) for instance in pair.both)
        lease = far.take_lease("agent", "one", 2)
        proxy.be_gone()
        for holder in ("one", "two"):
            with pytest.raises((KmsUnavailableError, KmsRemoteError)) as caught:
                far.take_lease("agent", holder, 2)
            assert getattr(caught.value, "status", 503) == 503
        deadline_s = time.monotonic() + 60
        while True:
            try:
                taken = near.take_lease("agent", "two", 60)
                break
            except LeaseHeldError:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
        assert lease.left_s() == 0
        assert taken.epoch == lease.epoch + 1
        proxy.be_well()
        while True:
            try:
                far.take_lease("agent", "one", 2)
                raise AssertionError("two hold it")
            except LeaseHeldError as error:
                assert error.holder == "two"
                break
            except (KmsUnavailableError, KmsRemoteError):
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
