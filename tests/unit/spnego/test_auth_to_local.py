"""auth_to_local: the vectors come from Hadoop's own KerberosName, the refusals are ours."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_agent.spnego.auth_to_local import AuthToLocal, Mechanism
from ringfence_zones.errors import AuthenticationError, ConfigError

REALM = "TEST.LOCAL"
RULES = r"""
RULE:[2:$1@$0](nn@TEST.LOCAL)s/.*/hdfs/
RULE:[1:$1@$0](.*@OTHER)s/@.*///L
RULE:[2:$1;$2](^.*;admin$)s/;admin$//
DEFAULT
"""


@pytest.mark.parametrize(
    ("principal", "short"),
    [
        ("nn/localhost@TEST.LOCAL", "hdfs"),
        ("alice@TEST.LOCAL", "alice"),
        ("BOB@OTHER", "bob"),
        ("joe/admin@TEST.LOCAL", "joe"),
        ("hdfs/h@TEST.LOCAL", "hdfs"),
        ("plain", "plain"),
        ("client/host@TEST.LOCAL", "client"),
        ("machine$@TEST.LOCAL", "machine$"),
    ],
)
def test_hadoops_vectors(principal: str, short: str) -> None:
    rules = AuthToLocal(RULES, REALM)
    assert rules.short_name(principal) == short
    assert rules.short_name(principal) == short  # from memory


@pytest.mark.parametrize(
    ("principal", "why"),
    [
        ("x@NOPE", "No rules applied to x@NOPE"),
        ("a/b/c@TEST.LOCAL", "Malformed Kerberos name: a/b/c@TEST.LOCAL"),
        ("foo/localhost", "No rules applied"),
        (r"al\/ice@TEST.LOCAL", "not mapped"),
        ("a&b@TEST.LOCAL", "not mapped"),
        ("a b@TEST.LOCAL", "not mapped"),
        ("a\nb@TEST.LOCAL", "not mapped"),
        ("jörg@TEST.LOCAL", "not mapped"),
        ("a" * 300 + "@TEST.LOCAL", "too long"),
        ("a;b@TEST.LOCAL", "user name may not"),
        ("-rf@TEST.LOCAL", "user name may not"),
        ("a" * 70 + "@TEST.LOCAL", "user name may not"),
        ("", "user name may not"),
        ("a/b/c", "user name may not"),
    ],
)
def test_what_has_no_short_name(principal: str, why: str) -> None:
    with pytest.raises(AuthenticationError, match=why):
        AuthToLocal(RULES, REALM).short_name(principal)


def test_a_rule_that_yields_no_simple_name_ends_the_search() -> None:
    rules = AuthToLocal("RULE:[1:$1@$0] DEFAULT", REALM)
    with pytest.raises(AuthenticationError, match=r"Non-simple name alice@TEST\.LOCAL"):
        rules.short_name("alice@TEST.LOCAL")


def test_mit_keeps_what_no_rule_fits() -> None:
    rules = AuthToLocal("DEFAULT", REALM, Mechanism.MIT)
    assert rules.short_name("foo/localhost") == "foo/localhost"
    assert rules.short_name("bob@OTHER") == "bob@OTHER"
    assert rules.short_name("alice@TEST.LOCAL") == "alice"
    assert AuthToLocal("RULE:[1:$1@$0]", REALM, Mechanism.MIT).short_name("a@B") == "a@B"


@pytest.mark.parametrize(
    ("rules", "principal", "short"),
    [
        ("RULE:[1:$1]s/(a)(b)/$2$1/", "abab@X", "baab"),
        ("RULE:[1:$1]s/(a)(b)/$2$1/g", "abab@X", "baba"),
        (r"RULE:[1:$1]s/b/\$/", "ab@X", "a$"),
        ("RULE:[1:$1]s/.*/x/g", "ab@X", "xx"),  # as Java: once for all, once for the empty end
        ("RULE:[1:$1]s/[.]/_/g/L", "A.B@X", "a_b"),
        ("RULE:[2:$2-$1]", "svc/h@X", "h-svc"),
        ("RULE:[1:const]", "any@X", "const"),
        ("RULE:[1:$1@$0](never)RULE:[1:$1]", "a@X", "a"),
    ],
)
def test_substitution_is_javas(rules: str, principal: str, short: str) -> None:
    assert AuthToLocal(rules, REALM).short_name(principal) == short


@pytest.mark.parametrize(
    "rules",
    [
        "",
        "  ",
        "NONSENSE",
        "DEFAULT NONSENSE",
        "RULE:[:$1]",
        "RULE:[1:$2]",
        "RULE:[1:$]",
        r"RULE:[1:$1](\p{Alpha}+)",
        "RULE:[1:$1]([)",
        "RULE:[1:$1]s/a/$1/",
        "RULE:[1:$1]s/a/$/",
        "RULE:[1:$1]s/(a+)+$/x/",
        "RULE:[1:$1]s/((a*)b)*$/x/",
        "RULE:[1:$1]s/(a|b{2,})*c/x/",
        # Each of these took seconds to minutes for a name of 26 characters.
        "RULE:[1:$1]s/(a|a)*b/x/",
        "RULE:[1:$1]s/(?:.|a)+@X/x/",
        "RULE:[1:$1]s/(a?){26}b/x/",
        "RULE:[1:$1]s/((a|b)c)*d/x/",
    ],
)
def test_a_rule_that_cannot_be_used_stops_the_start(rules: str) -> None:
    with pytest.raises(ConfigError):
        AuthToLocal(rules, REALM)


@pytest.mark.parametrize("pattern", ["(?:nn|dn)-(x)?", "(a+)@", "^(.*)@(?=T)", "([ab]x)*", "(?:ab)+"])
def test_groups_that_cannot_explode_are_taken(pattern: str) -> None:
    AuthToLocal(f"RULE:[1:$1@$0]s/{pattern}/x/ DEFAULT", REALM)


def test_a_long_name_against_many_wildcards_is_decided_quickly() -> None:
    rules = AuthToLocal("RULE:[1:$1@$0](.*a.*a.*b@X) DEFAULT", REALM)
    started = time.process_time()
    with pytest.raises(AuthenticationError):
        rules.short_name("a" * 250 + "@Y")
    assert time.process_time() - started < 2.0


def test_service_principals_of_any_host_are_found() -> None:
    assert AuthToLocal("DEFAULT", REALM).maps_any_host("hdfs") == "hdfs"
    assert AuthToLocal("RULE:[1:$1]", REALM).maps_any_host("hdfs") is None


@given(st.text(max_size=300))
def test_any_name_has_a_clean_short_name_or_none(principal: str) -> None:
    try:
        short = AuthToLocal(RULES, REALM).short_name(principal)
    except AuthenticationError:
        return
    assert short.isascii() and short.isprintable() and not set(short) & set('/@&" \\;,')
