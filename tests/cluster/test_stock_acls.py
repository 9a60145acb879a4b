"""Hadoop's own KMSACLs, AccessControlList and Groups against ours, on files and users that a generator made up."""

from __future__ import annotations

import random
from html import escape
from pathlib import Path

import pytest
from stock_acls import KEY_OPERATIONS, OPERATIONS, REFUSED, Person, ask_hadoop, questions

from ringfence_agent.keystore.interface import PolicyRevision
from ringfence_agent.kms.authorization.access import AccessRules, Subject
from ringfence_agent.kms.authorization.acl_file import AclFile
from ringfence_agent.kms.authorization.acls import KeyOperation, Operation, read_acls
from ringfence_agent.kms.authorization.groups_config import parse_static_mapping
from ringfence_agent.kms.authorization.published import read_published
from ringfence_zones.errors import AccessDeniedError, ConfigError
from ringfence_zones.hadoop_conf import HadoopConf
from ringfence_zones.policy import canonical_json, parse_policy
from ringfence_zones.stock_acls import stock_acls

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

PEOPLE = (
    Person("alice"),
    Person("bob", ("staff",)),
    Person("carol", ("staff", "pii readers", "ops")),
    Person("dave", ("Staff",), real_user="oozie"),
    Person("alice", (), real_user="hive"),
    Person("*", ("*",)),
)
KEYS = ("k", "k.READ", "a.b.c", "K", "never.mentioned")
_NAMES = ("alice", "bob", "carol", "dave", "oozie", "~oozie", "~hive", "~", "*", "ALICE", "al ice")
_GROUPS = ("staff", "Staff", "ops", "pii readers", "*", "nobody")
_SEPARATORS = (",", ", ", " ,", "\n", ",\n  ", ",,", "\t,", "\u00a0,", ";", " ")
_PADDINGS = ("", "", "", " ", "\n    ", "\t", "\u00a0", "  ")
_CASES = 400


def access_text(random_: random.Random) -> str:
    """A value as people write them, and as nobody should."""
    shape = random_.random()
    if shape < 0.25:
        return random_.choice(["*", " * ", "* ", "", " ", "  ", "\n", "**", "*,alice", "alice *", "*staff"])
    users = random_.sample(_NAMES, random_.randint(0, 3))
    groups = random_.sample(_GROUPS, random_.randint(0, 2))
    text = random_.choice(_SEPARATORS).join(users)
    if groups or random_.random() < 0.3:
        text += random_.choice([" ", " ", "  ", "\n", " \n "]) + random_.choice(_SEPARATORS).join(groups)
    return random_.choice(_PADDINGS) + text + random_.choice(_PADDINGS)


def property_name(random_: random.Random) -> str:
    operation = random_.choice([*Operation, *KeyOperation]).value
    key = random_.choice([*KEYS, "", ".", "k.", "other"])
    return random_.choice(
        [
            f"hadoop.kms.acl.{operation}",
            f"hadoop.kms.blacklist.{operation}",
            f"key.acl.{key}.{operation}",
            f"key.acl.{key}.{operation}",
            f"default.key.acl.{operation}",
            f"whitelist.key.acl.{operation}",
            random_.choice(["key.acl.READ", "key.acl.k.read", "key.acl..READ", " key.acl.k.READ ", "hadoop.kms.acl."]),
        ]
    )


def acl_file(random_: random.Random) -> str:
    lines = ["<configuration>"]
    for _ in range(random_.randint(0, 14)):
        name, value = escape(property_name(random_)), escape(access_text(random_))
        final = random_.choice(["", "", "", "<final>true</final>", "<final>false</final>", "<final> true</final>"])
        lines.append(
            random_.choice(
                [f"<property><name>{name}</name><value>{value}</value>{final}</property>"] * 8
                + [
                    f"<property><name>{name}</name><value><![CDATA[{value}]]></value></property>",
                    f'<property name="{name.strip()}" value="{value.strip()}"/>',
                    f"<property><name>{name}</name><value>al<!-- a remark -->ice</value></property>",
                    f"<property><name>{name}</name></property>",
                    f"<property><name>{name}</name><value/></property>",
                    f"<property><value>{value}</value></property>",
                    f"<!-- <property><name>{name}</name><value>*</value></property> -->",
                ]
            )
        )
    return "\n".join([*lines, "</configuration>", ""])


FIXED: dict[str, str | None] = {
    "no-file": None,
    "empty-file": "",
    "no-properties": "<configuration/>",
    "torn": "<configuration><property><name>hadoop.kms.acl.GET</name><value> </value>",
    "foreign": "<acls/>",
    "empty-value": "<configuration><property><name>hadoop.kms.acl.GET</name><value></value></property>"
    "<property><name>default.key.acl.READ</name><value>*</value></property>"
    "<property><name>key.acl.k.READ</name><value></value></property></configuration>",
    "blank-value": "<configuration><property><name>hadoop.kms.acl.GET</name><value> </value></property>"
    "<property><name>default.key.acl.READ</name><value>*</value></property>"
    "<property><name>key.acl.k.READ</name><value> </value></property></configuration>",
}


# What we refuse and Hadoop does not, with the reason.
STRICTER = {"foreign": "a file that holds no <configuration> is somebody's mistake, not a list without entries"}


