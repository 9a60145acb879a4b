"""The one JVM of this process, started when the gateway is first needed and quiet from its first line.

Everything that knows JPype's start-up is here; `hdfs.py` calls Java through what `start_jvm` returns. A JVM cannot
be stopped and started again in one process, so its class path and user are those of the first call.

Java's own logging is switched off: log4j would put its lines, and Hadoop its stack traces, on the terminal of
somebody who asked for a table. Failures arrive as exceptions and are translated; nothing is lost by the silence.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Mapping
from functools import cached_property
from types import ModuleType
from typing import Any

from ringfence_zones.errors import HadoopNotFoundError, MissingExtraError
from ringfence_zones.hadoop_home import HadoopHome
from ringfence_zones.hdfs_failure import JavaFailure

# What Hadoop 3.5's own scripts open for its reflection; on a Java that does not know the option it is ignored.
_OPENED_PACKAGES = (
    "java.io",
    "java.lang",
    "java.lang.reflect",
    "java.math",
    "java.net",
    "java.text",
    "java.util",
    "java.util.concurrent",
    "java.util.zip",
    "sun.security.util",
    "sun.security.x509",
)
_OPTIONS = (
    "-Xrs",  # signals stay Python's: Ctrl-C and SIGTERM end the command
    "-Xmx512m",
    # A command lives seconds: start fast rather than run fast.
    "-Xshare:auto",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-XX:+IgnoreUnrecognizedVMOptions",
    "-Djava.awt.headless=true",
    "-Dlog4j.defaultInitOverride=true",
    *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED_PACKAGES),
    # Hadoop 3.4 reads Kerberos tickets through these.
    "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
)
_MAX_CAUSES = 8

_lock = threading.Lock()
_started_with: HadoopHome | None = None


class Jvm:
    """Java classes by name, looked up once, and the exception type that everything Java throws arrives as."""

    def __init__(self, jpype: ModuleType) -> None:
        self._jpype = jpype
        self._classes: dict[str, Any] = {}
        self.exception: type[Exception] = jpype.JException

    def java_class(self, name: str) -> Any:
        """The class of that full name. Raises HadoopNotFoundError when the class path has none."""
        found = self._classes.get(name)
        if found is None:
            try:
                found = self._jpype.JClass(name)
            except TypeError as error:
                raise HadoopNotFoundError(
                    f"this Hadoop has no class {name}", hint="Ringfence needs Hadoop 3.3 or newer"
                ) from error
            self._classes[name] = found
        return found

    def short(self, value: int) -> Any:
        """A Java `short`, so that overloads taking one are chosen."""
        return self._jpype.JShort(value)

    @cached_property
    def path(self) -> Any:
        """`org.apache.hadoop.fs.Path`."""
        return self.java_class("org.apache.hadoop.fs.Path")


def start_jvm(home: HadoopHome, environ: Mapping[str, str] = os.environ) -> Jvm:
    """Starts the JVM, or returns the running one. Thread-safe. KRB5_CONFIG counts for Java too, its first file.

    Raises MissingExtraError without JPype and HadoopNotFoundError when the JVM does not load.
    """
    global _started_with  # noqa: PLW0603 - a process has one JVM, so its guard is global by nature
    try:
        import jpype  # noqa: PLC0415 - an optional extra, loaded only when HDFS is needed
        import jpype.config  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError("talking to HDFS", "hdfs") from error
    with _lock:
        if not jpype.isJVMStarted():
            # Leaving without tearing the JVM down saves time, and Hadoop's shutdown hooks have nothing to do here.
            jpype.config.destroy_jvm = False
            atexit.register(_stop_reference_queue, jpype)  # first, for Ctrl-C may come while the JVM starts
            try:
                jpype.startJVM(
                    str(home.libjvm),
                    *_OPTIONS,
                    *_kerberos_options(environ),
                    classpath=list(home.class_path),
                    convertStrings=False,
                )
            except (OSError, RuntimeError, TypeError, ValueError) as error:
                raise HadoopNotFoundError(
                    f"the Java at {home.libjvm} does not start: {error}",
                    hint="set JAVA_HOME to a Java 17 or 21 runtime of this machine's architecture",
                ) from error
            _started_with = home
            _silence(jpype)
        elif _started_with is not None and _started_with.class_path != home.class_path:
            raise HadoopNotFoundError(
                "this process already runs Java with another class path",
                hint="use one Hadoop configuration per process",
            )
    return Jvm(jpype)


def read_failure(error: BaseException) -> JavaFailure:
    """The facts of a Java exception; one that crossed Hadoop RPC counts as what the server threw."""
    throwable: Any = error
    java_class = str(throwable.getClass().getName())
    remote = java_class == "org.apache.hadoop.ipc.RemoteException"
    if remote:
        java_class = str(throwable.getClassName())
    causes: list[str] = []
    cause = throwable.getCause()
    while cause is not None and len(causes) < _MAX_CAUSES:
        if str(cause.getClass().getName()) == "org.apache.hadoop.ipc.RemoteException":
            # DFSClient unwraps some server exceptions into real ones and keeps the RemoteException as the cause.
            remote = True
        causes.append(str(cause.getClass().getName()))
        cause = cause.getCause()
    message = throwable.getMessage()
    return JavaFailure(java_class, "" if message is None else str(message), remote, tuple(causes))


def _kerberos_options(environ: Mapping[str, str]) -> list[str]:
    # MIT's library reads the variable, Java only the property; /etc/krb5.conf both find themselves.
    first = environ.get("KRB5_CONFIG", "").partition(":")[0]
    return [f"-Djava.security.krb5.conf={first}"] if first else []


def _stop_reference_queue(jpype: ModuleType) -> None:
    """JPype's own Java thread would enter Python while that ends, which aborts the process (status 134)."""
    if jpype.isJVMStarted():
        jpype.JClass("org.jpype.ref.JPypeReferenceQueue").getInstance().stop()


def _silence(jpype: ModuleType) -> None:
    java_class = jpype.JClass
    nowhere = java_class("java.io.PrintStream")(java_class("java.io.OutputStream").nullOutputStream())
    java_class("java.lang.System").setErr(nowhere)
    # Only reload4j and log4j 1 need switching off; another logging back end writes to the silenced stream.
    with contextlib.suppress(TypeError):
        java_class("org.apache.log4j.Logger").getRootLogger().setLevel(java_class("org.apache.log4j.Level").OFF)
