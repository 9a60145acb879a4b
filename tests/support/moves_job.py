"""Moves and copies data as Hadoop's Java clients do it: `python moves_job.py SETTINGS`, one JVM.

SETTINGS is a JSON object: `class_path` (jars beside the cluster's own), `keytabs` (by user; empty without Kerberos),
`web` (the NameNode's WebHDFS as a URI) and `scratch` (a directory). One JSON object a line comes in, `do` a way or one
of the means below, as `user` in a `session`; one a line goes out: `{"result": ...}`, or `{"error": CLASS, "message":
...}`.

With Kerberos a session is a pair of delegation tokens of its own, as a job on YARN has them, and whatever a Java client
caches is the session's. Without, a user is a claim, and the KMS takes all of a JVM for whoever was first: one user for
each process.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jpype

from ringfence_zones.hadoop_home import find_hadoop_home
from ringfence_zones.hdfs_jvm import Jvm, read_failure, start_jvm

_FS = "org.apache.hadoop.fs."
_SECURITY = "org.apache.hadoop.security."


class NotDoneError(Exception):
    """A tool that tells only by its exit code, or by `false`, that it did not do it."""


@dataclass
class Session:
    """Who acts, with the configuration that keeps what Java's clients cache apart."""

    user: str
    ugi: Any
    conf: Any


