"""No key, DEK, token, cookie or password is anywhere but where it belongs: found by looking for them.

A session against the real server uses every kind of secret and provokes every kind of error with one in it; what the
answers hold is looked for too. Then logs, audit files, every other file the server wrote, arguments, environments, the
store's own files, what commands print and what Python objects print are searched in many spellings. Each kind of place
has a control: a secret planted there is found.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import pwd
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from canary import Canaries, process_tree, spellings
from certificates import Certificates
from database_canary import find_in_database
from databases import DatabaseServer
from http_serving import Answer, RawClient
from kdc import Kdc
from kerberos_kms import KerberosKms, kerberos_site
from kms_serving import DEADLINE_S, KmsPlace, RunningKms, call, json_of
from sandboxes import RINGFENCE

from ringfence_agent.keystore.open import open_keystore
from ringfence_agent.kms.authentication.cookie import CookieSigner, RollingSecrets
from ringfence_agent.kms.authentication.delegation_token import decode_url
from ringfence_agent.kms.eek import EekCipher
from ringfence_zones.secret import Secret

TOKEN_QUERY = {"op": "GETDELEGATIONTOKEN", "renewer": "hdfs"}


@dataclass
class Site:
    """One server whose every output goes to files below `directory`, and the secrets it was given or gave out.

    `keeps` are the files that hold secrets because that is what they are for.
    """

    directory: Path
    place: KmsPlace
    canaries: Canaries = field(default_factory=Canaries)
    options: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    keeps: list[Path] = field(default_factory=list)
    keystore: list[str] = field(default_factory=list)
    database_password: Path | None = None

    @classmethod
    def make(cls, directory: Path, site: Mapping[str, str], audit_format: str) -> Site:
        made = cls(directory, KmsPlace.make(directory, site=site))
        for name in ("temporary", "work"):
            (directory / name).mkdir()
        made.environment["TMPDIR"] = str(directory / "temporary")
        admin_token = made.secret_file("admin.token", secrets.token_hex(24))
        config = directory / "kms.yaml"
        config.write_text(
            f"audit: {{format: {audit_format}, directory: {made.place.audit_directory}}}\n"
            f"admin: {{socket: {made.place.admin_socket}, token_file: {admin_token}}}\n"
        )
        made.options += ["--config", str(config)]
        made.keystore = ["--keystore", f"sqlite:///{made.place.store}"]
        made.keeps.append(directory / "k.db.root-key")
        return made

    def secret_file(self, name: str, secret: str) -> Path:
        """A private file with a planted secret; the name is the canary's."""
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_text(secret + "\n")
        self.canaries.add(name, secret)
        self.keeps.append(path)
        return path

    @contextmanager
    def serving(self, **more: Any) -> Iterator[RunningKms]:
        """Two workers, cores allowed, working where a core would be seen."""
        command = self.place.command("--workers", "2", *self.options)
        with (self.directory / "server.log").open("ab") as log:
            process = subprocess.Popen(
                ["bash", "-c", 'ulimit -c unlimited; exec "$0" "$@"', *command],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **self.environment},
                cwd=self.directory / "work",
            )
        kms = RunningKms(self.place, process, 2, **more)
        assert process.stdout is not None
        try:
            try:
                kms.wait_until_ready()
            except (AttributeError, AssertionError):
                raise AssertionError((self.directory / "server.log").read_text()) from None
            yield kms
        finally:
            process.terminate()
            process.wait(DEADLINE_S)
            process.stdout.close()


