"""What Hadoop's Java threw, as an error of ours: one table, by exception class.

A `JavaFailure` is the facts of a Java exception without Java, so that the table is tested without a JVM. Server
messages carry the whole server-side stack trace: only the first line reaches anybody. Text is looked at only where
Java leaves no other sign (`Class: message` prefixes that Hadoop itself nests).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ringfence_zones.errors import (
    AuthenticationError,
    HdfsError,
    HdfsNotFoundError,
    HdfsPermissionError,
    KmsError,
    KmsRemoteError,
    KmsUnavailableError,
    NameNodeUnavailableError,
    RingfenceError,
    SafeModeError,
)

# `java.io.IOException: ` and `org.apache.hadoop...Foo$Bar: ` as Throwable.toString nests them.
_CLASS_PREFIX = re.compile(r"((?:[a-z]\w*\.)+[A-Z][\w$]*): ")
_NO_ANSWER = frozenset(
    {
        "java.net.ConnectException",
        "java.net.SocketException",
        "java.net.SocketTimeoutException",
        "java.net.NoRouteToHostException",
        "java.net.UnknownHostException",
        "java.io.EOFException",
        "java.io.InterruptedIOException",
        "java.nio.channels.ClosedChannelException",
        "org.apache.hadoop.net.ConnectTimeoutException",
        "org.apache.hadoop.ipc.RpcException",
    }
)
_STANDBY = frozenset({"org.apache.hadoop.ipc.StandbyException", "org.apache.hadoop.ipc.ObserverRetryOnActiveException"})
_SAFE_MODE = frozenset(
    {
        "org.apache.hadoop.hdfs.server.namenode.SafeModeException",
        "org.apache.hadoop.hdfs.protocol.SafeModeException",
    }
)
_RETRIABLE = "org.apache.hadoop.ipc.RetriableException"
_DENIED = frozenset(
    {
        "org.apache.hadoop.security.AccessControlException",
        "org.apache.hadoop.fs.permission.AccessControlException",
        "java.security.AccessControlException",
    }
)
# KMSClientProvider.createConnection: a plain IOException, its cause not sent along.
_KMS_NOT_REACHED = "Failed to connect to: "
_KMS_DENIED = "org.apache.hadoop.security.authorize.AuthorizationException"
_NOT_FOUND = frozenset({"java.io.FileNotFoundException"})
_UNAUTHENTICATED = frozenset(
    {
        "javax.security.sasl.SaslException",
        "javax.security.auth.login.LoginException",
        "org.apache.hadoop.security.KerberosAuthException",
        "org.apache.hadoop.security.authentication.client.AuthenticationException",
        "org.ietf.jgss.GSSException",
    }
)


@dataclass(frozen=True, slots=True)
class JavaFailure:
    """`java_class` is the server's class when `remote`; `causes` are the classes below it, outermost first."""

    java_class: str
    message: str
    remote: bool = False
    causes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The message's first line without nested class names; the class's simple name when there is none."""
        first = self.message.strip().partition("\n")[0].strip()
        while match := _CLASS_PREFIX.match(first):
            first = first[match.end() :]
        return first.rstrip(".") or self.java_class.rpartition(".")[2]

    @property
    def classes(self) -> frozenset[str]:
        """Every class this failure is made of, with those its message nests by name."""
        return frozenset({self.java_class, *self.causes, *_CLASS_PREFIX.findall(self.message.partition("\n")[0])})


@dataclass(frozen=True, slots=True)
class Where:
    """Whom a failure is about: names for the sentence and the hint, no secret among them.

    `ticket_command` gets a Kerberos ticket; None under simple authentication.
    """

    namenode: str
    user: str
    ticket_command: str | None = None


def translate(failure: JavaFailure, where: Where) -> RingfenceError:
    """The error for a failed HDFS call; see `translate_create_zone` for the call that also asks the KMS."""
    classes = failure.classes
    if not failure.remote and classes & _NO_ANSWER:
        return NameNodeUnavailableError(
            f"the NameNode at {where.namenode} does not answer: {_why_no_answer(failure)}",
            hint="is it running, and is fs.defaultFS in core-site.xml right?",
        )
    if classes & _SAFE_MODE:
        return SafeModeError(
            f"the NameNode at {where.namenode} is in safe mode and takes no changes",
            hint="wait until it has left safe mode, then run the same command again",
            command="hdfs dfsadmin -safemode wait",
        )
    if classes & _STANDBY or failure.java_class == _RETRIABLE:
        return NameNodeUnavailableError(
            f"no NameNode of {where.namenode} is active now: {failure.sentence}", hint="run the same command again soon"
        )
    # A refusal that no server sent: this client has no ticket, or the two sides do not agree on a method.
    is_local_refusal = bool(classes & _DENIED) and not failure.remote
    if classes & _UNAUTHENTICATED or is_local_refusal:
        why = "this client has nothing to prove itself with" if is_local_refusal else failure.sentence
        return AuthenticationError(
            f"the NameNode at {where.namenode} did not accept who is calling: {why}",
            hint="get a ticket, then run the same command again"
            if where.ticket_command
            else "is hadoop.security.authentication in core-site.xml what the NameNode has?",
            command=where.ticket_command,
        )
    if classes & _DENIED:
        return HdfsPermissionError(
            f"HDFS refused user {where.user}: {failure.sentence}",
            hint="act as a user whom the path's rights name, or as the HDFS superuser, who alone lists and makes zones;"
            " on a cluster with simple authentication that is --as hdfs",
        )
    if classes & _NOT_FOUND:
        return HdfsNotFoundError(failure.sentence)
    return HdfsError(failure.sentence)


def translate_create_zone(failure: JavaFailure, where: Where, kms: str) -> RingfenceError:
    """As `translate`, for an answer to the call in which the NameNode asks *its* KMS: those failures name the KMS."""
    unreachable = failure.sentence.startswith(_KMS_NOT_REACHED)
    if unreachable or failure.classes & _NO_ANSWER:
        return KmsUnavailableError(
            f"the NameNode cannot reach its KMS {kms}: {'no connection' if unreachable else _why_no_answer(failure)}",
            hint="is the KMS running, and is hadoop.security.key.provider.path in the NameNode's core-site.xml right?",
        )
    if _KMS_DENIED in failure.classes:
        return KmsRemoteError(
            f"{kms} refused the NameNode or this user: {failure.sentence}",
            status=403,
            java_class=_KMS_DENIED,
            hint="the NameNode's user needs GENERATE_EEK, and whoever creates a zone GET_METADATA, on the zone's key",
        )
    if failure.classes & _UNAUTHENTICATED:
        return KmsError(f"the NameNode could not authenticate to {kms}: {failure.sentence}")
    return translate(failure, where)


def _why_no_answer(failure: JavaFailure) -> str:
    """Two or three words: Hadoop's own sentence repeats both host names and ends in a link to its wiki."""
    classes = failure.classes
    if "java.net.UnknownHostException" in classes:
        return "unknown host"
    if classes & {"java.net.SocketTimeoutException", "org.apache.hadoop.net.ConnectTimeoutException"}:
        return "timed out"
    if "java.net.ConnectException" in classes:
        return "connection refused"
    if classes & {"java.net.NoRouteToHostException"}:
        return "no route to host"
    return "the connection broke off"
