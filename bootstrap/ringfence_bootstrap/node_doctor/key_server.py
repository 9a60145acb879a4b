"""How this node reaches its KMS, and whether the KMS knows of the cluster what it has to."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

from ringfence_bootstrap.node_doctor.subject import KeyServer, Node
from ringfence_zones.client_config import read_http_access
from ringfence_zones.errors import ConfigError, RingfenceError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.kms_uri import KEY_PROVIDER, KmsUri, parse_kms_uri
from ringfence_zones.named_checks import NotChecked, finding
from ringfence_zones.namenodes import find_live_value, is_down, namenode_addresses

CONNECT_TIMEOUT_S = 5.0
_SOON = datetime.timedelta(days=30)
_AUTH_TO_LOCAL = "hadoop.security.auth_to_local"
_KMS_RULES = "hadoop.kms.authentication.kerberos.name.rules"
_KMS_TYPE = "hadoop.kms.authentication.type"
_PROXY = "hadoop.proxyuser."
_KMS_PROXY = "hadoop.kms.proxyuser."


def check_address(node: Node) -> Iterator[Finding]:
    """Whether clients on this node know a KMS, and reach it under TLS that they trust."""
    place = node.hadoop_conf / "core-site.xml"
    text = node.site().get(KEY_PROVIDER)
    if not text:
        hint = f"set {KEY_PROVIDER} by the classification core-site; EMR does it itself where Hadoop is installed"
        yield finding(Severity.ERROR, Rule.NO_KEY_PROVIDER, place, f"{KEY_PROVIDER} is not set", hint)
        return
    try:
        uri = parse_kms_uri(text)
    except ConfigError as error:
        yield finding(Severity.ERROR, Rule.NO_KEY_PROVIDER, place, error.message, error.hint or "write a KMS's address")
        return
    if uri.is_plain_http:
        if not uri.is_loopback:
            message = f"{text} is plain HTTP: each data key that a client opens crosses the network in clear"
            hint = (
                "give the key server a certificate (kms: tls: of bootstrap.yaml); the set-up then changes the address"
            )
            yield finding(Severity.ERROR, Rule.KMS_PLAIN_HTTP, place, message, hint)
        return
    for host in uri.hosts:
        yield from _certificate(node, uri, host)


def _certificate(node: Node, uri: KmsUri, host: str) -> Iterator[Finding]:
    try:
        context = read_http_access(node.hadoop_conf, node.environ).trust.make_context()
    except RingfenceError as error:
        hint = error.hint or "see kms_ca_file of client.yaml, and ssl-client.xml"
        yield finding(Severity.ERROR, Rule.CERTIFICATE, node.hadoop_conf, error.message, hint)
        return
    where = f"{host}:{uri.port}"
    try:
        with (
            socket.create_connection((host, uri.port), CONNECT_TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            certificate = connection.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        message = f"this node does not trust the certificate of {where}: {error.verify_message}"
        hint = (
            "name its authority as kms_ca_file in client.yaml, and for Hadoop's clients in ssl-client.xml's trust store"
        )
        yield finding(Severity.ERROR, Rule.CERTIFICATE, where, message, hint)
        return
    except ssl.SSLError as error:
        message = f"{where} does not speak TLS as this node does ({error.reason or 'no handshake'})"
        hint = f"is {KEY_PROVIDER} right, and does that port serve https?"
        yield finding(Severity.ERROR, Rule.CERTIFICATE, where, message, hint)
        return
    except (OSError, UnicodeError) as error:
        raise NotChecked(f"the certificate of {where}: nothing answers there ({_reason(error)})") from error
    ends = datetime.datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), datetime.UTC)
    if ends - datetime.datetime.now(datetime.UTC) < _SOON:
        message = f"the certificate of {where} runs out at {ends:%Y-%m-%d %H:%M}Z"
        hint = "put a new one in its place: Ringfence's KMS takes it up by itself, Hadoop's after a restart"
        yield finding(Severity.WARN, Rule.CERTIFICATE_EXPIRES, where, message, hint)


def check_port(node: Node) -> Iterator[Finding]:
    """Whether the security groups let this node through to the KMS's port."""
    uri = node.kms()
    hosts = [host for host in uri.hosts if not is_own_host(host)]
    for host in hosts:
        where = f"{host}:{uri.port}"
        try:
            with socket.create_connection((host, uri.port), CONNECT_TIMEOUT_S):
                pass
        except TimeoutError:
            message = f"nothing comes back from {where} within {CONNECT_TIMEOUT_S:.0f} s: something on the way drops it"
            hint = (
                f"let TCP port {uri.port} in from the cluster's security groups where the KMS runs, from core and task"
                " nodes' too, and look at its machine's own firewall"
            )
            yield finding(Severity.ERROR, Rule.NODE_KMS_PORT, where, message, hint)
        except (OSError, UnicodeError) as error:
            message = f"{where} does not answer: {_reason(error)}"
            hint = f"is the key server running there, and is {KEY_PROVIDER} right?"
            yield finding(Severity.ERROR, Rule.KMS_UNREACHABLE, where, message, hint)
    if not hosts:
        raise NotChecked("the KMS is on this node, where no security group is between: run this on a core or task node")


