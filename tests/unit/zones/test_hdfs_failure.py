"""The table from Java's exceptions to ours: failures as a real NameNode and client produced them."""

from __future__ import annotations

import pytest

from ringfence_zones.errors import (
    AuthenticationError,
    HdfsError,
    HdfsNotFoundError,
    HdfsPermissionError,
    KmsRemoteError,
    KmsUnavailableError,
    NameNodeUnavailableError,
    SafeModeError,
)
from ringfence_zones.hdfs_failure import JavaFailure, Where, translate, translate_create_zone

WHERE = Where(namenode="nn:8020", user="etl")
SERVER_TRACE = "\n\tat org.apache.hadoop.hdfs.server.namenode.FSNamesystem.x(FSNamesystem.java:1)\n\tat java.base/y"
ACCESS_CONTROL = "org.apache.hadoop.security.AccessControlException"
REFUSED = (
    "Call From vm/127.0.0.1 to localhost:8020 failed on connection exception: java.net.ConnectException: Connection"
    " refused; For more details see:  http://wiki.apache.org/hadoop/ConnectionRefused"
)


@pytest.mark.parametrize(
    ("failure", "error_class", "words"),
    [
        (JavaFailure("java.net.ConnectException", REFUSED), NameNodeUnavailableError, "connection refused"),
        (
            JavaFailure("org.apache.hadoop.net.ConnectTimeoutException", "20000 millis timeout"),
            NameNodeUnavailableError,
            "timed out",
        ),
        (JavaFailure("java.net.NoRouteToHostException", "No route"), NameNodeUnavailableError, "no route to host"),
        (
            JavaFailure(
                "java.lang.IllegalArgumentException",
                "java.net.UnknownHostException: nn",
                causes=("java.net.UnknownHostException",),
            ),
            NameNodeUnavailableError,
            "unknown host",
        ),
        (JavaFailure("java.io.EOFException", "End of File Exception"), NameNodeUnavailableError, "broke off"),
        (
            JavaFailure(
                "org.apache.hadoop.hdfs.server.namenode.SafeModeException",
                "Cannot create directory /a. Name node is in safe mode.\nIt was turned on manually.",
                remote=True,
            ),
            SafeModeError,
            "safe mode",
        ),
        (
            # What a high-availability NameNode says while it starts.
            JavaFailure(
                "org.apache.hadoop.ipc.RetriableException",
                "org.apache.hadoop.hdfs.server.namenode.SafeModeException: Cannot create directory /a.",
                remote=True,
            ),
            SafeModeError,
            "safe mode",
        ),
        (
            JavaFailure("org.apache.hadoop.ipc.StandbyException", "Operation category READ is not supported", True),
            NameNodeUnavailableError,
            "active",
        ),
        (
            JavaFailure(
                ACCESS_CONTROL,
                "Access denied for user etl. Superuser privilege is required" + SERVER_TRACE,
                remote=True,
            ),
            HdfsPermissionError,
            "Superuser privilege is required",
        ),
        (
            JavaFailure("java.io.FileNotFoundException", "cannot find /nope" + SERVER_TRACE, remote=True),
            HdfsNotFoundError,
            "cannot find /nope",
        ),
        (
            JavaFailure("org.apache.hadoop.security.KerberosAuthException", "failure to login"),
            AuthenticationError,
            "failure to login",
        ),
        (
            JavaFailure("java.io.IOException", "DestHost:destPort ...", causes=("javax.security.sasl.SaslException",)),
            AuthenticationError,
            "did not accept",
        ),
        (JavaFailure("java.io.IOException", "something new." + SERVER_TRACE, remote=True), HdfsError, "something new"),
        (JavaFailure("java.lang.NullPointerException", ""), HdfsError, "NullPointerException"),
    ],
)
def test_each_java_failure_becomes_our_error(failure: JavaFailure, error_class: type, words: str) -> None:
    error = translate(failure, WHERE)
    assert type(error) is error_class
    assert words in error.message
    assert "\n" not in error.message
    assert "\tat " not in error.message
    assert "java.net." not in error.message


def test_the_server_side_stack_trace_and_nested_class_names_never_reach_the_sentence() -> None:
    message = "java.util.concurrent.ExecutionException: java.io.IOException: the cause." + SERVER_TRACE
    assert JavaFailure("x.Y", message).sentence == "the cause"


@pytest.mark.parametrize(
    ("failure", "error_class", "words"),
    [
        (
            JavaFailure("java.net.ConnectException", "Connection refused" + SERVER_TRACE, remote=True),
            KmsUnavailableError,
            "kms://http@kms:9600/kms",
        ),
        (
            JavaFailure("java.io.IOException", "java.net.SocketTimeoutException: Read timed out", remote=True),
            KmsUnavailableError,
            "cannot reach",
        ),
        (
            JavaFailure("java.io.IOException", "Failed to connect to: http://kms:9600/kms/v1/key/k/_metadata", True),
            KmsUnavailableError,
            "cannot reach its KMS kms://http@kms:9600/kms",
        ),
        (
            JavaFailure(
                "org.apache.hadoop.security.authorize.AuthorizationException",
                "User:hdfs not allowed to do 'GENERATE_EEK' on 'k'",
                remote=True,
            ),
            KmsRemoteError,
            "GENERATE_EEK",
        ),
        (JavaFailure(ACCESS_CONTROL, "Access denied", remote=True), HdfsPermissionError, "Access denied"),
    ],
)
def test_a_kms_failure_inside_the_namenode_names_the_kms(failure: JavaFailure, error_class: type, words: str) -> None:
    error = translate_create_zone(failure, WHERE, "kms://http@kms:9600/kms")
    assert type(error) is error_class
    assert words in error.message


def test_a_refusal_names_both_ways_out_for_it_may_be_for_rights_or_for_want_of_a_superuser() -> None:
    denied = 'Permission denied: user=etl, access=EXECUTE, inode="/data/pii":etl:pii:drwxrwx---'
    hint = translate(JavaFailure(ACCESS_CONTROL, denied, remote=True), WHERE).hint
    assert hint is not None
    assert hint.startswith("act as a user whom the path's rights name, or as the HDFS superuser")
