"""EMR's releases: their labels, their order, and what a node of each is like.

Two trains carry labels: `emr-X.Y.Z`, with every engine, and `emr-spark-X.Y.Z`, with Spark alone. A release of the
Spark train comes after every release of the other one with a smaller number, which is how "since 7.4.0" is to be read
for it; what the train leaves out says `lacks`.

Facts are those of AWS's release pages as of autumn 2026. They are what to expect: whoever stands on a node reads the
node's own files. A release that came later is taken for the newest one known of its train, and `is_known` says so.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TypeAlias

from ringfence_zones.errors import InputError

Version: TypeAlias = tuple[int, int, int]

_LABEL = re.compile(r"(emr|emr-spark)-(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})")
_BARE = re.compile(r"[0-9]+\.[0-9]+(\.[0-9]+)?")


class Train(enum.StrEnum):
    """Which series of releases a label belongs to."""

    EMR = "emr"
    SPARK = "emr-spark"


class Init(enum.StrEnum):
    """What starts services on a node."""

    UPSTART = "upstart"
    SYSTEMD = "systemd"


class Feature(enum.Enum):
    """What came with a release; `since` is the first of the train `emr` that has it."""

    since: Version

    def __new__(cls, value: str, since: Version) -> Feature:
        member = object.__new__(cls)
        member._value_ = value
        member.since = since
        return member

    TRANSPARENT_ENCRYPTION = "HDFS encryption zones", (4, 1, 0)
    SECURITY_CONFIGURATION = "security configurations", (4, 8, 0)
    CUSTOM_AMI = "custom AMIs", (5, 7, 0)
    KERBEROS = "Kerberos", (5, 10, 0)
    EXTERNAL_KDC = "an external KDC", (5, 20, 0)
    THREE_PRIMARIES = "three primary nodes", (5, 23, 0)
    EBS_ENCRYPTION = "EBS encryption", (5, 24, 0)
    THREE_PRIMARIES_WITH_ZONES = "encryption zones with three primary nodes", (5, 27, 0)
    CONCURRENT_STEPS = "concurrent steps", (5, 28, 0)
    LOG_ENCRYPTION = "encryption of logs with a key of one's own", (5, 30, 0)
    RUNTIME_ROLES = "runtime roles for steps", (6, 7, 0)
    HOSTNAME_VERIFIER_SETTING = "hadoop.ssl.hostname.verifier by core-site", (7, 3, 0)
    RUNTIME_ROLES_WITH_CLOUDWATCH_AGENT = "the CloudWatch agent beside runtime roles", (7, 6, 0)
    S3A_IS_DEFAULT = "S3A as the default for s3://", (7, 10, 0)
    EMR_CERTIFICATES = "certificates that EMR makes", (7, 11, 0)


@dataclass(frozen=True, slots=True)
class NodePlatform:
    """What Ringfence finds on nodes of a release. `default_java` and `javas` are major versions."""

    default_java: int
    javas: tuple[int, ...]
    init: Init
    pythons: tuple[str, ...]


# The first release of each row; a row holds up to the next. Newest last.
_ROWS: tuple[tuple[Version, NodePlatform], ...] = (
    ((4, 0, 0), NodePlatform(7, (7, 8), Init.UPSTART, ("2.7",))),
    ((5, 0, 0), NodePlatform(8, (8,), Init.UPSTART, ("2.7",))),
    ((5, 30, 0), NodePlatform(8, (8,), Init.SYSTEMD, ("2.7", "3.7"))),
    ((6, 12, 0), NodePlatform(8, (8, 11, 17), Init.SYSTEMD, ("2.7", "3.7"))),
    ((7, 0, 0), NodePlatform(17, (8, 11, 17), Init.SYSTEMD, ("3.9",))),
    ((7, 1, 0), NodePlatform(17, (8, 11, 17), Init.SYSTEMD, ("3.9", "3.11"))),
)
# Its system Python is 3.9; those are what applications use.
_SPARK_ROWS: tuple[tuple[Version, NodePlatform], ...] = (
    ((8, 0, 0), NodePlatform(17, (17, 21), Init.SYSTEMD, ("3.11", "3.12", "3.13"))),
)
NEWEST: dict[Train, Version] = {Train.EMR: (7, 14, 0), Train.SPARK: (8, 0, 0)}
_OLDEST: dict[Train, Version] = {Train.EMR: (4, 0, 0), Train.SPARK: (8, 0, 0)}
# Releases before 5.32 and 6.2 that IMDSv2 alone is enough for.
_METADATA_V2_EXCEPTIONS: frozenset[Version] = frozenset({(5, 23, 1), (5, 27, 1)})
# What the Spark train leaves out of what the other has.
_SPARK_LACKS = frozenset({"EMRFS", "AWS SDK for Java 1", "Hive", "HCatalog", "Hue", "Oozie", "Ranger KMS"})


@dataclass(frozen=True, slots=True)
class Release:
    """One release. Comparisons go by `version`; `has` is the question to ask."""

    label: str
    train: Train
    version: Version

    def __str__(self) -> str:
        return self.label

    def at_least(self, *version: int) -> bool:
        """Whether it is that release or a later one: `at_least(5, 24)`."""
        return self.version >= (*version, 0, 0)[:3]

    def has(self, feature: Feature) -> bool:
        """Whether the release has it. Encryption of logs is missing from 6.0.0, which came from an older branch."""
        if feature is Feature.LOG_ENCRYPTION and self.version == (6, 0, 0):
            return False
        return self.version >= feature.since

    def lacks(self, component: str) -> bool:
        """Whether the train has dropped it: EMRFS, AWS SDK for Java 1, Hive, HCatalog, Hue, Oozie, Ranger KMS."""
        return self.train is Train.SPARK and component in _SPARK_LACKS

    @property
    def is_known(self) -> bool:
        """Whether this version of Ringfence knows releases as new as this one."""
        return self.version <= NEWEST[self.train]

    @property
    def starts_with_metadata_v2_alone(self) -> bool:
        """Whether nodes start when the instance metadata service takes version 2 alone."""
        return self.version in _METADATA_V2_EXCEPTIONS or self.at_least(6, 2) or (5, 32, 0) <= self.version < (6, 0, 0)

    @property
    def node(self) -> NodePlatform:
        """What its nodes are like."""
        rows = _SPARK_ROWS if self.train is Train.SPARK else _ROWS
        return next(facts for since, facts in reversed(rows) if self.version >= since)

    @property
    def is_hadoop_3(self) -> bool:
        """Whether its Hadoop is of version 3."""
        return self.at_least(6, 0)

    @property
    def local_disk_algorithm(self) -> str:
        """The algorithm of the key that a provider of one's own gives for local disks."""
        return "AES" if self.at_least(7, 1) else "AES/GCM/NoPadding"


def parse_release(label: str) -> Release:
    """The release that a label names. Raises InputError for what is no label, or one older than releases are."""
    match = _LABEL.fullmatch(label)
    if match is None:
        hint = f"write it as EMR does, such as emr-{spelled_version(NEWEST[Train.EMR])}"
        if _BARE.fullmatch(label):
            bare = label if label.count(".") == 2 else f"{label}.0"
            hint = f"write emr-{bare}"
        raise InputError(f"{label!r} is no release label", hint=hint)
    train = Train(match.group(1))
    version = (int(match.group(2)), int(match.group(3)), int(match.group(4)))
    if version < _OLDEST[train]:
        oldest = spelled_version(_OLDEST[train])
        raise InputError(f"there is no release {label}", hint=f"labels of this form begin with {train}-{oldest}")
    return Release(f"{train}-{spelled_version(version)}", train, version)


def spelled_version(version: Version) -> str:
    """`5.24.0`."""
    return ".".join(str(part) for part in version)
