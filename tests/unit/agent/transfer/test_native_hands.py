"""What the client raises, as errors of ours; the texts are what hdfs-native 0.14.7 said against a real cluster."""

from __future__ import annotations

import pytest

from ringfence_agent.transfer.native_hands import translate_native
from ringfence_zones.errors import (
    HdfsError,
    HdfsNotFoundError,
    HdfsPermissionError,
    KmsRemoteError,
    KmsUnavailableError,
    NameNodeUnavailableError,
    RingfenceError,
    SafeModeError,
    TransferError,
)

STACK = r"\n\tat org.apache.hadoop.hdfs.server.namenode.FSPermissionChecker.check(FSPermissionChecker.java:661)"


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (FileNotFoundError("/t/pii/nope"), HdfsNotFoundError, "File does not exist: /t/pii/nope"),
        (
            FileNotFoundError("Parent directory doesn't exist: /t/x\n\tat org.apache.hadoop.X(X.java:1)"),
            HdfsNotFoundError,
            "Parent directory doesn't exist: /t/x",
        ),
        (
            FileExistsError("/t/a for client 127.0.0.1 already exists\n\tat org.apache"),
            TransferError,
            "something is there already: /t/a for client 127.0.0.1 already exists",
        ),
        (
            RuntimeError(
                'RPCError("org.apache.hadoop.security.AccessControlException", "Permission denied: user=nobody, '
                rf'access=EXECUTE, inode=\"/t/pii\":etl:etl:drwxrwx---{STACK}")'
            ),
            HdfsPermissionError,
            'refused user masker: Permission denied: user=nobody, access=EXECUTE, inode="/t/pii":etl:etl:drwxrwx---',
        ),
        (
            RuntimeError(
                'RPCError("org.apache.hadoop.hdfs.protocol.DSQuotaExceededException", "The DiskSpace quota of '
                rf'/t/masked is exceeded: quota = 1048576 B{STACK}")'
            ),
            TransferError,
            "the target's quota is used up: The DiskSpace quota of /t/masked is exceeded: quota = 1048576 B",
        ),
        (
            RuntimeError(
                'RPCError("java.io.IOException", "File /t/f could only be written to 0 of the 1 minReplication '
                rf'nodes.{STACK}")'
            ),
            TransferError,
            "HDFS has no room left",
        ),
        (
            RuntimeError(
                'RPCError("org.apache.hadoop.hdfs.server.namenode.SafeModeException", "Cannot create file/t/a. '
                rf'Name node is in safe mode.{STACK}")'
            ),
            SafeModeError,
            "safe mode",
        ),
        (
            RuntimeError(
                'OperationFailed("KMS request failed (403 Forbidden): AuthorizationException User:hdfs not allowed to '
                "do 'DECRYPT_EEK' on 'transfer-test-t-pii'\")"
            ),
            KmsRemoteError,
            "the KMS refused masker: AuthorizationException User:hdfs not allowed to do 'DECRYPT_EEK' on",
        ),
        (
            RuntimeError('OperationFailed("KMS request failed (401 Unauthorized): ")'),
            KmsRemoteError,
            "the KMS refused masker: 401",
        ),
        (
            RuntimeError(
                'OperationFailed("KMS HTTP error: error sending request for url '
                '(http://localhost:31999/kms/v1/keyversion/k%400/_eek?eek_op=decrypt&user.name=etl)")'
            ),
            KmsUnavailableError,
            "the KMS does not answer",
        ),
        (ConnectionResetError("Connection reset by peer (os error 104)"), NameNodeUnavailableError, "broke off"),
        (RuntimeError('InternalError("who knows")'), HdfsError, "who knows"),
    ],
)
def test_what_the_client_raises_becomes_an_error_of_ours(
    error: Exception, kind: type[RingfenceError], said: str
) -> None:
    translated = translate_native(error, "masker")
    assert type(translated) is kind
    assert said in translated.message
    assert "org.apache" not in translated.message
    assert "\tat" not in translated.message
