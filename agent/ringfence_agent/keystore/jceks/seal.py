"""What JCEKS wraps around each entry: Java's PBEWithMD5AndTripleDES over a serialised object.

Source: `com.sun.crypto.provider.KeyProtector`, `PBES1Core` and `PBEKey` of OpenJDK. It is weak by today's measure
(MD5, 3DES, no authentication of an entry) and is here only to exchange keys with Hadoop: such a file is worth what
its password and its file mode are worth.

One entry costs 2 x 200,000 rounds of MD5, about 0.2 s: hashlib takes them one by one.
"""

from __future__ import annotations

import hashlib
import secrets
import struct

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from ringfence_agent.keystore.jceks.java_objects import SEALED, JavaObject, is_stream, read_object, write_object
from ringfence_zones.errors import InputError
from ringfence_zones.secret import Secret

ITERATIONS = 200_000
"""What the JDK writes since 8u151."""

_MAX_ITERATIONS = 5_000_000  # KeyProtector's own bound.
_SCHEME = "PBEWithMD5AndTripleDES"
_SALT_BYTES = 8
_BLOCK_BYTES = 8
_KEY_BYTES = 24


def unseal(sealed: bytes, password: Secret, alias: str) -> JavaObject:
    """The object inside an entry's sealed bytes. Raises InputError naming the entry."""
    outer, _ = read_object(sealed)
    values = outer.values
    if outer.class_name != SEALED or values.get("sealAlg") != _SCHEME or values.get("paramsAlg") != _SCHEME:
        raise InputError(f"the entry {alias!r} is not sealed with {_SCHEME}, the only way a JCEKS key store seals")
    parameters, content = values["encodedParams"], values["encryptedContent"]
    assert isinstance(parameters, bytes) and isinstance(content, bytes)
    salt, iterations = _parse_parameters(parameters, alias)
    if not content or len(content) % _BLOCK_BYTES:
        raise InputError(f"the entry {alias!r} is damaged")
    for halves in _salt_halves(salt):
        decryptor = _cipher(password, halves, iterations).decryptor()
        plain = _without_padding(decryptor.update(content) + decryptor.finalize())
        if plain is not None:
            return _only_object(plain, alias)
    raise InputError(f"the entry {alias!r} does not open with the key store's password")


def seal(inner: JavaObject, password: Secret, iterations: int = ITERATIONS) -> bytes:
    """An entry's sealed bytes, with a salt of its own."""
    salt = secrets.token_bytes(_SALT_BYTES)
    plain = write_object(inner)
    padding = _BLOCK_BYTES - len(plain) % _BLOCK_BYTES
    encryptor = _cipher(password, _salt_halves(salt)[0], iterations).encryptor()
    content = encryptor.update(plain + bytes([padding]) * padding) + encryptor.finalize()
    values: dict[str, bytes | str] = {
        "encodedParams": _format_parameters(salt, iterations),
        "encryptedContent": content,
        "paramsAlg": _SCHEME,
        "sealAlg": _SCHEME,
    }
    return write_object(JavaObject(SEALED, values))


def check_password(password: Secret) -> None:
    """Raises InputError for a password that Java's PBEKey refuses: it takes printable ASCII only."""
    if not all(0x20 <= byte <= 0x7E for byte in password.reveal()):
        raise InputError(
            "the key store's password has characters beyond printable ASCII, which Java does not seal keys with",
            hint="a password file ends with its line; blanks around the password are dropped",
        )


def _without_padding(padded: bytes) -> bytes | None:
    """None when the padding is none: another password, as good as certainly."""
    padding = padded[-1]
    if not 1 <= padding <= _BLOCK_BYTES or padded[-padding:] != bytes([padding]) * padding:
        return None
    plain = padded[:-padding]
    return plain if is_stream(plain) else None


def _only_object(plain: bytes, alias: str) -> JavaObject:
    inner, end = read_object(plain)
    if end != len(plain):
        raise InputError(f"the entry {alias!r} holds more than one object")
    return inner


def _salt_halves(salt: bytes) -> list[tuple[bytes, bytes]]:
    """The halves of a salt, as they are hashed; several ways when Java changed its mind."""
    first, second = salt[:4], salt[4:]
    if first != second:
        return [(first, second)]
    # PBES1Core reverses the first half then. Old JDKs had an index wrong there, and files of theirs exist.
    a, b, _, d = first
    return [(first[::-1], second), (bytes((d, a, b, d)), second)]


def _cipher(password: Secret, halves: tuple[bytes, bytes], iterations: int) -> Cipher[modes.CBC]:
    derived = _derive(password.reveal(), halves, iterations)
    try:
        return Cipher(TripleDES(derived[:_KEY_BYTES]), modes.CBC(derived[_KEY_BYTES:]))
    except UnsupportedAlgorithm as error:
        raise InputError(
            "this machine's OpenSSL refuses 3DES, which every JCEKS key store is sealed with (FIPS mode?)",
            hint="convert the key store on a machine that allows it",
        ) from error


def _derive(password: bytes, halves: tuple[bytes, bytes], iterations: int) -> bytes:
    """32 bytes: the key, then the IV. Each half of the salt goes through MD5 with the password on its own."""
    md5 = hashlib.md5
    derived = b""
    for half in halves:
        digest = half
        for _ in range(iterations):
            digest = md5(digest + password, usedforsecurity=False).digest()
        derived += digest
    return derived


def _format_parameters(salt: bytes, iterations: int) -> bytes:
    number = iterations.to_bytes(iterations.bit_length() // 8 + 1, "big")
    inner = b"\x04" + bytes([len(salt)]) + salt + b"\x02" + bytes([len(number)]) + number
    return b"\x30" + bytes([len(inner)]) + inner


def _parse_parameters(der: bytes, alias: str) -> tuple[bytes, int]:
    """DER of SEQUENCE { OCTET STRING salt, INTEGER iterations }, nothing longer than it needs to be."""
    try:
        sequence, length, octets, salt_length = struct.unpack_from("4B", der)
        salt = der[4 : 4 + _SALT_BYTES]
        integer, number_length = struct.unpack_from("2B", der, 4 + _SALT_BYTES)
        number = der[6 + _SALT_BYTES :]
    except struct.error:
        raise InputError(f"the entry {alias!r} has damaged parameters") from None
    expected = (0x30, len(der) - 2, 0x04, _SALT_BYTES, 0x02, len(number))
    if (sequence, length, octets, salt_length, integer, number_length) != expected or not 1 <= len(number) <= 4:
        raise InputError(f"the entry {alias!r} has damaged parameters")
    iterations = int.from_bytes(number, "big", signed=True)
    if not 1 <= iterations <= _MAX_ITERATIONS:
        raise InputError(f"the entry {alias!r} asks for {iterations} rounds; Java allows {_MAX_ITERATIONS}")
    return salt, iterations
