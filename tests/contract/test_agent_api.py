"""The agent's API over TLS: tokens, certificates and tickets, asked by the client of step jobs, and nobody else.

The server is the agent's own, in this process; the KDC and the certificates are real.
"""

from __future__ import annotations

import base64
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_api import ServedApi, ask, serving_api
from certificates import Certificates
from kdc import Kdc

from ringfence_agent.client import AgentClient, AgentError, AgentUnavailableError
from ringfence_zones.gssapi import Initiator

_NOBODYS = "rfa-000000000000-" + "A" * 43


def _settings(certificates: Certificates, more: str = "") -> str:
    return (
        "listen: localhost:0\n"
        f"tls: {{cert: {certificates.server.certificate}, key: {certificates.server.key},"
        f" client_ca: {certificates.trusted}, client_auth: optional}}\n"
        "allowed_users: [masker, client, alice]\n"
        "operators: {users: [hadoop]}\n"
        f"{more}"
    )


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[ServedApi]:
    with serving_api(ServedApi(tmp_path_factory.mktemp("t"), _settings(certificates), trusted=True)) as running:
        yield running


@pytest.fixture
def admin(api: ServedApi) -> AgentClient:
    """Whoever the agent runs as, over the Unix socket."""
    return AgentClient(str(api.path))


def _token_file(directory: Path, admin: AgentClient, role: str = "viewer", **scope: list[str]) -> Path:
    token, _ = admin.issue_token("etl", role, 600, **scope)
    path = directory / "token"
    path.write_text(token + "\n")
    path.chmod(0o600)
    return path


def _over_tls(api: ServedApi, certificates: Certificates, **proof: str) -> AgentClient:
    return AgentClient(url=api.url, ca_file=str(certificates.trusted), **proof)


def test_a_job_elsewhere_asks_with_its_token(
    api: ServedApi, admin: AgentClient, certificates: Certificates, tmp_path: Path
) -> None:
    token_file = _token_file(tmp_path, admin)
    job = _over_tls(api, certificates, token_file=str(token_file))
    assert [zone.path for zone in job.zones()] == ["/data/masked", "/data/pii"]
    assert job.check_move("/data/pii/a", "/data/pii/b").rename
    assert job.places("/data/pii/out/part", job="j1").staging == "/data/pii/out/.staging-etl-j1"
    policy = job.policy()
    assert policy is not None
    assert policy["cluster"] == "test"
    assert job.validate_policy("version: 1\n") != []
    with pytest.raises(AgentError, match="may not ask on behalf of hdfs"):
        job.check_move("/data/pii/a", "/data/pii/b", user="hdfs")
    for refused in (job.tokens, job.grants, lambda: job.issue_token("etl", "viewer", 600)):
        with pytest.raises(AgentError) as caught:
            refused()
        assert caught.value.status in (403, 404)


def test_a_certificate_that_is_not_trusted_is_said_to_be_that(
    api: ServedApi, admin: AgentClient, tmp_path: Path
) -> None:
    job = AgentClient(url=api.url, token_file=str(_token_file(tmp_path, admin)))
    with pytest.raises(AgentError, match="certificate verify failed") as caught:
        job.zones()
    assert "ca_file" in (caught.value.hint or "")


def test_a_token_is_good_for_its_paths_alone(
    api: ServedApi, admin: AgentClient, certificates: Certificates, tmp_path: Path
) -> None:
    token_file = _token_file(tmp_path, admin, paths=["/data/pii"], verbs=["look", "check"])
    job = _over_tls(api, certificates, token_file=str(token_file))
    assert job.check_move("/data/pii/a", "/data/pii/b").rename
    for refused in (
        lambda: job.check_move("/data/pii/a", "/data/masked/a"),
        lambda: job.check_move("/data/masked/a", "/data/pii/a"),
        lambda: job.zone_of("/data"),
        lambda: job.places("/data/pii2/x"),
    ):
        with pytest.raises(AgentError, match="not good for") as caught:
            refused()
        assert caught.value.status == 403


