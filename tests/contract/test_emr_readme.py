"""The README's way from a security configuration to a cluster, line by line, against the double of EMR.

What its lines need S3 or a package index for is left out: the wheelhouse is a file here. Everything else is run by a
shell as it stands in the README, with the double's region and key in the first line.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from emr_double import EmrDouble

pytestmark = pytest.mark.timeout(180)

CHECKOUT = Path(__file__).parents[2]
README = (CHECKOUT / "README.md").read_text()
_ELSEWHERE = ("source ", "export ", "../packaging/scripts/wheelhouse ", "aws s3 cp ", "for file in ")


def _commands() -> list[str]:
    """The first block of the section, a command each, with its here-document."""
    section = README.partition("## On EMR in ten minutes")[2]
    block = section.partition("```console\n")[2].partition("```")[0]
    return [command.strip() for command in re.split(r"^\$ ", block, flags=re.MULTILINE) if command.strip()]


def test_its_commands_launch_a_cluster(tmp_path: Path) -> None:
    commands = _commands()
    assert [word for word in _ELSEWHERE if not any(each.startswith(word) for each in commands)] == []
    (tmp_path / "wheelhouse").mkdir()
    (tmp_path / "wheelhouse/SHA256SUMS").write_text("")
    with EmrDouble.started() as double:
        double.make_role("arn:aws:iam::111122223333:role/EMR_DefaultRole_V2")
        environment = {**os.environ, **double.environment(), "AWS_DEFAULT_REGION": double.region, "BUCKET": "my-bucket"}
        del environment["AWS_REGION"]
        environment |= {"KEY_ARN": double.make_key(), "PATH": f"{CHECKOUT}/.venv/bin:{os.environ['PATH']}"}
        codes = {}
        for command in (each for each in commands if not each.startswith(_ELSEWHERE)):
            here = re.sub(r"(?<=\s)\.\./", f"{CHECKOUT}/", command)
            done = subprocess.run(
                ["bash", "-c", here], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            codes[command.partition("\n")[0]] = done.returncode
            assert done.returncode in (0, 3), f"{command}\n{done.stderr}"
        # A key that nobody has prepared: that is what the line is for.
        assert [each.split()[2] for each, code in codes.items() if code == 3] == ["permissions"]
        (cluster,) = double.world.clusters.values()
    assert cluster.request == json.loads((tmp_path / "request.json").read_text())
    assert cluster.request["SecurityConfiguration"] in double.world.configurations
    action = cluster.request["BootstrapActions"][0]["ScriptBootstrapAction"]
    assert action["Path"] == "s3://my-bucket/ringfence/bootstrap-action.sh"
