"""Kerberos over the wire, against a real KDC: who gets in, and that nobody else does."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Certificates
from kdc import Kdc, running_kdc
from kerberos_kms import KerberosKms, cookie_of, kerberos_site, negotiate_header, serving_kerberos
from kms_serving import KmsPlace, RunningKms, call, json_of, remote_exception_of

from ringfence_zones.errors import AuthenticationError
from ringfence_zones.gssapi import Initiator
from ringfence_zones.policy import canonical_json, parse_policy

NAMES = "/kms/v1/keys/names"


@pytest.fixture(scope="module")
def kerberos(tmp_path_factory: pytest.TempPathFactory, kdc: Kdc) -> Iterator[KerberosKms]:
    with serving_kerberos(tmp_path_factory.mktemp("kms"), kdc) as running:
        yield running


def test_the_handshake_of_the_java_client(kerberos: KerberosKms) -> None:
    first = kerberos.ask("OPTIONS", "/kms/v1/key/x/_eek", query={"eek_op": "generate"})
    assert (first.status, first.reason, first.body) == (401, "Authentication required", b"")
    assert first.header("WWW-Authenticate") == "Negotiate"
    assert first.header("Set-Cookie") == "hadoop.auth=; HttpOnly"
    with kerberos.initiator("alice") as initiator:
        header = {"Authorization": negotiate_header(initiator.first_token())}
        answer = kerberos.ask("OPTIONS", "/kms/v1/key/x/_eek", query={"eek_op": "generate"}, headers=header)
        assert answer.status == 200
        scheme, _, token = (answer.header("WWW-Authenticate") or "").partition(" ")
        assert scheme == "Negotiate"
        initiator.verify(base64.b64decode(token))
    cookie = cookie_of(answer)
    assert f'"u=alice&p={kerberos.full("alice")}&t=kerberos-dt&e=' in cookie
    for _ in range(3):  # each worker
        later = kerberos.ask("GET", NAMES, headers={"Cookie": cookie})
        assert (later.status, later.header("Set-Cookie"), later.header("WWW-Authenticate")) == (200, None, None)
    line = kerberos.place.audit_lines()[-1]
    assert (line["user"], line["identity"], line["principal"]) == ("alice", "kerberos", kerberos.full("alice"))


def test_a_service_principal_of_a_host_is_its_first_name(kerberos: KerberosKms) -> None:
    assert "u=nn&p=nn/host.example@" in cookie_of(kerberos.ask("GET", NAMES, user="nn/host.example"))


def test_the_servers_token_goes_out_with_a_refusal_too(kerberos: KerberosKms) -> None:
    answer = kerberos.ask("GET", NAMES, user="alice", query={"doAs": "bob"})
    assert answer.status == 403
    assert (answer.header("WWW-Authenticate") or "").startswith("Negotiate ")
    assert "u=alice&" in cookie_of(answer)


def test_nothing_but_kerberos_gets_in(kerberos: KerberosKms, tmp_path: Path) -> None:
    place = KmsPlace.make(tmp_path)
    with place.serving(1) as simple:
        client = simple.one_worker()
        simple_cookie = cookie_of(call(client, "OPTIONS", "/kms/v1/", user="alice"))
    for method in ("GET", "OPTIONS", "HEAD", "POST"):
        for query, headers in (
            ({}, {}),
            ({"user.name": "alice"}, {}),
            ({"user.name": "alice"}, {"Cookie": simple_cookie}),
            ({}, {"Cookie": simple_cookie}),
            ({}, {"Cookie": simple_cookie.replace("simple-dt", "kerberos-dt")}),
            ({}, {"Authorization": "PseudoAuth alice"}),
            ({}, {"Authorization": "Basic YWxpY2U6eA=="}),
            ({}, {"Authorization": "Negotiate"}),
            ({}, {"Authorization": "Negotiate TlRMTVNTUAABAAAAl4II4gAAAAAAAAAAAAAAAAAAAAA="}),
            ({"user.name": "alice"}, {"X-HTTP-Method-Override": "OPTIONS"}),
        ):
            for path in (NAMES, NAMES + "/", "/kms/v1/", "/kms", "/ringfence/v1/policy", "/nowhere"):
                answer = kerberos.ask(method, path, query=query, headers=headers)
                assert (answer.status, answer.body) == (401, b""), (method, path, query, headers)
                assert answer.header("WWW-Authenticate") == "Negotiate"


def test_an_absolute_target_changes_nothing(kerberos: KerberosKms) -> None:
    client = kerberos.kms.connect()
    client.send(b"GET http://localhost/kms/v1/keys/names?user.name=alice HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert client.read_answer().status == 401
    client.socket.close()


def test_two_authorization_headers_are_refused(kerberos: KerberosKms) -> None:
    one, other = kerberos.negotiate("alice"), kerberos.negotiate("bob")
    client = kerberos.kms.connect()
    lines = [f"GET {NAMES} HTTP/1.1", "Host: localhost", f"Authorization: {one}", f"Authorization: {other}", "", ""]
    client.send("\r\n".join(lines).encode())
    status = client.read_answer().status
    client.socket.close()
    assert status == 400


def test_a_token_is_good_once_at_every_worker(kerberos: KerberosKms) -> None:
    header = kerberos.negotiate("replayer")
    assert kerberos.ask("GET", NAMES, headers={"Authorization": header}).status == 200
    for _ in range(4):
        again = kerberos.ask("GET", NAMES, headers={"Authorization": header})
        assert (again.status, again.reason, again.header("WWW-Authenticate")) == (
            401,
            "Authentication required",
            "Negotiate",
        )
    refused = kerberos.place.audit_lines()[-1]
    assert (refused["outcome"], refused["user"]) == ("unauthenticated", None)
    assert "replay" in str(refused)
    assert header.partition(" ")[2] not in str(kerberos.place.audit_lines())


@pytest.mark.parametrize("user", ["a/b/c", "a&b", "a;b"])
def test_a_principal_without_a_short_name_is_nobody(kerberos: KerberosKms, user: str) -> None:
    answer = kerberos.ask("GET", NAMES, user=user)
    assert (answer.status, answer.body) == (401, b"")
    # No token of ours either: the exchange is not to look like a success.
    assert answer.header("WWW-Authenticate") == "Negotiate"


def test_a_ticket_for_another_service_is_refused(kerberos: KerberosKms) -> None:
    kerberos.kdc.principal("host/localhost")
    header = kerberos.negotiate("alice", service="host")
    assert kerberos.ask("GET", NAMES, headers={"Authorization": header}).status == 401


def test_a_cookie_of_another_store_is_refused_under_kerberos_too(
    kerberos: KerberosKms, kdc: Kdc, tmp_path: Path
) -> None:
    with serving_kerberos(tmp_path, kdc, workers=1) as other:
        cookie = other.cookie("alice")
        assert other.ask("GET", NAMES, headers={"Cookie": cookie}).status == 200
    answer = kerberos.ask("GET", NAMES, headers={"Cookie": cookie})
    assert (answer.status, answer.reason.endswith("SignerException: Invalid signature")) == (401, True)


def test_a_request_pipelined_behind_a_refused_one_gains_nothing(kerberos: KerberosKms) -> None:
    client = kerberos.kms.connect()
    bad = f"GET {NAMES} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Negotiate AAAA\r\n\r\n"
    plain = f"GET {NAMES} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    client.send((bad + plain).encode())
    assert [client.read_answer().status for _ in range(2)] == [401, 401]
    # Nor behind an accepted one: a connection is nobody.
    good = plain.replace("\r\n\r\n", f"\r\nAuthorization: {kerberos.negotiate('alice')}\r\n\r\n")
    client.send((good + plain).encode())
    assert [client.read_answer().status for _ in range(2)] == [200, 401]
    client.socket.close()


def test_an_old_ticket_and_a_stale_keytab_are_refused_until_the_keytab_is_renewed(tmp_path: Path) -> None:
    with running_kdc(tmp_path / "realm", "OLD.TEST") as kdc:
        strict = tmp_path / "krb5.conf"
        strict.write_text(re.sub("clockskew = .*", "clockskew = 1", kdc.realm.krb5_conf.read_text()))
        keytab = tmp_path / "http.keytab"
        shutil.copy(kdc.keytab("HTTP/localhost"), keytab)
        place = KmsPlace.make(_made(tmp_path / "kms"), site=kerberos_site(keytab))
        with place.serving(1, environment={"KRB5_CONFIG": str(strict)}) as running:
            kms = KerberosKms(running, kdc)
            old = kms.negotiate("alice")
            made_s = time.monotonic()
            kdc.realm.change_key("HTTP/localhost")
            assert kms.ask("GET", NAMES, user="alice").status == 401
            assert "keytab" in str(place.audit_lines()[-1])
            shutil.copy(kdc.keytab("HTTP/localhost"), tmp_path / "new")
            (tmp_path / "new").replace(keytab)
            assert kms.ask("GET", NAMES, user="alice").status == 200
            shutil.copy(kdc.keytab("HTTP/localhost"), keytab)
            late = kms.negotiate("alice")
            while time.monotonic() < made_s + 3:
                time.sleep(0.05)
            for header in (old, late):
                assert kms.ask("GET", NAMES, headers={"Authorization": header}).status == 401


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def test_an_expired_ticket_makes_no_token(kerberos: KerberosKms, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = kerberos.kdc.kinit("short-lived", lifetime_s=2)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    deadline = time.monotonic() + 20
    statuses: set[int] = set()
    with pytest.raises(AuthenticationError, match=r"[Ee]xpired"):
        while time.monotonic() < deadline:
            with Initiator("HTTP", "localhost", cache=environment["KRB5CCNAME"]) as initiator:
                header = {"Authorization": negotiate_header(initiator.first_token())}
            statuses.add(kerberos.ask("GET", NAMES, headers=header).status)
            time.sleep(0.1)
    assert statuses == {200}


def test_status_says_that_kerberos_is_on(kerberos: KerberosKms) -> None:
    assert json_of(kerberos.ask("GET", "/ringfence/v1/status", user="alice"))["authentication"] == "kerberos"


@pytest.fixture
def simple(tmp_path: Path) -> Iterator[RunningKms]:
    with KmsPlace.make(tmp_path).serving(1) as running:
        yield running


def test_a_negotiate_token_is_no_proof_under_simple_authentication(kerberos: KerberosKms, simple: RunningKms) -> None:
    answer = call(simple.one_worker(), "GET", NAMES, user=None, headers={"Authorization": kerberos.negotiate("alice")})
    assert (answer.status, answer.header("WWW-Authenticate")) == (401, "PseudoAuth")


def test_an_error_of_the_dialect_still_has_its_body(kerberos: KerberosKms) -> None:
    answer = kerberos.ask("POST", "/kms/v1/key/absent", {}, headers={"Cookie": kerberos.cookie("alice")})
    assert remote_exception_of(answer)[0] == 500


def test_no_error_says_why_to_the_client(kerberos: KerberosKms) -> None:
    for header in ("Negotiate YIIFQwYG", f"Negotiate {base64.b64encode(b'x' * 3000).decode()}"):
        answer = kerberos.ask("GET", NAMES, headers={"Authorization": header})
        assert (answer.status, answer.reason, answer.body) == (401, "Authentication required", b"")
    with pytest.raises(AuthenticationError), kerberos.initiator("alice") as initiator:
        initiator.verify(b"not this server")


POLICY = """
version: 1
cluster: c
zones: [{{path: /a, key: ka, readers: [bob], writers: [etl]}}]
kms: {{namenode_users: [hdfs], admins: [{admins}]}}
"""


def test_the_policys_administrators_publish_by_kerberos_and_nobody_else(tmp_path: Path, kdc: Kdc) -> None:
    def body(expected: int, admins: str) -> bytes:
        document = canonical_json(parse_policy(POLICY.format(admins=admins), "p"))
        return b'{"expected_revision":%d,"policy":%b}' % (expected, document)

    policy = "/ringfence/v1/policy"
    with serving_kerberos(tmp_path, kdc) as kms:
        # Before the first revision nobody is an administrator by name.
        assert kms.ask("PUT", policy, body(0, "root-admin"), user="root-admin").status == 403
        admin = kms.kms.connect_admin()
        assert call(admin, "PUT", policy, body(0, "root-admin"), user=None).status == 200
        admin.socket.close()
        answer = kms.ask("PUT", policy, body(1, "'@none', second-admin"), user="root-admin")
        assert json_of(answer)["revision"] == 2
        line = kms.place.audit_lines()[-1]
        assert (line["user"], line["identity"], line["op"]) == ("root-admin", "kerberos", "PUBLISH_POLICY")
        # The revision decides at once who may publish the next one.
        assert kms.ask("PUT", policy, body(2, "root-admin"), user="root-admin").status == 403
        assert kms.ask("GET", policy, user="second-admin").status == 200
        # As with policy, so with who acts and what is granted.
        lease, grants = "/ringfence/v1/leases/agent", "/ringfence/v1/grants"
        for user, status in (("root-admin", 403), ("second-admin", 200)):
            assert kms.ask("PUT", lease, b'{"holder":"one","ttl_s":15}', user=user).status == status
            assert kms.ask("GET", grants, user=user).status == status
        token = json_of(kms.ask("GET", "/kms/v1/", user="second-admin", query={"op": "GETDELEGATIONTOKEN"}))
        headers = {"X-Hadoop-Delegation-Token": token["Token"]["urlString"]}
        for path in (policy, lease, grants):
            assert kms.ask("GET", path, headers=headers).status == 403
            assert kms.ask("GET", path, query={"user.name": "second-admin"}).status == 401


def test_over_tls_a_token_is_bound_to_the_connection_and_a_certificate_proves_an_administrator(
    tmp_path: Path, kdc: Kdc, certificates: Certificates
) -> None:
    place = KmsPlace.make(tmp_path)
    server = certificates.server
    config = tmp_path / "kms.yaml"
    config.write_text(f"""
