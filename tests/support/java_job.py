"""A step job as Hadoop's own Java client runs it, one process for each user: `python java_job.py COMMAND ...`.

    fetch FILE KEYTAB PRINCIPAL RENEWER   delegation tokens of HDFS and the KMS into FILE, as YARN's client gets them
    renew FILE KEYTAB PRINCIPAL           renews every token of FILE
    cancel FILE KEYTAB PRINCIPAL          cancels every token of FILE
    write PATH TEXT                       a new file, as whoever the environment proves (HADOOP_TOKEN_FILE_LOCATION)
    read PATH                             its text
    copy_target_first SOURCE TARGET       a copy as DistCp makes it: the target is created before the source is opened

Prints one JSON object: `{"result": ...}`, or `{"error": CLASS, "message": ...}` with exit code 1.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ringfence_zones.hadoop_home import find_hadoop_home
from ringfence_zones.hdfs_jvm import Jvm, read_failure, start_jvm

_SECURITY = "org.apache.hadoop.security."


class Job:
    def __init__(self, jvm: Jvm) -> None:
        self._jvm = jvm
        self._conf = jvm.java_class("org.apache.hadoop.hdfs.HdfsConfiguration")()
        # A refusal is an answer here: the client's patience would only make the test wait for it.
        self._conf.set("ipc.client.connect.max.retries.on.sasl", "1")
        self._users = jvm.java_class(_SECURITY + "UserGroupInformation")
        self._users.setConfiguration(self._conf)

    def fetch(self, file: str, keytab: str, principal: str, renewer: str) -> list[str]:
        self._users.loginUserFromKeytab(principal, keytab)
        credentials = self._jvm.java_class(_SECURITY + "Credentials")()
        tokens = self._file_system().addDelegationTokens(renewer, credentials)
        credentials.writeTokenStorageFile(self._jvm.path(f"file://{file}"), self._conf)
        return sorted(str(token.getKind()) for token in tokens)

    def renew(self, file: str, keytab: str, principal: str) -> dict[str, int]:
        self._users.loginUserFromKeytab(principal, keytab)
        return {str(token.getKind()): int(token.renew(self._conf)) for token in self._tokens(file)}

    def cancel(self, file: str, keytab: str, principal: str) -> list[str]:
        self._users.loginUserFromKeytab(principal, keytab)
        cancelled = []
        for token in self._tokens(file):
            token.cancel(self._conf)
            cancelled.append(str(token.getKind()))
        return sorted(cancelled)

    def write(self, path: str, text: str) -> None:
        stream = self._file_system().create(self._jvm.path(path), False)
        stream.write(bytearray(text.encode()))
        stream.close()

    def copy_target_first(self, source: str, target: str) -> None:
        file_system = self._file_system()
        output = file_system.create(self._jvm.path(target), False)
        try:
            data = file_system.open(self._jvm.path(source))
            self._jvm.java_class("org.apache.hadoop.io.IOUtils").copyBytes(data, output, self._conf, False)
            data.close()
        finally:
            output.close()

    def read(self, path: str) -> str:
        stream = self._file_system().open(self._jvm.path(path))
        text = self._jvm.java_class("org.apache.commons.io.IOUtils").toString(stream, "UTF-8")
        stream.close()
        return str(text)

    def _file_system(self) -> Any:
        return self._jvm.java_class("org.apache.hadoop.fs.FileSystem").get(self._conf)

    def _tokens(self, file: str) -> list[Any]:
        path = self._jvm.java_class("java.io.File")(file)
        return list(
            self._jvm.java_class(_SECURITY + "Credentials").readTokenStorageFile(path, self._conf).getAllTokens()
        )


def main() -> int:
    command, *arguments = sys.argv[1:]
    jvm = start_jvm(find_hadoop_home(Path(os.environ["HADOOP_CONF_DIR"]), os.environ))
    try:
        called: Callable[..., Any] = getattr(Job(jvm), command)
        print(json.dumps({"result": called(*arguments)}))
    except jvm.exception as error:
        failure = read_failure(error)
        print(json.dumps({"error": failure.java_class, "message": failure.message.partition("\n")[0]}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