def our_answers(directory: Path) -> str:
    try:
        acls = AclFile(directory).load()
    except ConfigError:
        return REFUSED
    answers = []
    for person in PEOPLE:
        access = AccessRules(acls, lambda _, person=person: frozenset(person.groups))
        subject = Subject(person.user, person.real_user)
        answers += [access.decide_operation(subject, operation).allowed for operation in OPERATIONS]
        for key in KEYS:
            answers += [access.decide_key(subject, key, key, operation).allowed for operation in KEY_OPERATIONS]
            answers.append(may_create(access, subject, key))
    return "".join("01"[allowed] for allowed in answers)


def may_create(access: AccessRules, subject: Subject, key: str) -> bool:
    try:
        access.require_creation(subject, key, None)
    except AccessDeniedError:
        return False
    return True


def test_every_decision_is_the_one_that_hadoops_classes_make(tmp_path: Path) -> None:
    random_ = random.Random(20)  # the same files in each run
    cases = FIXED | {f"case-{number:03}": acl_file(random_) for number in range(_CASES)}
    root = tmp_path / "cases"
    root.mkdir()
    hadoops, _ = ask_hadoop(root, cases, PEOPLE, KEYS)
    assert set(hadoops) == set(cases)
    asked = questions(PEOPLE, KEYS)
    differences = []
    for name in cases:
        ours = our_answers(root / name)
        if name in STRICTER:
            assert (ours, hadoops[name][:1]) == (REFUSED, "1"), f"{name} is no difference any more"
        elif ours != hadoops[name]:
            which = [
                f"{who} {what!r} {to}: Hadoop {theirs}, ours {our}"
                for (who, what, to), theirs, our in zip(asked, hadoops[name], ours, strict=False)
                if theirs != our
            ]
            differences.append(f"{name}: {hadoops[name][:7]} {ours[:7]}\n{cases[name]}\n" + "\n".join(which[:4]))
    assert not differences, f"{len(differences)} differ:\n" + "\n\n".join(differences[:5])
    # A generator that only made files which admit nobody, or everybody, would prove nothing.
    generated = "".join(answers for name, answers in hadoops.items() if name.startswith("case-"))
    assert 0.1 < generated.count("1") / len(generated) < 0.9


MAPPINGS = (
    "dr.who=;",
    "alice=staff",
    "alice=staff,ops;bob=",
    " alice=staff",
    "alice= staff",
    "alice=staff;\nbob=ops",
    "alice",
    "=staff",
    "alice==staff",
    "alice=staff=ops",
    ";;",
    ";",
    "alice=staff;alice=ops",
    "alice=staff,,ops",
)


def test_static_groups_are_read_as_hadoop_reads_them(tmp_path: Path) -> None:
    users = ("alice", "bob", " alice", "staff", "dr.who")
    root = tmp_path / "cases"
    root.mkdir()
    _, hadoops = ask_hadoop(root, {}, mappings=MAPPINGS, users=users)
    ours = []
    for mapping in MAPPINGS:
        try:
            static = parse_static_mapping(mapping)
        except ConfigError:
            ours.append(REFUSED)
            continue
        found = {user: ",".join(sorted(static[user])) if user in static else "-" for user in users}
        ours.append("".join(f"{user}={found[user]};" for user in users).replace("\n", "\\n"))
    assert dict(zip(MAPPINGS, ours, strict=True)) == dict(zip(MAPPINGS, hadoops, strict=True))


POLICY = """
version: 1
cluster: c
zones:
  - {path: /k, key: k, owner: alice, group: ops, mode: "0750", readers: ["@staff"]}
  - {path: /open, key: a.b.c, readers: ["*"], writers: [bob]}
  - {path: /closed, key: never.mentioned}
kms: {namenode_users: [dave], admins: [bob, "@ops"]}
"""
POLICY_KEYS = ("k", "a.b.c", "never.mentioned")


def published_answers() -> list[bool]:
    policy = parse_policy(POLICY, "p")
    answers = []
    for person in PEOPLE:
        access = AccessRules(read_acls(HadoopConf({})), lambda _, person=person: frozenset(person.groups))
        access.use_published(read_published(PolicyRevision(1, canonical_json(policy), "", "", 0)))
        subject = Subject(person.user, person.real_user)
        answers += [access.decide_key(subject, key, key, op).allowed for key in POLICY_KEYS for op in KEY_OPERATIONS]
    return answers


def test_a_stock_kms_with_the_written_acls_decides_as_ours_with_the_published_policy(tmp_path: Path) -> None:
    root = tmp_path / "cases"
    root.mkdir()
    policy = parse_policy(POLICY, "p")
    shipped = "".join(
        f"<property><name>{name}</name><value>*</value></property>"
        for name in ("hadoop.kms.acl.GET", *(f"default.key.acl.{op.value}" for op in KEY_OPERATIONS), "key.acl.k.READ")
    )
    merged = stock_acls(policy, f"<configuration>{shipped}</configuration>".encode(), "kms-acls.xml")
    cases = {
        "alone": stock_acls(policy, None, "").document.decode(),
        "merged": merged.document.decode(),
    }
    hadoops, _ = ask_hadoop(root, cases, PEOPLE, POLICY_KEYS)
    asked = questions(PEOPLE, POLICY_KEYS)
    wanted = published_answers()
    assert 0 < sum(wanted) < len(wanted)
    for name in cases:
        answers = list(zip(asked, hadoops[name], strict=True))
        assert [answer == "1" for (_, key, to), answer in answers if key and to != "create"] == wanted, name
        assert not [who for (who, key, to), answer in answers if not key and to == "GET" and answer == "1"], name
