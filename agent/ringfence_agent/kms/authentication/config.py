"""How callers are authenticated: kms.yaml, or Hadoop's `hadoop.kms.authentication.*` and `hadoop.kms.proxyuser.*`.

A block of kms.yaml (`authentication`, `delegation_tokens`, `proxy_users`) decides alone for what it is about; otherwise
Hadoop's properties do, with the defaults of kms-default.xml. Refused, because it would be unsafe or not what it says:

1. A type other than simple or kerberos, and kerberos without a keytab that this service alone can read.
2. `simple.anonymous.allowed`: keys are not served to nobody.
3. A signature secret that others can read, or one of less than 16 bytes. Hadoop falls back to a random one.
4. ZooKeeper as the source of cookie secrets or tokens: instances share them through the key store.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ringfence_agent.kms.authentication.delegation_tokens import TokenLifetimes
from ringfence_agent.kms.authentication.proxy_users import PREFIX as PROXY_USER
from ringfence_agent.kms.authentication.proxy_users import ProxyRule, read_proxy_rules
from ringfence_agent.spnego.settings import KerberosBlock, KerberosSettings, kerberos_settings, require_private
from ringfence_zones.config_file import AbsolutePath, ConfigModel, DurationS
from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import HadoopConf, split_list
from ringfence_zones.secret import Secret

_log = logging.getLogger(__name__)

_PREFIX = "hadoop.kms.authentication."
_TOKENS = _PREFIX + "delegation-token."
_MECHANISM = "hadoop.security.auth_to_local.mechanism"
_ZOOKEEPER_TOKENS = _PREFIX + "zk-dt-secret-manager.enable"
SIMPLE, KERBEROS = "simple", "kerberos"
_VALIDITY_S = 36_000
_MIN_SECRET_BYTES = 16
_ANY_PRINCIPAL = "*"


class AuthenticationBlock(ConfigModel):
    """`authentication` in kms.yaml."""

    type: str = Field(SIMPLE, pattern="^(simple|kerberos)$")
    kerberos: KerberosBlock | None = None
    session: DurationS = Field(float(_VALIDITY_S), ge=1)
    idle: DurationS | None = Field(None, ge=1)
    cookie_path: str | None = None
    cookie_domain: str | None = None
    cookie_persistent: bool = False
    signature_secret_file: AbsolutePath | None = None


class TokensBlock(ConfigModel):
    """`delegation_tokens` in kms.yaml."""

    max_life: DurationS = Field(604_800.0, ge=1)
    renew_interval: DurationS = Field(86_400.0, ge=1)
    roll_interval: DurationS = Field(86_400.0, ge=1)
    removal_scan: DurationS = Field(3_600.0, ge=1)
    in_query: bool = False


class ProxyUserBlock(ConfigModel):
    """One entry of `proxy_users` in kms.yaml; `*` alone in a list stands for everyone or everywhere."""

    users: list[str] = Field(default_factory=list)
    groups: list[str] = Field(default_factory=list)
    hosts: list[str] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AuthenticationSettings:
    """Everything decided about callers. Seconds; `kerberos` is None for simple authentication.

    `signature_secret` is Hadoop's secret file, None for secrets derived from the key store.
    """

    kerberos: KerberosSettings | None
    session_s: int
    idle_s: int | None
    cookie_path: str | None
    cookie_domain: str | None
    cookie_persistent: bool
    signature_secret: Secret | None
    token_lifetimes: TokenLifetimes
    token_in_query: bool
    proxy_rules: Mapping[str, ProxyRule]

    @property
    def type(self) -> str:
        """`simple` or `kerberos`."""
        return SIMPLE if self.kerberos is None else KERBEROS


def authentication_settings(
    block: AuthenticationBlock | None,
    tokens: TokensBlock | None,
    proxy_users: Mapping[str, ProxyUserBlock] | None,
    conf: HadoopConf,
    keytab_file: Path | None = None,
) -> AuthenticationSettings:
    """What the sources say; `keytab_file` in place of the one that kms-site.xml names. Raises ConfigError."""
    _refuse_unsafe(conf)
    if keytab_file is not None:
        _require_a_place_for_it(block, conf)
    block = block if block is not None else _block_of(conf, keytab_file)
    lifetimes, in_query = (_lifetimes_of(conf), False) if tokens is None else (_lifetimes(tokens), tokens.in_query)
    rules = read_proxy_rules(conf if proxy_users is None else HadoopConf(_properties(proxy_users)))
    return AuthenticationSettings(
        kerberos=_kerberos(block),
        session_s=int(block.session),
        # A persistent cookie has no idle limit, as in Hadoop.
        idle_s=None if block.idle is None or block.cookie_persistent else int(block.idle),
        cookie_path=block.cookie_path,
        cookie_domain=block.cookie_domain,
        cookie_persistent=block.cookie_persistent,
        signature_secret=_read_secret(block.signature_secret_file) if block.signature_secret_file else None,
        token_lifetimes=lifetimes,
        token_in_query=in_query,
        proxy_rules=rules,
    )


def _refuse_unsafe(conf: HadoopConf) -> None:
    kind = conf.get(_PREFIX + "type", SIMPLE)
    if kind not in (SIMPLE, KERBEROS):
        raise ConfigError(
            f"{_PREFIX}type is {kind!r}, which this KMS does not know", hint=f"set it to {KERBEROS} or to {SIMPLE}"
        )
    if conf.get_bool(_PREFIX + "simple.anonymous.allowed", False):
        raise ConfigError(
            f"{_PREFIX}simple.anonymous.allowed is true: keys are not served to nobody",
            hint="set it to false in kms-site.xml",
        )
    provider = conf.get(_PREFIX + "signer.secret.provider", "random")
    if provider == "zookeeper" or conf.get_bool(_ZOOKEEPER_TOKENS, False):
        _log.warning("ZooKeeper is not used: instances share cookie secrets and tokens through their key store")
    elif provider not in ("random", "file"):
        raise ConfigError(
            f"{_PREFIX}signer.secret.provider is {provider!r}, which this KMS does not know",
            hint="leave it out: instances that share a key store share their cookie secrets",
        )
    if conf.get(_PREFIX + "kerberos.endpoint.whitelist", ""):
        _log.warning("%skerberos.endpoint.whitelist is not followed: nothing is served to nobody", _PREFIX)


def _require_a_place_for_it(block: AuthenticationBlock | None, conf: HadoopConf) -> None:
    if block is not None:
        raise ConfigError(
            "keytab_file stands beside authentication, which names a keytab itself",
            hint="keep keytab_file alone to go by kms-site.xml with another keytab, or authentication alone",
        )
    if conf.get(_PREFIX + "type", SIMPLE) != KERBEROS:
        raise ConfigError(
            f"keytab_file is set, and {_PREFIX}type is not {KERBEROS} in kms-site.xml",
            hint="take keytab_file out of kms.yaml, or put Kerberos back into kms-site.xml",
        )


def _block_of(conf: HadoopConf, keytab_file: Path | None) -> AuthenticationBlock:
    def text(name: str) -> str | None:
        return conf.get(_PREFIX + name) or None

    idle_s = conf.get_int(_PREFIX + "token.max-inactive-interval", -1)
    secret_file = text("signature.secret.file")
    uses_file = conf.get(_PREFIX + "signer.secret.provider", "file" if secret_file else "random") == "file"
    is_kerberos = conf.get(_PREFIX + "type", SIMPLE) == KERBEROS
    return AuthenticationBlock.model_construct(
        type=KERBEROS if is_kerberos else SIMPLE,
        kerberos=_kerberos_block_of(conf, text, keytab_file) if is_kerberos else None,
        session=_positive(conf, _PREFIX + "token.validity", _VALIDITY_S),
        idle=idle_s if idle_s > 0 else None,
        cookie_path=text("cookie.path"),
        cookie_domain=text("cookie.domain"),
        cookie_persistent=conf.get_bool(_PREFIX + "cookie.persistent", False),
        signature_secret_file=Path(secret_file) if secret_file and uses_file else None,
    )


def _kerberos_block_of(conf: HadoopConf, text: Callable[[str], str | None], keytab_file: Path | None) -> KerberosBlock:
    keytab = text("kerberos.keytab") if keytab_file is None else str(keytab_file)
    if keytab is None or not Path(keytab).is_absolute():
        raise ConfigError(
            f"{_PREFIX}kerberos.keytab names no file", hint="set it to the absolute path of the HTTP principal's keytab"
        )
    principals = split_list(text("kerberos.principal") or "HTTP/localhost")
    mechanism = (text("kerberos.name.rules.mechanism") or conf.get(_MECHANISM) or "hadoop").lower()
    if mechanism not in ("hadoop", "mit"):
        raise ConfigError(f"{_MECHANISM} is {mechanism!r}", hint="set it to hadoop or to mit")
    return KerberosBlock(
        keytab=Path(keytab),
        principals=[] if _ANY_PRINCIPAL in principals else principals,
        auth_to_local=text("kerberos.name.rules") or "DEFAULT",
        auth_to_local_mechanism=mechanism,
    )


def _kerberos(block: AuthenticationBlock) -> KerberosSettings | None:
    if block.type == SIMPLE:
        return None
    kerberos = block.kerberos
    if kerberos is None:
        raise ConfigError("authentication.type is kerberos, but no keytab is named", hint="add kerberos: {keytab: ...}")
    return kerberos_settings(kerberos)


def _properties(blocks: Mapping[str, ProxyUserBlock]) -> dict[str, str]:
    return {
        f"{PROXY_USER}{user}.{field}": ",".join(values)
        for user, block in blocks.items()
        for field, values in (("users", block.users), ("groups", block.groups), ("hosts", block.hosts))
    }


def _lifetimes(block: TokensBlock) -> TokenLifetimes:
    seconds = (block.max_life, block.renew_interval, block.roll_interval, block.removal_scan)
    return TokenLifetimes(*(int(each * 1000) for each in seconds))


def _lifetimes_of(conf: HadoopConf) -> TokenLifetimes:
    return TokenLifetimes(
        _positive(conf, _TOKENS + "max-lifetime.sec", 604_800) * 1000,
        _positive(conf, _TOKENS + "renew-interval.sec", 86_400) * 1000,
        _positive(conf, _TOKENS + "update-interval.sec", 86_400) * 1000,
        _positive(conf, _TOKENS + "removal-scan-interval.sec", 3_600) * 1000,
    )


def _positive(conf: HadoopConf, name: str, default: int) -> int:
    value = conf.get_int(name, default)
    if value < 1:
        raise ConfigError(f"{name} must be at least 1 second, not {value}")
    return value


def _read_secret(path: Path) -> Secret:
    # Hadoop reads the file as text and signs with its bytes (`FileSignerSecretProvider`), a line break included.
    require_private(path, "signature secret file")
    try:
        secret = path.read_bytes()
        secret.decode("utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the signature secret file {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"the signature secret file {path} is not UTF-8, so Hadoop would sign otherwise") from None
    if len(secret) < _MIN_SECRET_BYTES:
        raise ConfigError(f"the signature secret file {path} holds fewer than {_MIN_SECRET_BYTES} bytes")
    return Secret(secret)
