"""The Java client: delegation tokens through `Credentials`, and acting for others through proxy users."""

from __future__ import annotations

from typing import Any

from java_client import JavaClient, java


def _fetch(client: JavaClient, provider: Any, renewer: str) -> tuple[Any, Any]:
    """The credentials of a job, and the one token in them."""
    credentials = java("security.Credentials")()
    extension = java("crypto.key.KeyProviderDelegationTokenExtension")
    fetcher = extension.createKeyProviderDelegationTokenExtension(provider)
    (token,) = fetcher.addDelegationTokens(renewer, credentials)
    return credentials, token


def _identifier(token: Any) -> str:
    return f"{token.getKind()} for {token.getService()}: {token.decodeIdentifier()}"


def _holder(user: str, credentials: Any) -> Any:
    """Somebody who has nothing but the credentials of a job."""
    holder = java("security.UserGroupInformation").createRemoteUser(user)
    holder.addCredentials(credentials)
    return holder


def life_of_a_token(client: JavaClient) -> None:
    key = client.key("j-token")
    provider = client.provider()
    provider.createKey(key, client.options())
    credentials, token = _fetch(client, provider, "alice")
    client.note("token", _identifier(token))
    holder = _holder("container", credentials)
    use = client.provider
    client.step("use", lambda: client.as_user(holder, lambda: use().getMetadata(key)))
    crypto = client.crypto(provider)
    edek = crypto.generateEncryptedKey(key)
    client.step("decrypt", lambda: client.as_user(holder, lambda: client.crypto(use()).decryptEncryptedKey(edek)))
    first = token.renew(client.configuration())
    second = token.renew(client.configuration())
    client.note("renewals", f"grow: {first < second}, in the future: {first > 2**40}")
    client.step("cancel", lambda: token.cancel(client.configuration()))
    client.step("use-after-cancel", lambda: client.as_user(holder, lambda: use().getMetadata(key)))
    client.step("keys-after-cancel", lambda: client.as_user(holder, lambda: use().getKeys()))
    client.step(
        "decrypt-after-cancel", lambda: client.as_user(holder, lambda: client.crypto(use()).decryptEncryptedKey(edek))
    )
    client.step(
        "create-after-cancel", lambda: client.as_user(holder, lambda: use().createKey(f"{key}-2", client.options()))
    )
    client.step("renew-after-cancel", lambda: token.renew(client.configuration()))
    client.step("cancel-again", lambda: token.cancel(client.configuration()))


def renewal_by_another(client: JavaClient) -> None:
    provider = client.provider()
    _, token = _fetch(client, provider, "yarn")
    client.note("token", _identifier(token))
    client.step("renew", lambda: token.renew(client.configuration()))
    client.step("cancel-by-owner", lambda: token.cancel(client.configuration()))


def token_in_the_place_of_a_user(client: JavaClient) -> None:
    """A token cannot fetch another token, and its holder's own name does not matter."""
    provider = client.provider()
    credentials, token = _fetch(client, provider, "alice")
    holder = _holder("nobody", credentials)
    client.step("list", lambda: client.as_user(holder, lambda: client.provider().getKeys() is not None))
    client.step(
        "another-token", lambda: client.as_user(holder, lambda: _identifier(_fetch(client, client.provider(), "x")[1]))
    )
    client.step("renew", lambda: client.as_user(holder, lambda: token.renew(client.configuration()) > 2**40))


def token_with_two_hosts(client: JavaClient) -> None:
    """One token serves every host of a URI; it names all of them."""
    provider = client.provider("localhost;127.0.0.1")
    credentials, token = _fetch(client, provider, "alice")
    client.note("token", _identifier(token))
    holder = _holder("container", credentials)
    for turn in range(3):
        client.step(
            f"use-{turn}",
            lambda: client.as_user(holder, lambda: client.provider("localhost;127.0.0.1").getMetadata("j-absent")),
        )
    client.step("renew", lambda: token.renew(client.configuration()) > 2**40)
    client.step("cancel", lambda: token.cancel(client.configuration()))


def broken_token(client: JavaClient) -> None:
    provider = client.provider()
    credentials, token = _fetch(client, provider, "alice")
    password = bytearray(token.getPassword())
    password[0] ^= 1
    token.setPassword(bytes(password))
    client.step("renew", lambda: token.renew(client.configuration()))
    holder = _holder("container", credentials)
    client.step("use", lambda: client.as_user(holder, lambda: client.provider().getMetadata("j-absent")))
    client.step("cancel", lambda: token.cancel(client.configuration()))


def _proxy(user: str) -> Any:
    ugi = java("security.UserGroupInformation")
    return ugi.createProxyUser(user, ugi.getLoginUser())


def acting_for_another(client: JavaClient) -> None:
    key = client.key("j-proxied")
    bob = _proxy("bob")
    client.step("create", lambda: client.as_user(bob, lambda: client.provider().createKey(key, client.options())))
    client.step("metadata", lambda: client.as_user(bob, lambda: client.provider().getMetadata(key)))
    credentials, token = client.as_user(bob, lambda: _fetch(client, client.provider(), "alice"))
    client.note("token", _identifier(token))
    holder = _holder("container", credentials)
    client.step("use-token", lambda: client.as_user(holder, lambda: client.provider().getMetadata(key)))
    client.step("renew", lambda: token.renew(client.configuration()) > 2**40)
    client.step("cancel", lambda: token.cancel(client.configuration()))
    client.step("use-after-cancel", lambda: client.as_user(holder, lambda: client.provider().getMetadata(key)))


def acting_for_a_group(client: JavaClient) -> None:
    client.step("member", lambda: client.as_user(_proxy("gina"), lambda: client.provider().getMetadata("j-absent")))


def acting_without_leave(client: JavaClient) -> None:
    for user in ("stranger", "alice"):
        _try_as(client, _proxy(user), user)
    denied = _proxy("carol")
    client.step("no-rights", lambda: client.as_user(denied, lambda: client.provider().getKeys()))


def _try_as(client: JavaClient, proxy: Any, step: str) -> None:
    bad, options = client.key("j-bad"), client.options()
    client.step(f"{step}-reads", lambda: client.as_user(proxy, lambda: client.provider().getMetadata(bad)))
    client.step(f"{step}-creates", lambda: client.as_user(proxy, lambda: client.provider().createKey(bad, options)))
    client.step(f"{step}-token", lambda: client.as_user(proxy, lambda: _fetch(client, client.provider(), "x")))
