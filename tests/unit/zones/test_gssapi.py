"""Both sides of SPNEGO against a real MIT KDC."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kdc import Kdc

from ringfence_zones import gssapi, gssapi_library
from ringfence_zones.errors import AuthenticationError, ConfigError
from ringfence_zones.gssapi import Acceptor, ChannelBinding, Initiator

NTLM = b"NTLMSSP\x00\x01\x00\x00\x00" + bytes(24)


@pytest.fixture(autouse=True)
def realm(kdc: Kdc, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KRB5")]:
        monkeypatch.delenv(name)
    for name, value in kdc.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def acceptor(kdc: Kdc) -> Acceptor:
    return Acceptor(kdc.keytab("HTTP/localhost"))


def client(kdc: Kdc, user: str = "gss-alice", service: str = "HTTP", binding: bytes | None = None) -> Initiator:
    cache = kdc.kinit(user)["KRB5CCNAME"]
    return Initiator(service, "localhost", cache=cache, binding=binding)


def token_of(kdc: Kdc, user: str = "gss-alice", service: str = "HTTP") -> bytes:
    with client(kdc, user, service) as initiator:
        return initiator.first_token()


def test_a_token_proves_the_client_and_the_answer_proves_the_server(kdc: Kdc, acceptor: Acceptor) -> None:
    with client(kdc) as initiator:
        accepted = acceptor.accept(initiator.first_token())
        initiator.verify(accepted.token)
    assert accepted.principal == f"gss-alice@{kdc.realm.name}"
    assert accepted.service == f"HTTP/localhost@{kdc.realm.name}"
    assert not accepted.channel_bound


def test_an_answer_of_somebody_else_does_not_prove_the_server(kdc: Kdc, acceptor: Acceptor) -> None:
    other = acceptor.accept(token_of(kdc)).token
    for answer in (other, b"", b"x"):
        with client(kdc) as initiator:
            initiator.first_token()
            with pytest.raises(AuthenticationError):
                initiator.verify(answer)


def test_a_bare_kerberos_token_is_taken_as_well(kdc: Kdc, acceptor: Acceptor, monkeypatch: pytest.MonkeyPatch) -> None:
    with client(kdc) as initiator:
        monkeypatch.setattr(gssapi_library, "spnego", gssapi_library.krb5)
        token = initiator.first_token()
    assert gssapi_library.SPNEGO_ELEMENTS not in token[:16]
    assert acceptor.accept(token).principal == f"gss-alice@{kdc.realm.name}"


def test_a_token_is_good_once(kdc: Kdc, acceptor: Acceptor) -> None:
    token = token_of(kdc)
    acceptor.accept(token)
    with pytest.raises(AuthenticationError, match="replay"):
        acceptor.accept(token)


@pytest.mark.parametrize("token", [b"", b"\x60", b"junk", NTLM, b"\xa1\x03\x0a\x01\x01", b"\x60\x80" + bytes(70_000)])
def test_what_is_no_first_kerberos_token_is_refused(acceptor: Acceptor, token: bytes) -> None:
    with pytest.raises(AuthenticationError):
        acceptor.accept(token)


def test_an_ntlm_token_inside_spnego_is_refused(acceptor: Acceptor) -> None:
    ntlm_oid = bytes.fromhex("060a2b06010401823702020a")
    token_field = b"\xa2" + bytes([len(NTLM) + 2]) + b"\x04" + bytes([len(NTLM)]) + NTLM
    mechanisms = b"\xa0" + bytes([len(ntlm_oid) + 2]) + b"\x30" + bytes([len(ntlm_oid)]) + ntlm_oid
    init = b"\x30" + bytes([len(mechanisms + token_field)]) + mechanisms + token_field
    body = bytes.fromhex("06062b0601050502") + b"\xa0" + bytes([len(init)]) + init
    with pytest.raises(AuthenticationError):
        acceptor.accept(b"\x60" + bytes([len(body)]) + body)


def test_a_ticket_for_another_service_of_the_keytab_is_refused(kdc: Kdc) -> None:
    kdc.principal("host/localhost")
    both = Acceptor(kdc.keytab("HTTP/localhost", "host/localhost"))
    with pytest.raises(AuthenticationError, match="not for an HTTP service"):
        both.accept(token_of(kdc, service="host"))
    assert both.accept(token_of(kdc)).service.startswith("HTTP/localhost@")


def test_only_the_configured_principals_are_answered_for(kdc: Kdc) -> None:
    keytab = kdc.keytab("HTTP/localhost", "HTTP/other")
    refusing = Acceptor(keytab, [f"HTTP/other@{kdc.realm.name}"])
    with pytest.raises(AuthenticationError, match="does not answer for"):
        refusing.accept(token_of(kdc))
    answering = Acceptor(keytab, [f"HTTP/localhost@{kdc.realm.name}"])
    assert answering.accept(token_of(kdc)).service == f"HTTP/localhost@{kdc.realm.name}"


def test_a_rotated_keytab_is_used_without_a_restart_and_a_stale_one_refused(kdc: Kdc, tmp_path: Path) -> None:
    kdc.principal("HTTP/localhost")
    place = tmp_path / "http.keytab"
    shutil.copy(kdc.keytab("HTTP/localhost"), place)
    acceptor = Acceptor(place)
    kdc.realm.change_key("HTTP/localhost")
    with pytest.raises(AuthenticationError, match="keytab"):
        acceptor.accept(token_of(kdc))
    shutil.copy(kdc.keytab("HTTP/localhost"), tmp_path / "new")
    (tmp_path / "new").replace(place)
    assert acceptor.accept(token_of(kdc)).principal == f"gss-alice@{kdc.realm.name}"


def test_a_token_past_its_ticket_is_refused(
    kdc: Kdc, acceptor: Acceptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = tmp_path / "krb5.conf"
    strict.write_text(re.sub("clockskew = .*", "clockskew = 1", kdc.realm.krb5_conf.read_text()))
    monkeypatch.setenv("KRB5_CONFIG", str(strict))
    with Initiator("HTTP", "localhost", cache=kdc.kinit("gss-short", lifetime_s=1)["KRB5CCNAME"]) as initiator:
        token = initiator.first_token()
    expired_s = time.monotonic() + 2.5
    while time.monotonic() < expired_s:
        time.sleep(0.05)
    with pytest.raises(AuthenticationError, match=r"skew|expired"):
        acceptor.accept(token)


@pytest.mark.parametrize("mode", list(ChannelBinding))
def test_channel_bindings(kdc: Kdc, mode: ChannelBinding) -> None:
    acceptor = Acceptor(kdc.keytab("HTTP/localhost"), channel_binding=mode)
    ours, others = b"tls-server-end-point:" + b"1" * 32, b"tls-server-end-point:" + b"2" * 32

    def accepts(sent: bytes | None) -> bool | None:
        with client(kdc, binding=sent) as initiator:
            try:
                return acceptor.accept(initiator.first_token(), ours).channel_bound
            except AuthenticationError:
                return None

    expected: dict[ChannelBinding, list[bool | None]] = {
        ChannelBinding.OFF: [False, False, False],
        ChannelBinding.OPPORTUNISTIC: [True, False, None],
        ChannelBinding.REQUIRED: [True, None, None],
    }
    assert [accepts(ours), accepts(None), accepts(others)] == expected[mode]


def test_required_channel_binding_refuses_a_connection_without_tls(kdc: Kdc) -> None:
    acceptor = Acceptor(kdc.keytab("HTTP/localhost"), channel_binding=ChannelBinding.REQUIRED)
    with pytest.raises(AuthenticationError, match="channel binding"):
        acceptor.accept(token_of(kdc))


def test_a_keytab_that_cannot_be_read_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        Acceptor(tmp_path / "absent")
    assert caught.value.command is not None


def test_a_machine_without_kerberos_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gssapi_library, "_LIBRARY", "libgssapi_absent.so.9")
    gssapi_library.library.cache_clear()
    try:
        with pytest.raises(ConfigError, match="not on this machine") as caught:
            gssapi.default_realm()
        assert "krb5-libs" in (caught.value.hint or "")
    finally:
        monkeypatch.undo()
        gssapi_library.library.cache_clear()


def test_a_client_without_tickets_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(AuthenticationError, match=r"[Nn]o Kerberos credentials"):
        Initiator("HTTP", "localhost", cache=f"FILE:{tmp_path}/absent").first_token()


def test_a_client_keytab_needs_no_ticket_beforehand(kdc: Kdc, acceptor: Acceptor, tmp_path: Path) -> None:
    keytab = kdc.keytab("gss-agent")
    with Initiator("HTTP", "localhost", cache=f"FILE:{tmp_path}/cache", client_keytab=keytab) as initiator:
        assert acceptor.accept(initiator.first_token()).principal == f"gss-agent@{kdc.realm.name}"


def test_a_principal_without_realm_is_in_the_default_one(kdc: Kdc) -> None:
    assert gssapi.default_realm() == kdc.realm.name
    assert gssapi.full_name("HTTP/localhost") == f"HTTP/localhost@{kdc.realm.name}"
    assert gssapi.full_name("HTTP/localhost@OTHER") == "HTTP/localhost@OTHER"


@pytest.fixture(scope="module")
def genuine(kdc: Kdc) -> bytes:
    environment = kdc.kinit("gss-fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KRB5_CONFIG", environment["KRB5_CONFIG"])
        with Initiator("HTTP", "localhost", cache=environment["KRB5CCNAME"]) as initiator:
            return initiator.first_token()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_changed_token_is_accepted(kdc: Kdc, genuine: bytes, data: st.DataObject) -> None:
    acceptor = _shared_acceptor(kdc)
    position = data.draw(st.integers(0, len(genuine) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "random"]))
    match kind:
        case "flip":
            changed = bytearray(genuine)
            changed[position] ^= data.draw(st.integers(1, 255))
        case "cut":
            changed = bytearray(genuine[:position])
        case "insert":
            changed = bytearray(genuine[:position] + data.draw(st.binary(min_size=1, max_size=9)) + genuine[position:])
        case _:
            changed = bytearray(b"\x60" + data.draw(st.binary(max_size=300)))
    try:
        accepted = acceptor.accept(bytes(changed))
    except AuthenticationError:
        return
    # Some bytes of the wrapping mean nothing (an unused flag); then it is the client's own proof that was accepted.
    assert accepted.principal == f"gss-fuzz@{kdc.realm.name}"


_acceptors: dict[int, Acceptor] = {}


def _shared_acceptor(kdc: Kdc) -> Acceptor:
    if id(kdc) not in _acceptors:
        _acceptors[id(kdc)] = Acceptor(kdc.keytab("HTTP/localhost"))
    return _acceptors[id(kdc)]
