"""The `token_*` parameters that every login method's roles share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from vault_double.backend import Call
from vault_double.tokens import Token, TokenRole, new_entity_id, with_default
from vault_double.wire import RefusedError

TOKEN_FIELDS = (
    "token_policies policies token_ttl token_max_ttl token_period period token_num_uses token_no_default_policy "
    "token_type token_bound_cidrs token_explicit_max_ttl token_strictly_bind_ip"
)


_TOKEN_TYPES = ("default", "default-service", "default-batch", "service", "batch")


def _bound_cidrs(call: Call) -> tuple[str, ...]:
    try:
        return call.cidrs("token_bound_cidrs")
    except ValueError as error:
        raise RefusedError(400, f"error parsing address: {error}") from None


@dataclass(frozen=True, slots=True)
class TokenParameters:
    """What tokens of a role are like."""

    policies: tuple[str, ...] = ()
    ttl_s: float = 0.0
    max_ttl_s: float = 0.0
    period_s: float = 0.0
    explicit_max_ttl_s: float = 0.0
    num_uses: int = 0
    no_default_policy: bool = False
    kind: str = "default"
    bound_cidrs: tuple[str, ...] = ()

    def changed_by(self, call: Call) -> TokenParameters:
        """With what the call sets; everything else stays."""
        policies = call.strings("token_policies") or call.strings("policies") or self.policies
        kind = call.text("token_type", self.kind)
        if kind not in _TOKEN_TYPES:
            raise RefusedError(400, f"invalid 'token_type' value \"{kind}\"")
        period_s = call.seconds("token_period", call.seconds("period", self.period_s))
        if kind == "batch" and (period_s or call.number("token_num_uses", self.num_uses)):
            raise RefusedError(400, "'token_type' cannot be 'batch' when set to generate tokens with limited use count")
        ttl_s, max_ttl_s = call.seconds("token_ttl", self.ttl_s), call.seconds("token_max_ttl", self.max_ttl_s)
        if max_ttl_s and ttl_s > max_ttl_s:
            raise RefusedError(400, "'token_ttl' cannot be greater than 'token_max_ttl'")
        return replace(
            self,
            policies=tuple(sorted(set(policies))),
            ttl_s=ttl_s,
            max_ttl_s=max_ttl_s,
            period_s=period_s,
            explicit_max_ttl_s=call.seconds("token_explicit_max_ttl", self.explicit_max_ttl_s),
            num_uses=call.count("token_num_uses", self.num_uses),
            no_default_policy=call.flag("token_no_default_policy", default=self.no_default_policy),
            kind=kind,
            bound_cidrs=_bound_cidrs(call) or self.bound_cidrs,
        )

    def as_data(self) -> dict[str, Any]:
        return {
            "token_bound_cidrs": list(self.bound_cidrs),
            "token_explicit_max_ttl": int(self.explicit_max_ttl_s),
            "token_max_ttl": int(self.max_ttl_s),
            "token_no_default_policy": self.no_default_policy,
            "token_num_uses": self.num_uses,
            "token_period": int(self.period_s),
            "token_policies": list(self.policies),
            "token_strictly_bind_ip": False,
            "token_ttl": int(self.ttl_s),
            "token_type": self.kind,
        }

    def issue(self, call: Call, alias: str, meta: dict[str, str], display_name: str) -> Token:
        """The token of a login that succeeded."""
        if "root" in self.policies:
            raise RefusedError(400, "auth methods cannot create root tokens")
        role = TokenRole(
            with_default(self.policies, no_default=self.no_default_policy),
            f"{call.mount.path}login",
            display_name,
            meta,
            self.ttl_s,
            self.max_ttl_s,
            self.period_s,
            self.explicit_max_ttl_s,
            self.num_uses,
            self.bound_cidrs,
            kind="batch" if self.kind == "batch" else "service",
            entity_id=new_entity_id(f"{call.mount.accessor}/{alias}"),
            namespace=call.namespace,
        )
        return call.core.tokens.make(role)
