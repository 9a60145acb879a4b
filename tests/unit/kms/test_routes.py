from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_agent.kms.routes import Query, Resource, Route, Router
from ringfence_zones.errors import InputError


@pytest.mark.parametrize(
    ("path", "route"),
    [
        (b"/kms/v1/", Route(Resource.ROOT)),
        (b"/kms/v1", Route(Resource.ROOT)),
        (b"/kms/v1/keys", Route(Resource.KEYS)),
        (b"/kms/v1/keys/names", Route(Resource.KEY_NAMES)),
        (b"/kms/v1/keys/metadata/", Route(Resource.KEYS_METADATA)),
        (b"/kms/v1/key/k", Route(Resource.KEY, "k")),
        (b"/kms/v1/key/k/", Route(Resource.KEY, "k/")),
        (b"/kms/v1/key/k/_metadata/", Route(Resource.METADATA, "k")),
        (b"/kms/v1/key/", Route(Resource.KEY, "")),
        (b"/kms/v1/keyversion/k@0/", Route(Resource.KEY_VERSION, "k@0/")),
        (b"/kms/v1/key/k/_metadata", Route(Resource.METADATA, "k")),
        (b"/kms/v1/key/k/_currentversion", Route(Resource.CURRENT_VERSION, "k")),
        (b"/kms/v1/key/k/_versions", Route(Resource.VERSIONS, "k")),
        (b"/kms/v1/key/k/_eek", Route(Resource.GENERATE, "k")),
        (b"/kms/v1/key/k/_reencryptbatch", Route(Resource.REENCRYPT_BATCH, "k")),
        (b"/kms/v1/key/k/_invalidatecache", Route(Resource.INVALIDATE_CACHE, "k")),
        (b"/kms/v1/keyversion/k%400", Route(Resource.KEY_VERSION, "k@0")),
        (b"/kms/v1/keyversion/k@0/_eek", Route(Resource.OPEN_EEK, "k@0")),
        (b"/kms/v1/key/a%2Fb/_eek", Route(Resource.GENERATE, "a/b")),
        (b"/kms/v1/key/a/b/_eek", Route(Resource.GENERATE, "a/b")),
        (b"/kms/v1/key/a+b%20c", Route(Resource.KEY, "a+b c")),
        (b"/kms/v1/key//_eek", Route(Resource.GENERATE, "")),
        (b"/kms/v1/key/_eek", Route(Resource.KEY, "_eek")),
        (b"/ringfence/v1/status", Route(Resource.STATUS)),
        (b"/ringfence/v1/policy", Route(Resource.POLICY)),
        (b"/ringfence/v1/leases/agent", Route(Resource.LEASE, "agent")),
        (b"/ringfence/v1/leases/agent/", Route(Resource.LEASE, "agent")),
        (b"/ringfence/v1/leases/", Route(Resource.LEASE, "")),
        (b"/ringfence/v1/leases/a%2Fb/c", Route(Resource.LEASE, "a/b/c")),
        (b"/ringfence/v1/grants", Route(Resource.GRANTS)),
        (b"/ringfence/v1/grants/", Route(Resource.GRANTS)),
        (b"/ringfence/v1/grants/g-1", Route(Resource.GRANT, "g-1")),
    ],
)
def test_paths_name_their_resource(path: bytes, route: Route) -> None:
    router = Router()
    assert router.find_route(path) == route
    assert router.find_route(path) == route  # remembered


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"*",
        b"/kms/v1//keys",
        b"/kms/v1/keys/other",
        b"/kms/v10/keys",
        b"/KMS/v1/keys",
        b"/kms/v1/key",
        b"/ringfence/v1/leases",
    ],
)
def test_unknown_paths_are_nothing(path: bytes) -> None:
    assert Router().find_route(path) is None


@pytest.mark.parametrize("path", [b"/kms/v1/key/%ff", b"/kms/v1/key/" + b"a" * 1025])
def test_a_name_that_cannot_be_one_is_refused(path: bytes) -> None:
    with pytest.raises(InputError):
        Router().find_route(path)


def test_query_values_are_form_decoded_and_the_first_counts() -> None:
    query = Router().query(b"num_keys=150&eek_op=generate&num_keys=9&key=a+b&key=c%26d&DOAS=x&doas=y&user.name=u")
    assert query == Query(user_name="u", do_as="x", eek_op="generate", num_keys="150", keys=("a b", "c&d"))


def test_parameter_names_other_than_do_as_are_case_sensitive() -> None:
    assert Router().query(b"User.Name=u&EEK_OP=decrypt") == Query()


@pytest.mark.parametrize("raw", [b"user.name=%ff", b"user.name=\xff", b"&".join([b"a=1"] * 600)])
def test_a_query_that_cannot_be_read_is_refused(raw: bytes) -> None:
    with pytest.raises(InputError):
        Router().query(raw)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(path: bytes, query: bytes) -> None:
    router = Router()
    for read, raw in ((router.find_route, b"/kms/v1/key/" + path), (router.query, query)):
        try:
            read(raw)
        except InputError as error:
            assert error.message


def test_memory_is_bounded() -> None:
    router = Router()
    for number in range(20_000):
        router.find_route(b"/kms/v1/key/%d" % number)
        router.query(b"user.name=%d" % number)
    assert len(router._routes) <= 8192
    assert len(router._queries) <= 8192


def test_only_short_paths_and_queries_stay_in_memory() -> None:
    # Both are read before anybody is authenticated.
    router = Router()
    assert router.query(b"user.name=u") is router.query(b"user.name=u")
    assert router.find_route(b"/kms/v1/key/k") is router.find_route(b"/kms/v1/key/k")
    long_query, long_path = b"x=" + b"a" * 100_000, b"/kms/v1/key/" + b"%61" * 1000
    assert router.query(long_query) is not router.query(long_query)
    assert router.find_route(long_path) is not router.find_route(long_path)
