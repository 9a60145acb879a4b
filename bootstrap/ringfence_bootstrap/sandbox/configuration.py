"""Writes what the sandbox's daemons and clients read: Hadoop's files, the launchers, our clients' file.

Rules: configuration is written once, when the sandbox is made, and belongs to the user and to the agent (which edits
`core-site.xml`) from then on; ports never change, so nothing needs to be written again. The launchers are renewed by
each `up`, because they are code. Templates lie beside this file and are filled by `string.Template`; what Kerberos or
TLS adds to a file is a template of its own. Files with a password in them are 0600.
"""

from __future__ import annotations

import importlib.resources
import os
import secrets
import string
from dataclasses import asdict
from pathlib import Path
from xml.sax.saxutils import escape

from ringfence_bootstrap.sandbox.kdc import DEFAULT_REALM
from ringfence_bootstrap.sandbox.security import make_certificates, make_realm, realm_of
from ringfence_bootstrap.sandbox.state import NAMESERVICE, Layout, State

_LAUNCHERS = ("hadoop", "hdfs")
_YARN_LAUNCHERS = ("yarn", "mapred")
# What Hadoop and Guice reach into on Java 17; the launchers' list is longer because daemons do more than containers.
_OPENED = ("java.io", "java.lang", "java.lang.reflect", "java.net", "java.nio", "java.util", "java.util.concurrent")


def kms_uri(state: State) -> str:
    """The KMS as Hadoop writes it. The host is `localhost`, as a Kerberos service name wants it."""
    return f"kms://{'https' if state.tls else 'http'}@localhost:{state.ports.kms}/kms"


def environment(layout: Layout, state: State) -> dict[str, str]:
    """What `up` and `env` export: enough for our commands, Hadoop's own and any client in the same shell."""
    common = {
        "HADOOP_CONF_DIR": str(layout.conf),
        "HADOOP_HOME": str(layout.hadoop_home),
        "JAVA_HOME": state.java_home,
        "RINGFENCE_AGENT_SOCKET": str(layout.agent_socket),
        "RINGFENCE_KMS_URI": kms_uri(state),
    }
    if state.kms == "ringfence":
        common["RINGFENCE_KMS_CONFIG"] = str(layout.kms_config)
    if not state.kerberos:
        return common | {"HADOOP_USER_NAME": "hdfs"}
    return common | realm_of(layout, state).environment | {"KRB5CCNAME": f"FILE:{layout.ticket_cache('hdfs')}"}


def write_configuration(layout: Layout, state: State, kms_settings: str = "") -> None:
    """Every configuration file of a new sandbox; with Kerberos or TLS also the realm and the certificates.

    `kms_settings` is YAML that our KMS is to have beside what every sandbox's has.
    """
    for directory in (layout.conf, layout.kms_conf, layout.logs, layout.directory / "tmp"):
        directory.mkdir(exist_ok=True)
    (layout.directory / "agent").mkdir(exist_ok=True, mode=0o700)
    values = _values(layout, state)
    if state.kerberos:
        make_realm(layout, state)
        _write_secret(layout.conf / "http-signature.secret", secrets.token_urlsafe(32))
    if state.tls:
        values["store_password"] = make_certificates(layout, state)
        for directory in (layout.conf, layout.kms_conf):
            for name in ("ssl-server.xml", "ssl-client.xml"):
                _write_secret(directory / name, _filled(name, values))
    for path, templates in _files(layout, state).items():
        path.write_text(_merged([_filled(template, values) for template in templates]))
    (layout.conf / "log4j.properties").write_text(_packaged("log4j.properties"))
    (layout.conf / "audit-log4j.properties").write_text(_packaged("audit-log4j.properties"))
    (layout.directory / "agent.yaml").write_text(_agent_yaml(layout, state))
    (layout.conf / "ringfence-client.yaml").write_text(_client_yaml(layout, state))
    if state.kms == "ringfence":
        layout.kms_config.write_text(_kms_yaml(layout, state) + kms_settings)
    else:
        _write_secret(layout.kms_conf / "kms-keystore.password", secrets.token_urlsafe(24))


def _values(layout: Layout, state: State) -> dict[str, str]:
    return {
        "state": str(layout.directory),
        "kms_uri": kms_uri(state),
        "filesystem": state.filesystem,
        "nameservice": NAMESERVICE,
        **{f"{name}_port": str(port) for name, port in asdict(state.ports).items()},
        "job_classpath": ",".join(
            (str(layout.conf), f"{layout.hadoop_home}/share/hadoop/*", f"{layout.hadoop_home}/share/hadoop-yarn/*")
        ),
        "job_java_options": " ".join(
            # Containers live for seconds, where the optimising compiler costs more than it gains.
            [
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                *(f"--add-opens=java.base/{each}=ALL-UNNAMED" for each in _OPENED),
            ]
        ),
        "kms_authentication": "kerberos" if state.kerberos else "simple",
        "realm": DEFAULT_REALM,
        "service_keytab": str(layout.keytab("services")),
        "kms_keytab": str(layout.keytab("kms")),
    }