def is_own_host(host: str) -> bool:
    """Whether a name leads to this machine: whether one of its addresses can be listened on."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # the latter for what no name can be
        return False
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as own:
                own.bind(address)
                return True
        except OSError:
            continue
    return False


def check_namenode(node: Node) -> Iterator[Finding]:
    """Whether each NameNode goes by the KMS that core-site.xml names: it reads the file when it starts."""
    node.kms()
    site = node.site("hdfs-site.xml")
    wanted = site[KEY_PROVIDER]
    try:
        access = read_http_access(node.hadoop_conf, node.environ)
        addresses = namenode_addresses(site)
    except RingfenceError as error:
        raise NotChecked(error.message) from error
    silent = []
    for address in addresses:
        try:
            live = find_live_value(address, KEY_PROVIDER, access)
        except RingfenceError as error:
            raise NotChecked(error.message) from error
        if live is not None and live.value != wanted:
            message = f"the NameNode {address.rpc} has {live.value or 'none'}, and core-site.xml says {wanted}"
            hint = "the NameNode reads core-site.xml when it starts: restart it on its own node"
            command = "systemctl restart hadoop-hdfs-namenode"
            place = node.hadoop_conf / "core-site.xml"
            yield finding(Severity.ERROR, Rule.NODE_PROVIDER, place, message, hint, command)
        elif live is None:
            why = "does not run" if is_down(address) else "does not tell this user"
            silent.append(f"the NameNode {address.rpc} {why}")
    if silent:
        raise NotChecked("; ".join(silent))


def check_proxy_users(node: Node) -> Iterator[Finding]:
    """Whether services that act for their users in Hadoop may do so at the KMS: otherwise it answers 403."""
    server, site = node.key_server(), node.site()
    known = _own_proxy_users(server)
    for user in sorted(_proxy_users(site, _PROXY)):
        if user not in known:
            message = f"{user} may act for its users in Hadoop, but not at the KMS: it gets a 403 for each zone"
            hint = (
                f"set proxy_users: {user} there"
                if server.own is not None
                else f"set {_KMS_PROXY}{user}.hosts and .users or .groups by the classification hadoop-kms-site"
            )
            yield finding(Severity.WARN, Rule.NODE_PROXY_USER, server.place, message, hint)


def _own_proxy_users(server: KeyServer) -> set[str]:
    # A block of kms.yaml's own takes the place of Hadoop's properties.
    own = server.own.get("proxy_users") if server.own is not None else None
    if isinstance(own, Mapping):
        return set(own)
    return _proxy_users(server.site, _KMS_PROXY) if server.site is not None else set()


def _proxy_users(site: Mapping[str, str], prefix: str) -> set[str]:
    """Users that may act for somebody, from somewhere: one of the two alone permits nothing."""
    parts: dict[str, set[str]] = {}
    for name in site:
        if name.startswith(prefix) and site[name]:
            user, _, part = name.removeprefix(prefix).rpartition(".")
            parts.setdefault(user, set()).add(part)
    return {user for user, given in parts.items() if user and "hosts" in given and given & {"users", "groups"}}


def check_name_rules(node: Node) -> Iterator[Finding]:
    """Whether the KMS makes the same user names of principals as Hadoop: else its tokens are refused."""
    if not node.is_secure():
        raise NotChecked("the cluster is without Kerberos: there are no principals to map")
    server = node.key_server()
    own = _own_rules(server)
    ours, theirs = own.split(), node.site().get(_AUTH_TO_LOCAL, "DEFAULT").split()
    if ours != theirs:
        setting = "authentication.kerberos.auth_to_local" if server.own is not None else _KMS_RULES
        message = f"{setting} is not {_AUTH_TO_LOCAL} of core-site.xml: one principal is two users, or none"
        hint = f"copy {_AUTH_TO_LOCAL} word for word"
        yield finding(Severity.ERROR, Rule.NODE_NAME_RULES, server.place, message, hint)


def _own_rules(server: KeyServer) -> str:
    own = _member(_member(server.own, "authentication"), "kerberos")
    if isinstance(own, Mapping) and isinstance(own.get("auth_to_local"), str):
        return str(own["auth_to_local"])
    return server.site.get(_KMS_RULES, "DEFAULT") if server.site is not None else "DEFAULT"


def _member(found: Any, name: str) -> Any:
    return found.get(name) if isinstance(found, Mapping) else None


def check_tokens(node: Node) -> Iterator[Finding]:
    """Whether jobs get tokens of the KMS: a container has no ticket, so without one it fails inside zones."""
    if not node.is_secure():
        raise NotChecked("the cluster is without Kerberos: jobs need no tokens, everybody is whom they claim to be")
    core = node.hadoop_conf / "core-site.xml"
    if not node.site().get(KEY_PROVIDER):
        message = f"{KEY_PROVIDER} is not set: clients on this node ask no KMS for tokens when they submit a job"
        yield finding(Severity.ERROR, Rule.NODE_TOKENS, core, message, "set it as on the NameNode's node")
    if node.spark().get("spark.security.credentials.hadoopfs.enabled", "true").lower() == "false":
        message = "Spark collects no tokens of file systems, and so none of their KMS"
        hint = "take spark.security.credentials.hadoopfs.enabled out of spark-defaults"
        yield finding(Severity.ERROR, Rule.NODE_TOKENS, node.spark_file, message, hint)
    server = node.key_server()
    own = _member(_member(server.own, "authentication"), "type")
    kind = (
        own if isinstance(own, str) else server.site.get(_KMS_TYPE, "simple") if server.site is not None else "simple"
    )
    if kind != "kerberos":
        message = f"the KMS's authentication is {kind}, and the cluster's is kerberos: its tokens prove nobody"
        hint = "authentication: {type: kerberos} there" if server.own is not None else f"set {_KMS_TYPE} to kerberos"
        yield finding(Severity.ERROR, Rule.NODE_TOKENS, server.place, message, hint)


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return "no host can be called so"
    return "no answer in time" if isinstance(error, TimeoutError) else error.strerror or type(error).__name__