class Session:
    """What clients do, and what goes wrong; whatever secret passes by becomes a canary."""

    def __init__(self, site: Site, kms: RunningKms, user: str | None, headers: Mapping[str, str]) -> None:
        self.site = site
        self.canaries = site.canaries
        self.kms = kms
        self.user = user
        self.headers = dict(headers)
        self.token = ""

    def ask(self, method: str, path: str, body: object = None, **more: Any) -> Answer:
        headers = {**self.headers, **more.pop("headers", {})}
        user = more.pop("user", self.user)
        with self.kms.connect() as client:
            return call(client, method, path, body, user=user, headers=headers, **more)

    def cookie(self, name: str, answer: Answer) -> str:
        """The session of an answer; its signature is the secret."""
        value = (answer.header("Set-Cookie") or "").partition(";")[0]
        signature = value.rpartition("&s=")[2].strip('"')
        self.canaries.add(f"{name}, signature", base64.b64decode(signature))
        self.canaries.add(f"{name}, signature as text", signature)
        return value

    def use_everything(self) -> None:
        """Keys, EDEKs, tokens and cookies, as clients use them."""
        if self.user is not None:
            self.cookie("cookie", self.ask("OPTIONS", "/kms/v1/"))
        given = secrets.token_bytes(32)
        self.canaries.add("key material, given at create", given)
        body = {"name": "given", "length": 256, "material": encode(given)}
        assert self.ask("POST", "/kms/v1/keys", body).status == 201
        assert self.ask("POST", "/kms/v1/keys", {"name": "made", "length": 128}).status == 201
        rolled = secrets.token_bytes(16)
        self.canaries.add("key material, given at roll", rolled)
        assert self.ask("POST", "/kms/v1/key/made", {"material": encode(rolled)}).status == 200
        for version in json_of(self.ask("GET", "/kms/v1/key/made/_versions")):
            self.canaries.add_base64(f"key material, {version['versionName']}", version["material"])
        (edek,) = json_of(self.ask("GET", "/kms/v1/key/made/_eek", query={"eek_op": "generate"}))
        opened = self.open(edek["encryptedKeyVersion"]["material"], edek["iv"], "made@1")
        self.canaries.add_base64("DEK", json_of(opened)["material"])
        body = [{"versionName": "made@1", "iv": edek["iv"], "encryptedKeyVersion": edek["encryptedKeyVersion"]}]
        assert self.ask("POST", "/kms/v1/key/made/_reencryptbatch", body).status == 200
        self.use_tokens()

    def open(self, material: str, iv: str, version: str, name: str = "made") -> Answer:
        path = f"/kms/v1/keyversion/{version.replace('@', '%40')}/_eek"
        return self.ask("POST", path, {"name": name, "iv": iv, "material": material}, query={"eek_op": "decrypt"})

    def use_tokens(self) -> None:
        for number in range(2):
            answer = self.ask("GET", "/kms/v1/", query=TOKEN_QUERY)
            self.token = json_of(answer)["Token"]["urlString"]
            token, _ = decode_url(self.token.encode())
            self.canaries.add(f"token {number}, password", token.password)
        by_token = {"X-Hadoop-Delegation-Token": self.token, "Cookie": "none=1"}
        assert self.ask("GET", "/kms/v1/keys/names", user=None, headers=by_token).status == 200
        assert self.ask("PUT", "/kms/v1/", query={"op": "RENEWDELEGATIONTOKEN", "token": self.token}).status == 200

    def provoke_errors(self) -> None:
        """Every error with a secret in the request: what is quoted back, or noted, is a leak."""
        planted = secrets.token_bytes(24)
        self.canaries.add("planted in bad requests", planted)
        text = secrets.token_urlsafe(24)
        self.canaries.add("planted as text in bad requests", text)
        wrong = encode(planted)
        keys = "/kms/v1/keys"
        bodies: list[object] = [
            {"name": "bad", "length": 256, "material": wrong},  # of a wrong length
            {"name": "bad", "length": 256, "material": text + "!*"},  # no base64
            {"name": "bad", "length": wrong},
            {"name": "bad", "cipher": "AES/CTR/NoPadding", "material": {"value": wrong}},
            f'{{"name": "bad", "material": "{wrong}'.encode(),  # cut off
            f'{{"name": "bad", "material": {text}}}'.encode(),
            f'["{wrong}"]'.encode(),
        ]
        for body in bodies:
            assert self.ask("POST", keys, body).status >= 400
        for body in ({"material": wrong}, {"material": text + "!"}, f'{{"material": "{wrong}'.encode()):
            assert self.ask("POST", "/kms/v1/key/made", body).status >= 400
        iv = "AAAAAAAAAAAAAAAAAAAAAA=="
        for material, bad_iv, version in ((text + "!", iv, "made@1"), (wrong, wrong, "made@1"), (wrong, iv, "made@99")):
            assert self.open(material, bad_iv, version).status >= 400
        assert self.open(wrong, iv, "made@1", "other").status >= 400
        self.provoke_refusals(text, wrong)
        self.provoke_the_core(text)

    def provoke_refusals(self, text: str, wrong: str) -> None:
        """Tokens, cookies and passwords where they do not help, some of them good ones."""
        names, by_token = "/kms/v1/keys/names", "X-Hadoop-Delegation-Token"
        altered = self.token[:-8] + "AAAAAAAA"
        for query in ({"delegation": self.token}, {"delegation": text}, {"password": text}, {"delegation": altered}):
            for path in (names, "/kms/v1/nowhere", "/nowhere", "/health/none"):
                assert self.ask("GET", path, user=None, query=query, headers={"Cookie": ""}).status >= 400
        for token in (altered, text, wrong):
            headers = {by_token: token, "Cookie": ""}
            assert self.ask("GET", names, user=None, headers=headers).status >= 400
        for operation in ("RENEWDELEGATIONTOKEN", "CANCELDELEGATIONTOKEN"):
            for token in (altered, text):
                assert self.ask("PUT", "/kms/v1/", query={"op": operation, "token": token}).status >= 400
            # The wrong method, with a good token.
            assert self.ask("GET", "/kms/v1/", query={"op": operation, "token": self.token}).status >= 400
        for name, value in (
            ("Cookie", f'hadoop.auth="u=alice&p=alice&t=simple-dt&e=9999999999999&s={text}"'),
            ("Authorization", f"Bearer {text}"),
            ("Authorization", f"Negotiate {wrong}"),
            ("Authorization", "Basic " + encode(f"alice:{text}".encode())),
        ):
            headers = {"Cookie": "", name: value}
            assert self.ask("GET", names, user=None, headers=headers).status == 401
            assert self.ask("GET", "/ringfence/v1/policy", user=None, headers=headers).status >= 401
        assert self.ask("GET", names, query={"doAs": "somebody", "delegation": text}).status == 403
        cancelled = self.ask("PUT", "/kms/v1/", query={"op": "CANCELDELEGATIONTOKEN", "token": self.token})
        assert cancelled.status == 200
        headers = {by_token: self.token, "Cookie": ""}
        assert self.ask("GET", names, user=None, headers=headers).status == 403

    def provoke_the_core(self, text: str) -> None:
        """What is no request that an application sees."""
        for raw in (
            f"GET /kms/v1/keys/names?token={text} HTTP/9\r\n\r\n",
            f"{text}\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {text}\r\n\r\n",
            f"POST /kms/v1/keys HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{text}\r\n",
            f"GET /kms/v1/keys/names HTTP/1.1\r\nHost: localhost\r\nCookie: {text * 4000}\r\n\r\n",
        ):
            client: RawClient = self.kms.connect()
            with client, suppress(OSError):
                client.send(raw.encode())
                assert client.read_answer().status >= 400

    def break_rows(self) -> None:
        """A 500: rows of a key that were altered."""
        store = self.site.place.store
        if store.exists():
            assert self.ask("POST", "/kms/v1/keys", {"name": "broken", "length": 128}).status == 201
            with sqlite3.connect(store) as connection:
                connection.execute("UPDATE key_version SET sealed = zeroblob(60) WHERE key_name = 'broken'")
            connection.close()
            (edek,) = json_of(self.ask("GET", "/kms/v1/key/given/_eek", query={"eek_op": "generate"}))
            answer = self.open(edek["encryptedKeyVersion"]["material"], edek["iv"], "broken@0", "broken")
            assert answer.status == 500


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