authentication:
  type: kerberos
  kerberos: {{keytab: {kdc.keytab("HTTP/localhost")}, principals: [HTTP/localhost], channel_binding: required}}
tls: {{cert: {server.certificate}, key: {server.key}, client_ca: {certificates.trusted}, client_auth: optional}}
admin: {{users: [client]}}
""")
    end_point = hashlib.sha256(x509_der(server.certificate)).digest()
    options = ("--config", str(config))
    plain, proven = certificates.client_context(), certificates.client_context(certificates.client)
    with place.serving(1, *options, client_context=plain, environment=kdc.environment) as running:
        kms = KerberosKms(running, kdc)
        assert kms.ask("GET", NAMES, user="alice").status == 401
        for binding, status in (
            (b"tls-server-end-point:" + bytes(32), 401),
            (b"tls-server-end-point:" + end_point, 200),
        ):
            with kms.initiator("alice", binding=binding) as initiator:
                header = {"Authorization": negotiate_header(initiator.first_token())}
                answer = kms.ask("GET", NAMES, headers=header)
                assert answer.status == status
        assert (answer.header("Set-Cookie") or "").endswith("; Secure; HttpOnly")
        assert kms.ask("GET", NAMES, headers={"Cookie": cookie_of(answer)}).status == 200
        document = canonical_json(parse_policy(POLICY.format(admins="client"), "p"))
        body = b'{"expected_revision":0,"policy":%b}' % document
        for context, status in ((plain, 401), (proven, 200)):
            with running.connect(context) as client:
                assert kms.ask("PUT", "/ringfence/v1/policy", body, client=client).status == status
                # Elsewhere a certificate is nobody's proof, and no way to a token that would be good there.
                assert kms.ask("GET", NAMES, client=client).status == 401
                for path in ("/kms/v1/", "/ringfence/v1/policy", "/ringfence/v1/nowhere"):
                    operation = {"op": "GETDELEGATIONTOKEN", "renewer": "client"}
                    assert kms.ask("GET", path, query=operation, client=client).status == 401
        published = next(
            line for line in place.audit_lines() if line["op"] == "PUBLISH_POLICY" and line["status"] == 200
        )
        assert (published["user"], published["identity"]) == ("client", "certificate")


def x509_der(certificate: Path) -> bytes:
    """The first certificate of a PEM file."""
    pem = certificate.read_text()
    end = "-----END CERTIFICATE-----"
    return ssl.PEM_cert_to_DER_cert(pem[: pem.index(end) + len(end)] + "\n")
