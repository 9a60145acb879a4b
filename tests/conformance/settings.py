"""What both servers are configured with: users, groups, access lists, proxy users."""

from __future__ import annotations

from pathlib import Path

from certificates import STORE_PASSWORD, JavaStores
from kdc import Kdc
from key_servers import Settings

_OPERATIONS = (
    "CREATE", "DELETE", "ROLLOVER", "GET", "GET_KEYS", "GET_METADATA", "SET_KEY_MATERIAL", "GENERATE_EEK", "DECRYPT_EEK"
)  # fmt: skip
_KEY_OPERATIONS = ("MANAGEMENT", "GENERATE_EEK", "DECRYPT_EEK", "READ")

# Users named like an operation may do just that; `nobody` may do nothing.
ACLS = {
    **{f"hadoop.kms.acl.{name}": f"alice,bob,boss,maker,reader,writer,wanda,{name} engineers" for name in _OPERATIONS},
    "hadoop.kms.blacklist.CREATE": "boss",
    "hadoop.kms.blacklist.DECRYPT_EEK": "boss",
    "hadoop.kms.blacklist.GET": "boss suspended",
    **{f"default.key.acl.{name}": "*" for name in _KEY_OPERATIONS},
    "whitelist.key.acl.READ": "wanda",
    "key.acl.guarded.MANAGEMENT": "maker",
    "key.acl.guarded.READ": "reader",
    "key.acl.guarded.GENERATE_EEK": "writer",
    "key.acl.guarded.DECRYPT_EEK": "reader,writer",
    "key.acl.guarded.two.MANAGEMENT": "maker",
    "key.acl.guarded.two.READ": "maker",
    "key.acl.partial.one.READ": "alice",
}
# Who may act for whom, from where. The host is a name, the peer an address.
PROXY_USERS = {
    "hadoop.kms.proxyuser.alice.users": "bob,carol,gina",
    "hadoop.kms.proxyuser.alice.hosts": "localhost",
    "hadoop.kms.proxyuser.maker.groups": "engineers",
    "hadoop.kms.proxyuser.maker.hosts": "*",
    "hadoop.kms.proxyuser.reader.users": "*",
    "hadoop.kms.proxyuser.reader.hosts": "192.0.2.1",
}
CORE = {"hadoop.user.group.static.mapping.overrides": "gina=engineers;greta=engineers,suspended"}


# Who has a principal in the secure runs; the server's are HTTP/localhost and HTTP/127.0.0.1.
PRINCIPALS = ("alice", "bob", "nobody", "writer")


def simple() -> Settings:
    """`simple` authentication over plain HTTP."""
    return Settings(acls=ACLS, site={"hadoop.kms.authentication.type": "simple", **PROXY_USERS}, core=CORE)


def secure(kdc: Kdc, stores: JavaStores) -> Settings:
    """Kerberos over TLS, the certificate from a Java key store."""
    site = {
        "hadoop.kms.authentication.type": "kerberos",
        "hadoop.kms.authentication.kerberos.keytab": str(server_keytab(kdc)),
        "hadoop.kms.authentication.kerberos.principal": "*",
        "hadoop.kms.authentication.kerberos.name.rules": "DEFAULT",
        "hadoop.kms.ssl.enabled": "true",
    }
    ssl = {
        **{f"ssl.server.keystore.{name}": STORE_PASSWORD for name in ("password", "keypassword")},
        "ssl.server.keystore.location": str(stores.key_store),
        "ssl.server.truststore.location": str(stores.trust_store),
        "ssl.server.truststore.password": STORE_PASSWORD,
    }
    return Settings(ACLS, {**site, **PROXY_USERS}, CORE, ssl, kdc.realm.krb5_conf)


def server_keytab(kdc: Kdc) -> Path:
    """For both host names of the multi-host cases."""
    return kdc.keytab("HTTP/localhost", "HTTP/127.0.0.1")


def ssl_client(stores: JavaStores) -> dict[str, str]:
    """ssl-client.xml for Java clients."""
    return {
        "ssl.client.truststore.location": str(stores.trust_store),
        "ssl.client.truststore.password": STORE_PASSWORD,
    }
