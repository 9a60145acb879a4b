"""Release labels: what they parse to, how they compare, and what nodes of them are like."""

from __future__ import annotations

import pytest

from ringfence_bootstrap.releases import NEWEST, Feature, Init, Train, parse_release, spelled_version
from ringfence_zones.errors import InputError


@pytest.mark.parametrize(
    ("label", "train", "version"),
    [
        ("emr-4.8.0", Train.EMR, (4, 8, 0)),
        ("emr-5.36.2", Train.EMR, (5, 36, 2)),
        ("emr-7.14.0", Train.EMR, (7, 14, 0)),
        ("emr-spark-8.0.0", Train.SPARK, (8, 0, 0)),
        ("emr-12.345.6", Train.EMR, (12, 345, 6)),
    ],
)
def test_labels_of_both_trains(label: str, train: Train, version: tuple[int, int, int]) -> None:
    release = parse_release(label)
    assert (release.label, release.train, release.version, str(release)) == (label, train, version, label)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("7.12.0", "write emr-7.12.0"),
        ("7.12", "write emr-7.12.0"),
        ("emr-7.12", "such as emr-7.14.0"),
        ("EMR-7.12.0", "such as"),
        ("emr-07.1.0", "such as"),
        ("emr-7.12.0\n", "such as"),
        ("emr-7.12.0-latest", "such as"),
        ("emr-٧.١.٠", "such as"),
        ("", "such as"),
        ("emr-1.2.3456789", "such as"),
        ("emr-3.11.0", "begin with emr-4.0.0"),
        ("emr-spark-7.0.0", "begin with emr-spark-8.0.0"),
    ],
)
def test_what_is_no_label_is_refused_with_the_way_to_write_one(text: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_release(text)
    assert hint in (caught.value.hint or "")


def test_releases_compare_by_number() -> None:
    assert parse_release("emr-5.24.0").has(Feature.EBS_ENCRYPTION)
    assert parse_release("emr-5.100.0").has(Feature.EBS_ENCRYPTION)
    assert not parse_release("emr-5.23.1").has(Feature.EBS_ENCRYPTION)
    assert parse_release("emr-6.0.0").at_least(5, 36, 9)
    assert not parse_release("emr-6.0.0").at_least(6, 0, 1)
    assert parse_release("emr-spark-8.0.0").has(Feature.EMR_CERTIFICATES)


def test_encryption_of_logs_is_missing_from_one_release_in_between() -> None:
    assert [
        parse_release(f"emr-{each}").has(Feature.LOG_ENCRYPTION) for each in ("5.29.0", "5.30.0", "6.0.0", "6.1.0")
    ] == [
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("label", "starts"),
    [
        ("emr-5.23.0", False),
        ("emr-5.23.1", True),
        ("emr-5.24.0", False),
        ("emr-5.27.1", True),
        ("emr-5.31.1", False),
        ("emr-5.32.0", True),
        ("emr-5.36.2", True),
        ("emr-6.0.0", False),
        ("emr-6.1.1", False),
        ("emr-6.2.0", True),
        ("emr-7.0.0", True),
        ("emr-spark-8.0.0", True),
    ],
)
def test_which_releases_start_with_version_2_of_the_metadata_service_alone(label: str, starts: bool) -> None:
    assert parse_release(label).starts_with_metadata_v2_alone is starts


@pytest.mark.parametrize(
    ("label", "java", "init", "python"),
    [
        ("emr-5.29.0", 8, Init.UPSTART, "2.7"),
        ("emr-5.36.2", 8, Init.SYSTEMD, "3.7"),
        ("emr-6.8.1", 8, Init.SYSTEMD, "3.7"),
        ("emr-6.15.0", 8, Init.SYSTEMD, "3.7"),
        ("emr-7.0.0", 17, Init.SYSTEMD, "3.9"),
        ("emr-7.12.0", 17, Init.SYSTEMD, "3.11"),
        ("emr-7.14.0", 17, Init.SYSTEMD, "3.11"),
        ("emr-spark-8.0.0", 17, Init.SYSTEMD, "3.13"),
        # Not known yet: as the newest one.
        ("emr-9.0.0", 17, Init.SYSTEMD, "3.11"),
    ],
)
def test_what_nodes_are_like(label: str, java: int, init: Init, python: str) -> None:
    node = parse_release(label).node
    assert (node.default_java, node.init, node.pythons[-1]) == (java, init, python)
    assert node.default_java in node.javas


def test_what_the_spark_train_leaves_out() -> None:
    spark, last = parse_release("emr-spark-8.0.0"), parse_release("emr-7.14.0")
    for component in ("EMRFS", "AWS SDK for Java 1", "Hive", "Hue", "Oozie", "Ranger KMS"):
        assert spark.lacks(component)
        assert not last.lacks(component)
    assert not spark.lacks("Spark")


def test_a_release_after_the_newest_known_one_says_so() -> None:
    for train, newest in NEWEST.items():
        assert parse_release(f"{train}-{spelled_version(newest)}").is_known
    assert not parse_release("emr-7.15.0").is_known
    assert not parse_release("emr-spark-8.0.1").is_known
