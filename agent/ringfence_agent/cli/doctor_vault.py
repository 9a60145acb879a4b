"""`ringfence doctor vault`: whether Vault or OpenBao is what the key server relies on."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from ringfence_agent import process_hygiene
from ringfence_agent.cli.keystore_options import StorePlace
from ringfence_agent.cli.kms_options import config_option
from ringfence_agent.kms.config import Options, load_vault_settings
from ringfence_zones.cli import exits
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.outcomes import print_outcomes
from ringfence_zones.cli.render import print_findings, print_json
from ringfence_zones.findings import findings_json


@click.command("vault")
@config_option
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="an administrator's token, mode 0600: looks at the set-up too, and makes and destroys a temporary key",
)
@global_options
@click.pass_context
def vault(click_context: click.Context, context: CommandContext, config: Path | None, token_file: Path | None) -> None:
    """Look at Vault as the key server uses it, and try it out; exit 3 when anything is found.

    Run it where the key server runs, as its user: its token counts. Without --token-file nothing is changed; with it
    one Transit key is made, tried, and destroyed.
    """
    # hvac and requests take a while to load, and hvac is an extra.
    from ringfence_agent.doctor import vault as checks  # noqa: PLC0415
    from ringfence_agent.vault.control import FixedToken, VaultControl  # noqa: PLC0415
    from ringfence_agent.vault.open import open_control  # noqa: PLC0415
    from ringfence_agent.vault.secret_file import read_secret_file  # noqa: PLC0415
    from ringfence_zones.named_checks import run_checks  # noqa: PLC0415

    process_hygiene.forbid_core_dumps()
    if config is None and click_context.parent is not None:
        config = click_context.parent.params.get("config")
    settings = load_vault_settings(config)
    with ExitStack() as stack:
        own = stack.enter_context(open_control(settings))
        administrator = None
        if token_file is not None:
            token = FixedToken(read_secret_file(token_file, "administrator's token"))
            administrator = stack.enter_context(VaultControl(settings, token))
        subject = checks.VaultSubject(own, administrator, StorePlace(Options(config=config)).list_held)
        outcomes = run_checks(checks.CHECKS, subject)
    findings = [finding for outcome in outcomes for finding in outcome.findings]
    if context.json:
        print_json({**findings_json(findings), "checks": [outcome.to_json() for outcome in outcomes]})
    else:
        print_outcomes(outcomes)
        print_findings(findings, nothing="nothing found")
    click_context.exit(exits.FINDINGS if findings else exits.DONE)
