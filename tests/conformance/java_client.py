"""What a Java case is given: the client classes, configured for one server, and the record of what they did.

Runs inside `java_process`; importing it elsewhere is harmless. Results are described in words that two servers must
agree on: key material by its length, exceptions by class, message and causes.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import jpype
import normal_form
from key_servers import KeyServer
from normal_form import Record

_PACKAGE = "org.apache.hadoop."
# What KeyShell says about a command after it failed.
_USAGE = re.compile(r"^\w+ <keyname> .*?(?=^Executing command|\Z)", re.MULTILINE | re.DOTALL)
# The queue that a client fills behind each generate; Hadoop's 500 would only cost time here.
_CLIENT_CONF = {
    "hadoop.security.kms.client.encrypted.key.cache.size": "10",
    "hadoop.security.kms.client.timeout": "20",
    "hadoop.security.kms.client.failover.sleep.base.millis": "1",
    "hadoop.security.kms.client.failover.sleep.max.millis": "1",
}


def java(name: str) -> Any:
    """A Java class; names without a dot at the front of the package are Hadoop's (`security.Credentials`)."""
    return jpype.JClass(name if name.startswith(("java.", "javax.", "org.")) else _PACKAGE + name)


def initialise(conf: Mapping[str, str]) -> None:
    """Tells UserGroupInformation how this JVM authenticates, and logs in from a keytab when one is named."""
    ugi = java("security.UserGroupInformation")
    ugi.setConfiguration(configuration(conf))
    if "login.keytab" in conf:
        ugi.loginUserFromKeytab(conf["login.principal"], conf["login.keytab"])


def configuration(conf: Mapping[str, str]) -> Any:
    """A Hadoop configuration of these settings."""
    made = java("conf.Configuration")()
    for name, value in conf.items():
        made.set(name, value)
    return made