def test_a_revoked_token_is_refused_from_then_on(
    api: ServedApi, admin: AgentClient, certificates: Certificates, tmp_path: Path
) -> None:
    job = _over_tls(api, certificates, token_file=str(_token_file(tmp_path, admin)))
    job.zones()
    (name,) = [token.name for token in admin.tokens() if token.name in (tmp_path / "token").read_text()]
    admin.revoke_token(name)
    with pytest.raises(AgentError) as caught:
        job.zones()
    assert (caught.value.status, caught.value.type) == (401, "not-identified")
    with pytest.raises(AgentError) as caught:
        admin.revoke_token(name)
    assert caught.value.status == 404


def test_an_administrators_token_is_a_second_factor_that_makes_no_other(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> None:
    directory = tmp_path_factory.mktemp("t")
    with serving_api(ServedApi(directory, _settings(certificates), trusted=True)) as first:
        token, _ = AgentClient(str(first.path)).issue_token("hadoop", "admin", 600)
    # The agent was restarted, and steps are hadoop now.
    with serving_api(ServedApi(directory, _settings(certificates))) as api:
        api.accounts.name = "hadoop"
        header = {"Authorization": f"Bearer {token}"}
        assert ask(api.unix(), "GET", "/v1/tokens")[0] == 403
        assert ask(api.unix(), "GET", "/v1/tokens", headers=header)[0] == 200
        wish = b'{"user": "eve", "role": "admin", "life_s": 600}'
        for connection in (api.unix(), api.tls(certificates.client_context())):
            status, _, problem = ask(connection, "POST", "/v1/tokens", wish, header)
            assert status == 403
            assert "neither makes nor ends" in problem["detail"]


def test_a_certificate_of_our_authority_is_its_common_name(api: ServedApi, certificates: Certificates) -> None:
    proof = {"cert_file": str(certificates.client.certificate), "key_file": str(certificates.client.key)}
    job = _over_tls(api, certificates, **proof)
    assert len(job.zones()) == 2
    with pytest.raises(AgentError) as caught:
        job.tokens()
    assert caught.value.status == 403


def test_without_proof_there_is_a_401_that_says_what_to_send(api: ServedApi, certificates: Certificates) -> None:
    status, headers, problem = ask(api.tls(certificates.client_context()), "GET", "/v1/health")
    assert (status, problem["type"]) == (401, "urn:ringfence:problem:not-identified")
    assert {value.partition(" ")[0] for value in headers.get_all("WWW-Authenticate")} == {"Bearer", "Basic"}
    assert headers["Set-Cookie"] is None


def test_an_address_that_keeps_failing_waits(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> None:
    with serving_api(ServedApi(tmp_path_factory.mktemp("t"), _settings(certificates))) as api:
        connection = api.tls(certificates.client_context())
        statuses = []
        for _ in range(60):
            connection.request("GET", "/v1/health", headers={"Authorization": f"Bearer {_NOBODYS}"})
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()
        assert statuses[0] == 401
        assert 429 in statuses
        # Those on this machine are not that address.
        assert api.ask("GET", "/v1/health")[0] == 200


def test_a_web_page_changes_nothing(api: ServedApi, certificates: Certificates) -> None:
    context = certificates.client_context(certificates.client)
    question = b'{"src": "/data/pii/a", "dst": "/data/pii/b"}'
    assert ask(api.tls(context), "POST", "/v1/moves/check", question)[0] == 200
    for origin in ("https://evil.example", "null", api.url):
        status, _, problem = ask(api.tls(context), "POST", "/v1/moves/check", question, {"Origin": origin})
        assert (status, problem["type"]) == (403, "urn:ringfence:problem:from-a-page")


def test_plain_http_and_foreign_authorities_get_no_answer(
    api: ServedApi, certificates: Certificates, tmp_path: Path, admin: AgentClient
) -> None:
    host, port = api.url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as plain:
        plain.sendall(b"GET /v1/zones HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"/data/pii" not in plain.recv(65536)
    token_file = _token_file(tmp_path, admin)
    with pytest.raises(AgentUnavailableError, match="does not answer"):
        AgentClient(url=api.url, token_file=str(token_file)).zones()  # the system does not know our authority
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(certificates.trusted)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert ask(api.tls(old), "GET", "/v1/health")[0] == 401


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_the_client_sends_no_token_that_others_can_read(
    api: ServedApi, certificates: Certificates, tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "token"
    path.write_text(_NOBODYS)
    path.chmod(mode)
    with pytest.raises(AgentError, match="by others") as caught:
        _over_tls(api, certificates, token_file=str(path)).zones()
    assert caught.value.status is None


@pytest.mark.parametrize("content", ["", "\n", "a b", "x" * 5000, "a\nb", "\x00"])
def test_the_client_sends_no_header_that_it_was_tricked_into(
    api: ServedApi, certificates: Certificates, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(AgentError, match="holds no token"):
        _over_tls(api, certificates, token_file=str(path)).zones()


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "localhost:1", "https://", "https://a:b", "https://u@h:1", "https://h:1/x", "ftp://h"]
)
def test_the_client_takes_https_alone(url: str) -> None:
    with pytest.raises(AgentError, match="must be https"):
        AgentClient(url=url)


def test_a_ticket_is_one_request_and_cannot_be_sent_again(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, kdc: Kdc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRB5_CONFIG", kdc.environment["KRB5_CONFIG"])
    keytab = kdc.keytab("HTTP/localhost")
    keytab.chmod(0o600)
    more = f"spnego: {{keytab: {keytab}}}\n"
    cache = kdc.kinit("alice")["KRB5CCNAME"]
    stranger = kdc.kinit("mallory")["KRB5CCNAME"]
    with serving_api(ServedApi(tmp_path_factory.mktemp("t"), _settings(certificates, more))) as api:
        context = certificates.client_context()
        with Initiator("HTTP", "localhost", cache=cache) as initiator:
            header = {"Authorization": "Negotiate " + base64.b64encode(initiator.first_token()).decode("ascii")}
            status, headers, answer = ask(api.tls(context), "GET", "/v1/zones", headers=header)
            assert (status, len(answer["zones"])) == (200, 2)
            scheme, _, token = headers["WWW-Authenticate"].partition(" ")
            assert scheme == "Negotiate"
            initiator.verify(base64.b64decode(token))
            assert headers["Set-Cookie"] is None
        assert ask(api.tls(context), "GET", "/v1/zones", headers=header)[0] == 401
        with Initiator("HTTP", "localhost", cache=stranger) as initiator:
            header = {"Authorization": "Negotiate " + base64.b64encode(initiator.first_token()).decode("ascii")}
            assert ask(api.tls(context), "GET", "/v1/zones", headers=header)[0] == 403
        # Over the Unix socket nobody is asked for a ticket.
        assert api.ask("GET", "/v1/zones")[0] == 200


def test_the_environment_of_a_container_is_enough(
    api: ServedApi, admin: AgentClient, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # YARN puts a job's files into a container as links to files that the user alone can read.
    kept = _token_file(tmp_path, admin)
    kept.chmod(0o500)
    link = tmp_path / "agent.token"
    link.symlink_to(kept)
    monkeypatch.delenv("RINGFENCE_AGENT_SOCKET", raising=False)
    monkeypatch.setenv("RINGFENCE_AGENT_URL", api.url)
    monkeypatch.setenv("RINGFENCE_AGENT_TOKEN_FILE", str(link))
    monkeypatch.setenv("RINGFENCE_AGENT_CA_FILE", str(certificates.trusted))
    assert len(AgentClient().zones()) == 2
    assert os.access(link, os.R_OK)
