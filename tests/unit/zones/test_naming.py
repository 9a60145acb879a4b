"""Derived key names: exactly what the contract says, stable and without collisions."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_zones.keys import POLICY_KEY_NAME
from ringfence_zones.naming import derive_key_name
from ringfence_zones.paths import HdfsPath


def _hash(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:8]


@pytest.mark.parametrize(
    ("cluster", "path", "expected"),
    [
        ("analytics", "/data/pii", "analytics-data-pii"),
        ("analytics", "/a", "analytics-a"),
        ("analytics", "/a/b/c/1", "analytics-a-b-c-1"),
        ("analytics", "/", "analytics"),
        ("prod-eu", "/data", "prod-eu-data"),
        # Something other than "/" is lost: the hash of the path follows.
        ("analytics", "/data/PII", f"analytics-data-pii-{_hash('/data/PII')}"),
        ("analytics", "/data-pii", f"analytics-data-pii-{_hash('/data-pii')}"),
        ("analytics", "/data/my file", f"analytics-data-my-file-{_hash('/data/my file')}"),
        ("analytics", "/data/__x", f"analytics-data-x-{_hash('/data/__x')}"),
        ("analytics", "/donn\u00e9es", "analytics-donn-es-" + _hash("/donn\u00e9es")),
        ("analytics", "/\u6570\u636e", "analytics-" + _hash("/\u6570\u636e")),
        ("Analytics", "/data", f"analytics-data-{_hash('/data')}"),
        ("my.cluster", "/data", f"my-cluster-data-{_hash('/data')}"),
    ],
)
def test_a_name_is_lower_case_and_says_cluster_and_path(cluster: str, path: str, expected: str) -> None:
    assert derive_key_name(cluster, HdfsPath.parse(path)) == expected


def test_composed_and_decomposed_letters_get_two_names() -> None:
    names = {derive_key_name("c", HdfsPath.parse(path)) for path in ("/\u00e9", "/e\u0301")}
    assert len(names) == 2


_PARTS = st.text(st.sampled_from("abAB12-_. é"), min_size=1, max_size=4).filter(lambda part: part not in (".", ".."))
_PATHS = st.lists(_PARTS, min_size=1, max_size=4).map(lambda parts: HdfsPath(tuple(parts)))


@given(_PATHS, _PATHS)
def test_two_paths_never_share_a_name(one: HdfsPath, other: HdfsPath) -> None:
    same = derive_key_name("c", one) == derive_key_name("c", other)
    assert same == (one == other)


@given(_PATHS)
def test_every_derived_name_of_usual_length_is_a_key_name(path: HdfsPath) -> None:
    assert POLICY_KEY_NAME.fullmatch(derive_key_name("cluster", path))
