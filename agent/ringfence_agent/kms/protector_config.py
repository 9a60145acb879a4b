"""Which protectors a key server opens: `protector` of kms.yaml, with the blocks that set each of them up.

They are tried in the order in which they are named; a root key file comes first wherever it stands, since it asks
nobody. Every protector that sealed something in the store has to be named, or what it sealed cannot be opened here.
Naming one changes nothing in the store: `ringfence keystore protect` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ringfence_agent.keystore.protector import Protector, Protectors
from ringfence_agent.keystore.protectors.aws_kms_config import AwsKmsSettings
from ringfence_agent.vault.settings import VaultSettings
from ringfence_zones.errors import ConfigError

ProtectorName = Literal["file", "vault-transit", "aws-kms"]

_BLOCKS = {"vault-transit": "vault", "aws-kms": "aws_kms"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectorSettings:
    """What is needed to open the protectors of `names`."""

    names: tuple[ProtectorName, ...] = ("file",)
    vault: VaultSettings | None = None
    aws_kms: AwsKmsSettings | None = None

    @property
    def has_remote(self) -> bool:
        """Whether opening material may mean asking somebody."""
        return any(name != "file" for name in self.names)

    def with_one(self, name: ProtectorName) -> ProtectorSettings:
        """These and one more. Raises ConfigError when its block is missing."""
        names = self.names if name in self.names else (*self.names, name)
        return protector_settings(names, self.vault, self.aws_kms)


FILE_ONLY = ProtectorSettings()
"""What a key server has when kms.yaml names none."""


def protector_settings(
    names: Sequence[ProtectorName], vault: VaultSettings | None, aws_kms: AwsKmsSettings | None
) -> ProtectorSettings:
    """Raises ConfigError for a protector that is named twice or not set up, and for none at all."""
    if not names:
        raise ConfigError("protector is an empty list", hint="write protector: [file], or leave it out")
    if len(set(names)) != len(names):
        raise ConfigError("protector names one twice", hint="name each once")
    blocks = {"vault": vault, "aws_kms": aws_kms}
    for name in names:
        block = _BLOCKS.get(name)
        if block is not None and blocks[block] is None:
            raise ConfigError(
                f"the protector {name} is named, but there is no {block} block that sets it up",
                hint=f"write {block}: {{...}} in kms.yaml; packaging/docs/kms.yaml shows every setting",
            )
    return ProtectorSettings(names=tuple(names), vault=vault, aws_kms=aws_kms)


def require_memory(settings: ProtectorSettings, key_memory_s: float) -> None:
    """Raises ConfigError for a key memory of 0 with a protector that would have to be asked for each request."""
    if settings.has_remote and key_memory_s == 0:
        remote = next(name for name in settings.names if name != "file")
        raise ConfigError(
            f"key_memory is 0 (or hadoop.kms.cache.enable false), but with the protector {remote} each opening of an"
            " EDEK would be a call to it: slow, dear, and down whenever it is",
            hint="write key_memory: 1 or more seconds, or keep to the protector file",
        )


def open_protectors(settings: ProtectorSettings) -> Protectors:
    """In the process that uses them, after any fork. The root key file is not read yet.

    Raises ConfigError, MissingExtraError, and for an AWS key named by an alias ProtectorUnavailableError and
    ProtectorRefusedError.
    """
    others: list[Protector] = []
    for name in settings.names:
        if name != "file":
            others += open_remote(settings, name)
    return Protectors(with_file="file" in settings.names, others=tuple(others))


def open_remote(settings: ProtectorSettings, name: ProtectorName) -> Sequence[Protector]:
    """The protectors of one remote kind: the one that new seals are made with first. Raises as `open_protectors`."""
    if name == "aws-kms" and settings.aws_kms is not None:
        # The extras are needed by whoever uses them alone.
        from ringfence_agent.keystore.protectors.aws_kms import open_aws_kms  # noqa: PLC0415

        return open_aws_kms(settings.aws_kms)
    if name == "vault-transit" and settings.vault is not None:
        from ringfence_agent.keystore.protectors.vault_transit import VaultTransitProtector, WrapKey  # noqa: PLC0415
        from ringfence_agent.vault.open import open_control  # noqa: PLC0415

        control = open_control(settings.vault)
        return [VaultTransitProtector(WrapKey(settings.vault, control.transit, control.batches))]
    raise ConfigError(f"{name} is no protector that is asked over the network")