def _files(layout: Layout, state: State) -> dict[Path, list[str]]:
    """Which templates make each of Hadoop's files."""
    kerberos = ["kerberos"] if state.kerberos else []
    secured = [*kerberos, *(["tls"] if state.tls else [])]
    pair = "ha" if state.ha else "single"
    core = ["core-site.xml", *(f"core-site-{kind}.xml" for kind in secured)]
    yarn = {layout.conf / name: [name] for name in ("yarn-site.xml", "mapred-site.xml")} if state.yarn else {}
    return yarn | {
        layout.conf / "core-site.xml": core,
        layout.conf / "hdfs-site.xml": [
            "hdfs-site.xml",
            f"hdfs-site-{pair}.xml",
            *(f"hdfs-site-{kind}.xml" for each in kerberos for kind in (each, f"{pair}-{each}")),
        ],
        layout.kms_conf / "core-site.xml": core,
        layout.kms_conf / "kms-site.xml": [
            f"kms-site-{state.kms}.xml",
            *(f"kms-site-{kind}.xml" for kind in secured),
        ],
        layout.kms_conf / "kms-acls.xml": [f"kms-acls-{state.kms}.xml"],
    }


def _merged(texts: list[str]) -> str:
    """One configuration with the properties of all, in their order; the comments come along."""
    inner = [text.partition("<configuration>\n")[2].rpartition("</configuration>")[0] for text in texts]
    return texts[0].replace(inner[0], "".join(inner))


def _kms_yaml(layout: Layout, state: State) -> str:
    tls = f"tls: {{cert: {layout.tls}/server.pem, key: {layout.tls}/server.key}}\n" if state.tls else ""
    return tls + (
        f"listen: localhost:{state.ports.kms}\n"
        f"keystore: sqlite:///{layout.directory}/kms.db\n"
        f"hadoop_conf: {layout.kms_conf}\n"
        f"admin: {{socket: {layout.kms_socket}}}\n"
    )


def _agent_yaml(layout: Layout, state: State) -> str:
    keytab = f"kerberos: {{principal: hdfs, keytab: {layout.keytab('hdfs')}}}\n" if state.kerberos else ""
    return keytab + (
        f"hadoop_conf: {layout.conf}\n"
        f"namenode_conf_dir: {layout.conf}\n"
        f"socket: {layout.agent_socket}\n"
        f"state_dir: {layout.directory}/agent\n"
        "user: hdfs\n"
        "interval: 1s\n"
        f"namenode_audit_log: [{', '.join(str(layout.namenode_audit_log(each)) for each in state.namenodes)}]\n"
        f"namenode_log: [{', '.join(str(layout.log(each.daemon)) for each in state.namenodes)}]\n"
    )


def _client_yaml(layout: Layout, state: State) -> str:
    trust = f"kms_ca_file: {layout.authority}\n" if state.tls else ""
    return trust + (f"kms_admin_socket: {layout.kms_socket}\n" if state.kms == "ringfence" else "")


def install_launchers(layout: Layout, jars: Path, yarn_jars: Path | None = None) -> None:
    """HADOOP_HOME: `bin/hadoop` and the others, the configuration where Hadoop has it, and the jars."""
    for directory in ("bin", "libexec", "etc", "share"):
        (layout.hadoop_home / directory).mkdir(parents=True, exist_ok=True)
    for name in _LAUNCHERS + (_YARN_LAUNCHERS if yarn_jars else ()):
        path = layout.hadoop_home / "bin" / name
        path.write_text(_packaged(f"bin/{name}"))
        path.chmod(0o755)
    (layout.hadoop_home / "libexec/hadoop-functions").write_text(_packaged("bin/hadoop-functions"))
    _link(layout.hadoop_home / "etc/hadoop", layout.conf)
    _link(layout.hadoop_home / "share/hadoop", jars)
    if yarn_jars:
        _link(layout.hadoop_home / "share/hadoop-yarn", yarn_jars)


def _filled(template: str, values: dict[str, str]) -> str:
    return string.Template(_packaged(template)).substitute({name: escape(value) for name, value in values.items()})


def _packaged(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text()


def _link(path: Path, target: Path) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def _write_secret(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