# -- the servers


@dataclass
class Running:
    site: Site
    session: Session


def on_sqlite(directory: Path) -> Site:
    site = Site.make(directory, {}, "both")
    site.options += site.keystore
    return site


@contextmanager
def simple(site: Site) -> Iterator[Running]:
    with site.serving() as kms:
        yield Running(site, Session(site, kms, "hdfs", {}))


@contextmanager
def kerberos_tls(directory: Path, kdc: Kdc, certificates: Certificates) -> Iterator[Running]:
    keytab = directory / "service.keytab"
    site = Site.make(directory, kerberos_site(keytab), "json")
    keytab.touch(mode=0o600)
    keytab.write_bytes(kdc.keytab("HTTP/localhost").read_bytes())
    site.keeps.append(keytab)
    site.environment |= kdc.environment
    site.options += [*site.keystore, "--tls-cert", str(certificates.server.certificate)]
    site.options += ["--tls-key", str(certificates.server.key)]
    # The scalar of the certificate's key.
    pem = certificates.server.key.read_text().splitlines()
    site.canaries.add("TLS key", base64.b64decode("".join(pem[1:-1]))[40:])
    with site.serving(client_context=certificates.client_context()) as kms:
        client = KerberosKms(kms, kdc)
        header = client.negotiate("hdfs")
        token = base64.b64decode(header.partition(" ")[2])
        # The beginning is the same for every client; the end is the authenticator.
        site.canaries.add("SPNEGO token", token[-48:])
        session = Session(site, kms, None, {"Authorization": header})
        cookie = session.cookie("cookie", session.ask("OPTIONS", "/kms/v1/"))
        session.headers = {"Cookie": cookie}
        yield Running(site, session)