class Mover:
    """Ways have a source and a target; means have whatever they need."""

    def __init__(self, jvm: Jvm, settings: dict[str, Any]) -> None:
        self._jvm = jvm
        self._keytabs: dict[str, str] = settings["keytabs"]
        self._web = str(settings["web"])
        self._scratch = str(settings["scratch"])
        self._users = jvm.java_class(_SECURITY + "UserGroupInformation")
        self._users.setConfiguration(self._new_conf("login"))
        self._logins: dict[str, Any] = {}
        self._sessions: dict[tuple[str, str], Session] = {}

    def answer(self, request: dict[str, Any]) -> object:
        """What one request brings."""
        key = request["user"], request["session"]
        if key not in self._sessions:
            self._sessions[key] = self._begin(*key)
        session = self._sessions[key]
        action: Callable[..., object] = getattr(self, request["do"])
        return self._as(session.ugi, lambda: action(session, *request["arguments"]))

    # -- ways

    def rename(self, session: Session, source: str, target: str) -> None:
        self._rename(self._files(session), source, target)

    def rename_with_options(self, session: Session, source: str, target: str) -> None:
        self._rename_by(session, source, target, "OVERWRITE")

    zone_root_rename = ancestor_rename = rename

    def trash(self, session: Session, source: str, target: str) -> None:
        self._rename_by(session, source, target, "TO_TRASH")

    def own_trash(self, session: Session, source: str) -> None:
        """Where Hadoop's client puts what is removed."""
        trash = self._jvm.java_class(_FS + "Trash")
        done = trash.moveToAppropriateTrash(self._files(session), self._jvm.path(source), session.conf)
        self._require(done, "the trash is off")

    def fs_shell_cp(self, session: Session, source: str, target: str) -> None:
        errors = self._jvm.java_class("java.io.ByteArrayOutputStream")()
        system = self._jvm.java_class("java.lang.System")
        before = system.err
        system.setErr(self._jvm.java_class("java.io.PrintStream")(errors))
        try:
            shell = self._jvm.java_class(_FS + "FsShell")(session.conf)
            code = shell.run(self._strings("-cp", source, target))
        finally:
            system.setErr(before)
        self._require(code == 0, str(errors.toString()))

    def file_util_copy(self, session: Session, source: str, target: str) -> None:
        files = self._files(session)
        self._copy(session, files, files, source, target)

    snapshot_restore = file_util_copy

    def distcp(self, session: Session, source: str, target: str) -> None:
        self._distcp(session, "-update", "-skipcrccheck", source, target)

    def raw_distcp(self, session: Session, source: str, target: str) -> None:
        raw = [f"/.reserved/raw{path}" for path in (source, target)]
        self._distcp(session, "-px", "-update", "-skipcrccheck", *raw)

    def append(self, session: Session, source: str, target: str) -> None:
        files = self._files(session)
        data = files.open(self._jvm.path(source))
        try:
            output = files.append(self._jvm.path(target))
            self._jvm.java_class("org.apache.hadoop.io.IOUtils").copyBytes(data, output, session.conf, False)
            output.close()
        finally:
            data.close()

    def webhdfs_rename(self, session: Session, source: str, target: str) -> None:
        self._rename(self._web_files(session), source, target)

    def webhdfs_copy(self, session: Session, source: str, target: str) -> None:
        files = self._web_files(session)
        self._copy(session, files, files, source, target)

    # -- means

    def write(self, session: Session, path: str, text: str) -> None:
        """One that everybody may write."""
        files, at = self._files(session), self._jvm.path(path)
        stream = files.create(at, False)
        stream.write(bytearray(text.encode()))
        stream.close()
        files.setPermission(at, self._permission(0o666))

    def read(self, session: Session, path: str) -> str | None:
        """In Latin-1; None when there is no such file."""
        files, at = self._files(session), self._jvm.path(path)
        if not files.exists(at):
            return None
        stream = files.open(at)
        try:
            return str(self._jvm.java_class("org.apache.commons.io.IOUtils").toString(stream, "ISO-8859-1"))
        finally:
            stream.close()

    def length(self, session: Session, path: str) -> int | None:
        """None when there is no such file."""
        files, at = self._files(session), self._jvm.path(path)
        return int(files.getFileStatus(at).getLen()) if files.exists(at) else None

    def make_directory(self, session: Session, path: str) -> None:
        """One that everybody may write in."""
        files, at = self._files(session), self._jvm.path(path)
        files.mkdirs(at)
        files.setPermission(at, self._permission(0o777))

    def allow_snapshots(self, session: Session, path: str) -> None:
        self._files(session).allowSnapshot(self._jvm.path(path))

    def snapshot(self, session: Session, path: str, name: str) -> None:
        self._files(session).createSnapshot(self._jvm.path(path), name)

    # --

    def _begin(self, user: str, name: str) -> Session:
        conf = self._new_conf(f"{user}-{name}")
        ugi = self._users.createRemoteUser(user)
        if self._keytabs:
            methods = self._jvm.java_class(_SECURITY + "UserGroupInformation$AuthenticationMethod")
            ugi.setAuthenticationMethod(methods.TOKEN)
            ugi.addCredentials(self._as(self._login(user), lambda: self._fetch(user, conf)))
        return Session(user, ugi, conf)

    def _login(self, user: str) -> Any:
        if user not in self._logins:
            self._logins[user] = self._users.loginUserFromKeytabAndReturnUGI(user, self._keytabs[user])
        return self._logins[user]

    def _fetch(self, user: str, conf: Any) -> Any:
        credentials = self._jvm.java_class(_SECURITY + "Credentials")()
        file_system = self._jvm.java_class(_FS + "FileSystem")
        for files in file_system.get(conf), file_system.get(self._uri(self._web), conf):
            files.addDelegationTokens(user, credentials)
        return credentials

    def _as(self, ugi: Any, action: Callable[[], Any]) -> Any:
        """What `action` returns or raises, as that user."""
        outcome: list[tuple[Any, BaseException | None]] = []

        def run() -> None:
            # An exception that goes through Java comes out as another one.
            try:
                outcome.append((action(), None))
            except BaseException as error:  # noqa: BLE001 - raised below
                outcome.append((None, error))

        ugi.doAs(jpype.JProxy("java.security.PrivilegedExceptionAction", dict={"run": run}))
        value, error = outcome[0]
        if error is not None:
            raise error
        return value

    def _new_conf(self, context: str) -> Any:
        conf = self._jvm.java_class("org.apache.hadoop.hdfs.HdfsConfiguration")()
        # What belongs to it is shared by all of a JVM otherwise: the key provider and its cookie too.
        conf.set("dfs.client.context", context)
        conf.set("fs.trash.interval", "60")
        # A refusal is an answer here: the client's patience would only make the test wait for it.
        conf.set("ipc.client.connect.max.retries.on.sasl", "1")
        conf.set("dfs.client.retry.policy.enabled", "false")
        return conf

    def _files(self, session: Session) -> Any:
        return self._jvm.java_class(_FS + "FileSystem").get(session.conf)

    def _web_files(self, session: Session) -> Any:
        return self._jvm.java_class(_FS + "FileSystem").get(self._uri(self._web), session.conf)

    def _permission(self, mode: int) -> Any:
        return self._jvm.java_class(_FS + "permission.FsPermission")(self._jvm.short(mode))

    def _uri(self, text: str) -> Any:
        return self._jvm.java_class("java.net.URI").create(text)

    def _strings(self, *values: str) -> Any:
        return jpype.JArray(jpype.JString)(list(values))

    def _rename(self, files: Any, source: str, target: str) -> None:
        # Called by name, JPype takes the newer method, which has a list of options that may be empty.
        method = self._jvm.java_class(_FS + "FileSystem").class_.getMethod("rename", self._jvm.path, self._jvm.path)
        try:
            done = method.invoke(files, self._jvm.path(source), self._jvm.path(target))
        except self._jvm.exception as error:
            cause: Any = error
            raise cause.getCause() from None
        self._require(done, "the rename was answered with false")

    def _rename_by(self, session: Session, source: str, target: str, option: str) -> None:
        options = self._jvm.java_class(_FS + "Options$Rename")
        chosen = jpype.JArray(options)([getattr(options, option)])
        self._files(session).rename(self._jvm.path(source), self._jvm.path(target), chosen)

    def _copy(self, session: Session, source_files: Any, target_files: Any, source: str, target: str) -> None:
        copy = self._jvm.java_class(_FS + "FileUtil").copy
        done = copy(source_files, self._jvm.path(source), target_files, self._jvm.path(target), False, session.conf)
        self._require(done, "the copy was answered with false")

    def _distcp(self, session: Session, *arguments: str) -> None:
        conf = self._jvm.java_class("org.apache.hadoop.conf.Configuration")(session.conf)
        for name, value in {
            "mapreduce.framework.name": "local",
            "mapreduce.jobtracker.staging.root.dir": f"{self._scratch}/staging",
            "hadoop.tmp.dir": f"{self._scratch}/local",
            "yarn.resourcemanager.principal": session.user,  # who would renew tokens, which are all there
        }.items():
            conf.set(name, value)
        code = self._jvm.java_class("org.apache.hadoop.tools.DistCp")(conf, None).run(self._strings(*arguments))
        self._require(code == 0, f"distcp ended with {code}")

    @staticmethod
    def _require(done: object, why: str) -> None:
        if not done:
            raise NotDoneError(why)


def main() -> int:
    settings = json.loads(sys.argv[1])
    home = find_hadoop_home(Path(os.environ["HADOOP_CONF_DIR"]), os.environ)
    jvm = start_jvm(replace(home, class_path=(*home.class_path, *settings["class_path"])))
    system = jvm.java_class("java.lang.System")
    system.setOut(system.err)  # tools print there, and answers are all that may be on this one
    mover = Mover(jvm, settings)
    for line in sys.stdin:
        try:
            found: dict[str, object] = {"result": mover.answer(json.loads(line))}
        except NotDoneError as error:
            found = {"error": "not done", "message": str(error)}
        except jvm.exception as error:
            failure = read_failure(error)
            found = {"error": failure.java_class, "message": failure.message}
        print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