class JavaClient:
    """One server as the Java client sees it."""

    def __init__(self, server: KeyServer, conf: Mapping[str, str], tag: str) -> None:
        """`tag` keeps the keys of this run apart from those of others; records do not show it."""
        self.server = server
        self._tag = f"-{tag}"
        self.conf = {**_CLIENT_CONF, **conf}
        self.steps: dict[str, Record] = {}
        self._providers: list[Any] = []

    def run(self, case: Callable[[Any], None]) -> None:
        """Runs a case; what it does not expect becomes a step of its own."""
        try:
            case(self)
        except jpype.JException as error:
            self.steps["unexpected"] = self._describe_error(error)
        except Exception as error:  # noqa: BLE001 - one case that fails must not take the others of its JVM along
            self.steps["unexpected"] = {"exception": type(error).__name__, "message": str(error)}
        finally:
            for provider in self._providers:
                with contextlib.suppress(jpype.JException):
                    provider.close()

    def key(self, name: str) -> str:
        """The name of a key of this run."""
        return name + self._tag

    def at(self, port: int, conf: Mapping[str, str] | None = None) -> JavaClient:
        """The same server seen through another port, recording into the same steps."""
        other = JavaClient(replace(self.server, port=port), {**self.conf, **(conf or {})}, self._tag[1:])
        other.steps, other._providers = self.steps, self._providers
        return other

    def configuration(self) -> Any:
        """The configuration with this server as its key provider."""
        return configuration({**self.conf, "hadoop.security.key.provider.path": self.server.uri})

    def provider(self, hosts: str = "localhost") -> Any:
        """A new `LoadBalancingKMSClientProvider`, as every Hadoop program gets one; closed after the case."""
        uri = java("java.net.URI")(self.server.uri.replace("@localhost:", f"@{hosts}:"))
        provider = java("crypto.key.KeyProviderFactory").get(uri, self.configuration())
        self._providers.append(provider)
        return provider

    def crypto(self, provider: Any) -> Any:
        """The extension that NameNode and HDFS client use."""
        return java("crypto.key.KeyProviderCryptoExtension").createKeyProviderCryptoExtension(provider)

    def options(self, **settings: Any) -> Any:
        """`KeyProvider.Options`: bits, cipher, description, attributes."""
        options = java("crypto.key.KeyProvider$Options")(self.configuration())
        if "bits" in settings:
            options.setBitLength(settings["bits"])
        if "cipher" in settings:
            options.setCipher(settings["cipher"])
        if "description" in settings:
            options.setDescription(settings["description"])
        if "attributes" in settings:
            attributes = java("java.util.HashMap")()
            for name, value in settings["attributes"].items():
                attributes.put(name, value)
            options.setAttributes(attributes)
        return options

    def step(self, name: str, call: Callable[[], Any]) -> Any:
        """Does one thing and records its result or its exception; None after an exception."""
        assert name not in self.steps, f"two steps are called {name}"
        try:
            result = call()
        except jpype.JException as error:
            self.steps[name] = self._describe_error(error)
            return None
        self.steps[name] = {"result": self.text(describe(result))}
        return result

    def note(self, name: str, text: str) -> None:
        """Records what a case found out by other means."""
        self.steps[name] = {"result": self.text(text)}

    def text(self, value: str) -> str:
        """A text without what only this server and this run have."""
        return normal_form.text(self.server, value).replace(self._tag, "")

    def as_user(self, ugi: Any, call: Callable[[], Any]) -> Any:
        """Runs `call` as another UserGroupInformation of this JVM."""
        results: list[Any] = []

        def run() -> None:
            results.append(call())

        ugi.doAs(jpype.JProxy("java.security.PrivilegedExceptionAction", dict={"run": run}))
        return results[0]

    @contextlib.contextmanager
    def shell(self) -> Iterator[Callable[..., Record]]:
        """`hadoop key ARGUMENTS`: exit code and output, line by line."""
        stream = java("java.io.ByteArrayOutputStream")()
        printer = java("java.io.PrintStream")(stream, True, "UTF-8")
        system = java("java.lang.System")
        kept = system.out, system.err
        system.setOut(printer)
        system.setErr(printer)
        try:

            def run(*arguments: str) -> Record:
                stream.reset()
                shell = java("crypto.key.KeyShell")()
                shell.setConf(self.configuration())
                code = java("util.ToolRunner").run(shell, jpype.JArray(jpype.JString)(list(arguments)))
                output = _USAGE.sub("<usage>\n", str(stream.toString("UTF-8")))
                return {"exit": str(code), "output": self.text(output)}

            yield run
        finally:
            system.setOut(kept[0])
            system.setErr(kept[1])

    def _describe_error(self, error: Any) -> Record:
        record = {"exception": str(error.getClass().getName()), "message": self._message(error)}
        causes = []
        cause = error.getCause()
        while cause is not None and len(causes) < 5:
            causes.append(f"{cause.getClass().getName()}: {self._message(cause)}")
            cause = cause.getCause()
        return {**record, "causes": " / ".join(causes)} if causes else record

    def _message(self, error: Any) -> str:
        return self.text(str(error.getMessage()))


def describe(value: Any) -> str:
    """A result in words; random bytes by their number."""
    if value is None:
        return "null"
    name = str(value.getClass().getName()) if hasattr(value, "getClass") else type(value).__name__
    if hasattr(value, "getEncryptedKeyVersion"):
        inner = value.getEncryptedKeyVersion()
        return (
            f"EEK of {value.getEncryptionKeyName()} {value.getEncryptionKeyVersionName()}"
            f" iv={len(value.getEncryptedKeyIv())} {describe(inner)}"
        )
    if hasattr(value, "getVersionName"):
        material = value.getMaterial()
        size = "no material" if material is None else f"{len(material)} bytes"
        return f"{value.getName()} {value.getVersionName()} {size}"
    if hasattr(value, "getBitLength"):
        attributes = {str(key): str(value.getAttributes().get(key)) for key in value.getAttributes().keySet()}
        return (
            f"{value.getCipher()} {value.getBitLength()} {value.getDescription()} {sorted(attributes.items())}"
            f" {value.getVersions()} versions, created {'now' if value.getCreated().getTime() > 2**31 else 'never'}"
        )
    if name.startswith(("java.util.", "[")):
        return "[" + ", ".join(describe(item) for item in value) + "]"
    return str(value)