def on_database(directory: Path, server: DatabaseServer) -> Site:
    site = Site.make(directory, {}, "hadoop")
    uri = server.new_database()
    site.database_password = server.password_file
    site.canaries.add("database password", server.password_file.read_text().strip())
    root_key = directory / "root.key"
    site.keystore = ["--keystore", uri]
    site.options += [*site.keystore, "--root-key", str(root_key), "--init"]
    site.options += ["--keystore-password-file", str(server.password_file)]
    site.keeps.append(root_key)
    return site


KINDS = ["sqlite-simple", "sqlite-kerberos-tls", "postgresql", pytest.param("mariadb", marks=pytest.mark.long)]


@pytest.fixture(params=KINDS)
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    with ExitStack() as stack:
        if request.param == "sqlite-simple":
            yield stack.enter_context(simple(on_sqlite(tmp_path)))
        elif request.param == "sqlite-kerberos-tls":
            kdc, certificates = request.getfixturevalue("kdc"), request.getfixturevalue("certificates")
            yield stack.enter_context(kerberos_tls(tmp_path, kdc, certificates))
        else:
            yield stack.enter_context(simple(on_database(tmp_path, request.getfixturevalue(request.param))))


def add_own_secrets(site: Site) -> None:
    """What the server derives and keeps: root key, cookie secrets, keys of tokens."""
    root_key = next(path for path in site.keeps if path.name in ("k.db.root-key", "root.key") and path.exists())
    text = root_key.read_text().strip()
    site.canaries.add("root key", bytes.fromhex(text))
    site.canaries.add("root key as text", text)
    store = open_keystore(site.keystore[1], root_key, False, site.database_password)
    try:
        site.canaries.add("root of the cookies", store.derive_secret("hadoop.auth cookies").reveal())
        for key in store.list_master_keys():
            site.canaries.add(f"master key {key.key_id} of tokens", key.secret.reveal())
    finally:
        store.close()


def test_no_secret_is_anywhere_but_where_it_belongs(running: Running, request: pytest.FixtureRequest) -> None:
    site, session = running.site, running.session
    began_s = time.time()
    session.use_everything()
    add_own_secrets(site)
    session.provoke_errors()
    pids = process_tree(session.kms.process.pid)
    assert len(pids) == 3
    assert site.canaries.find_in_processes(pids) == {}
    outputs = command_outputs(site, session)
    session.break_rows()
    kill_one_with_a_core(session)
    session.kms.process.terminate()
    session.kms.process.wait(DEADLINE_S)
    assert len(site.canaries.names) >= 14
    # Store, log, audit files and whatever else was written: nothing is left out but the files that are secrets.
    looked_at = [path.name for path in sorted(site.directory.rglob("*")) if path.is_file()]
    assert "server.log" in looked_at
    assert any(name.startswith("worker-") and "lock" not in name for name in looked_at)
    assert site.canaries.find_in_tree(site.directory, site.keeps) == {}
    # Kerberos keeps hashes of what was accepted, against replays; they were searched as well.
    temporary = [path.name for path in (site.directory / "temporary").rglob("*") if path.is_file()]
    assert [name for name in temporary if not name.endswith(".rcache2")] == []
    assert site.canaries.find_in_texts(outputs) == {}
    if "postgresql" in request.node.name or "mariadb" in request.node.name:
        server: DatabaseServer = request.getfixturevalue(
            "postgresql" if "postgresql" in request.node.name else "mariadb"
        )
        mine = site.canaries.only("key material", "DEK", "root", "master key", "token", "planted", "cookie")
        assert find_in_database(mine, server, site.keystore[1], began_s) == {}
    check_controls(site)


def command_outputs(site: Site, session: Session) -> dict[str, str]:
    """Everything that our commands say about this server, as loud as they can."""
    conf = ("--hadoop-conf", str(site.place.conf))
    config = tuple(site.options[:2])
    bad_token = site.secret_file("bad-admin.token", secrets.token_urlsafe(12) + " !" + secrets.token_urlsafe(12))
    bad_root = site.secret_file("bad-root.key", secrets.token_hex(20))
    bad_config = site.directory / "bad.yaml"
    bad_config.write_text(
        f"listen: localhost:0\nhadoop_conf: {site.place.conf}\n"
        f"admin: {{token_file: {bad_token}, socket: {site.directory}/bad.sock}}\n"
    )
    store, password = f"sqlite:///{site.directory}/other.db", site.secret_file("jceks.password", secrets.token_hex(16))
    wrong = site.secret_file("wrong.password", secrets.token_hex(16))
    exported = site.directory / "exported.jceks"
    commands: list[tuple[str, ...]] = [
        ("kms", "status", *config, *conf, *site.keystore, "-v", "-v"),
        ("kms", "status", *config, *conf, *site.keystore, "--json"),
        ("doctor", *config, *conf, "-v", "-v"),
        ("audit", "search", "--dir", str(site.place.audit_directory), "-v", "-v"),
        ("audit", "search", "--dir", str(site.place.audit_directory), "--json"),
        ("key", "acl", "explain", "hdfs", "DECRYPT_EEK", "made", *conf, "-v", "-v"),
        ("kms", "serve", "--config", str(bad_config), *site.keystore, "-v", "-v"),
        ("kms", "serve", *conf, *site.keystore, "--root-key", str(bad_root), "--listen", "localhost:0", "-v", "-v"),
    ]
    if session.user is None or not site.place.store.exists():
        commands = commands[:3]  # the others say the same whatever the server is like
    else:
        target = ("--password-file", str(password), "-v", "-v")
        commands += [
            ("key", "export", "--to", f"jceks://file@{exported}", *site.keystore, *target),
            ("key", "import", "--from", f"jceks://file@{exported}", "--keystore", store, "--password-file", str(wrong)),
            ("key", "import", "--from", f"jceks://file@{exported}", "--keystore", store, *target),
        ]
    site.keeps.append(site.directory / "other.db.root-key")
    outputs = {}
    for command in commands:
        process = subprocess.Popen(
            [RINGFENCE, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **site.environment},
        )
        assert site.canaries.find_in_processes([process.pid]) == {}
        outputs[" ".join(command)], _ = process.communicate(timeout=DEADLINE_S)
        assert outputs[" ".join(command)], command
    # The round trip worked where it was made, so its passwords and keys went through those commands.
    assert (site.directory / "other.db").exists() == exported.exists() == (len(commands) > 3)
    return outputs


def kill_one_with_a_core(session: Session) -> None:
    """A worker that crashes, where the limit and the directory would let it leave a core."""
    _, worker, *_ = process_tree(session.kms.process.pid)
    ended = os.pidfd_open(worker)
    os.kill(worker, signal.SIGSEGV)
    deadline = time.monotonic() + DEADLINE_S
    while worker in process_tree(session.kms.process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.close(ended)
    assert list((session.site.directory / "work").iterdir()) == []


# -- what the scans are worth


def check_controls(site: Site) -> None:
    """The same scan of the same tree finds what is put there: in a log, an audit file, the store, a temporary file."""
    planted = Canaries()
    secret = secrets.token_bytes(24)
    planted.add("control", secret)
    audit = next(site.place.audit_directory.glob("worker-0.*l*"), None) or site.directory / "server.log"
    places = {
        site.directory / "server.log": repr(secret).encode(),
        audit: json.dumps({"detail": encode(b"ab" + secret + b"c")}).encode(),
        site.directory / "temporary" / "file": secret.hex().encode(),
        site.directory / "core": b"\0" * 100 + secret,
    }
    for path, data in places.items():
        with path.open("ab") as stream:
            stream.write(b"\n" + data + b"\n")
    found = planted.find_in_tree(site.directory, site.keeps)
    assert set(found) == {str(path.relative_to(site.directory)) for path in places}


SECRET = bytes.fromhex("00ff3e3f22275cc3a9fbefbe0a0d2f2b7f80102030405060")


@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        SECRET.hex().encode(),
        SECRET.hex().upper().encode(),
        base64.b64encode(SECRET),
        base64.b64encode(SECRET).rstrip(b"="),
        base64.urlsafe_b64encode(SECRET),
        base64.urlsafe_b64encode(b"x" + SECRET + b"yz"),
        base64.b64encode(b"xy" + SECRET),
        repr(SECRET).encode(),
        repr(Exception(SECRET)).encode(),
        json.dumps(SECRET.decode("latin-1")).encode(),
        json.dumps({"k": base64.b64encode(SECRET).decode()}).replace("/", "\\/").encode(),
    ],
)
def test_every_spelling_is_found(shown: bytes) -> None:
    canaries = Canaries()
    canaries.add("control", SECRET)
    assert canaries.find(b"before " + shown + b" after") == {"control"}
    assert canaries.find(b"before " + secrets.token_hex(64).encode() + b" after") == set()
    assert all(len(each) >= 20 for each in spellings(SECRET))


def test_a_secret_in_arguments_or_environment_is_found() -> None:
    canaries = Canaries()
    argument, variable = secrets.token_hex(16), secrets.token_hex(16)
    canaries.add("argument", argument)
    canaries.add("variable", variable)
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", argument],
        env={"SECRET": variable},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    found = canaries.find_in_processes([process.pid])
    process.communicate()
    assert found == {f"{process.pid}/cmdline": {"argument"}, f"{process.pid}/environ": {"variable"}}


_HOLDER = "import os, sys; kept = bytes.fromhex(sys.stdin.readline()); os.abort()"


def test_a_process_that_may_dump_leaves_a_core_in_which_the_secret_is_found(tmp_path: Path) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if not pattern or pattern.startswith(("|", "/")):
        pytest.skip("cores do not go to the working directory here")
    secret = secrets.token_bytes(24)
    command = ["bash", "-c", 'ulimit -c unlimited; exec "$0" "$@"', sys.executable, "-c", _HOLDER]
    subprocess.run(command, input=secret.hex().encode() + b"\n", cwd=tmp_path, check=False, capture_output=True)
    canaries = Canaries()
    canaries.add("control", secret)
    assert list(canaries.find_in_tree(tmp_path).values()) == [{"control"}]


def peek(pid: int) -> set[str]:
    """What another user may open of a process; this very user where we cannot become another."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setuid(pwd.getpwnam("nobody").pw_uid)
            for name in ("mem", "environ", "maps"):
                with suppress(PermissionError), Path(f"/proc/{pid}/{name}").open("rb"):
                    os.write(write_end, name.encode() + b" ")
        finally:
            os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with os.fdopen(read_end, "rb") as stream:
        return set(stream.read().decode().split())


def test_nobody_else_may_read_the_memory_of_the_server(tmp_path: Path) -> None:
    with simple(on_sqlite(tmp_path)) as server:
        for pid in process_tree(server.session.kms.process.pid):
            assert peek(pid) == set()
    # The control: a process of that same user that has not been closed to it.
    identity: dict[str, Any] = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}
    holder = subprocess.Popen(["sleep", "60"], cwd="/", **identity)
    try:
        assert peek(holder.pid) == {"mem", "environ", "maps"}
    finally:
        holder.kill()
        holder.wait()


def ours() -> Iterator[object]:
    """Every living object of a class of ours."""
    gc.collect()
    for each in gc.get_objects():
        if str(type(each).__module__).startswith(("ringfence_agent", "ringfence_zones")):
            yield each


@dataclass
class Leaky:
    """The control: a class whose repr shows what it holds."""

    material: bytes


def test_no_object_of_ours_shows_a_secret_in_its_repr(tmp_path: Path) -> None:
    """What a traceback with its locals, a debugger's log or an f-string would show."""
    canaries = Canaries()
    with simple(on_sqlite(tmp_path)) as server:
        server.session.use_everything()
    site = server.site
    add_own_secrets(site)
    store = open_keystore(site.keystore[1], None, False)
    try:
        stored = store.find_key("made")
        assert stored is not None
        cipher = EekCipher(stored.versions[-1])
        root = store.derive_secret("hadoop.auth cookies")
        signer = CookieSigner(RollingSecrets(root, 36_000), "simple-dt", 36_000, lambda: 0)
        token, identifier = decode_url(server.session.token.encode())
        kept = [stored, cipher, signer, token, identifier, *store.list_master_keys(), Secret(b"x" * 16)]
        shown = {f"{type(each).__module__}.{type(each).__qualname__}": repr(each) for each in [*ours(), *kept]}
        assert site.canaries.find_in_texts(shown) == {}
        assert {"StoredKey", "Secret", "CookieSigner", "Token"} <= {name.rpartition(".")[2] for name in shown}
        for argument in (stored, cipher, token, root):
            error = KeyError(argument)
            assert site.canaries.find(f"{error!r} {error}".encode()) == set()
    finally:
        store.close()
    canaries.add("control", SECRET)
    assert canaries.find(repr(Leaky(SECRET)).encode()) == {"control"}
