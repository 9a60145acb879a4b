"""Each output format against a golden file, and what makes it more than a copy: names, escapes, references.

`python -m pytest` never writes the golden files; `python tests/unit/bootstrap/launch/test_launch_formats.py` does.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from emr_launch import EVERY_FIELD, VECTORS, Site

from ringfence_bootstrap.launch.cloudformation import cloudformation_template
from ringfence_bootstrap.launch.reading import Launch
from ringfence_bootstrap.launch.run_job_flow import run_job_flow_request
from ringfence_bootstrap.launch.service_model import check_run_job_flow
from ringfence_bootstrap.launch.terraform import terraform_document
from ringfence_zones.errors import ConfigError, RingfenceError

PASSWORD = "canary-of-the-kdc"
FORMATS: dict[str, Callable[[Launch], dict[str, Any]]] = {
    "run-job-flow": run_job_flow_request,
    "terraform": terraform_document,
    "cloudformation": cloudformation_template,
}
GOLDEN = [(document, form) for document in ("small", "every-field") for form in FORMATS]


def site_of(directory: Path, document: str, form: str) -> Site:
    """RunJobFlow takes passwords from files; the others, secrets."""
    site = Site(directory, document)
    if document == "every-field" and form == "run-job-flow":
        file = directory / "password"
        file.write_text(PASSWORD + "\n")
        file.chmod(0o600)
        for name in ("kdc_admin_password", "cross_realm_trust_password", "ad_join_password"):
            site.set({"file": "password"}, "kerberos", name)
    return site


def text_of(directory: Path, document: str, form: str) -> str:
    made = FORMATS[form](site_of(directory, document, form).read())
    return json.dumps(made, indent=2) + "\n"


@pytest.mark.parametrize(("document", "form"), GOLDEN)
def test_the_output_is_the_golden_file(tmp_path: Path, document: str, form: str) -> None:
    golden = (VECTORS / "golden" / f"{document}.{form}.json").read_text()
    assert text_of(tmp_path, document, form) == golden


@pytest.mark.parametrize("document", ["small", "every-field"])
def test_the_request_is_one_that_emrs_own_model_takes(tmp_path: Path, document: str) -> None:
    check_run_job_flow(run_job_flow_request(site_of(tmp_path, document, "run-job-flow").read()))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda request: request.update(Unknown="x"), "Unknown"),
        (lambda request: request.pop("Instances"), "Instances"),
        (lambda request: request["Steps"][0].update(ActionOnFailure="STOP"), "ActionOnFailure"),
        (lambda request: request["Instances"]["InstanceGroups"][0].update(InstanceRole="PRIMARY"), "InstanceRole"),
        (lambda request: request["Instances"]["InstanceGroups"][0].update(InstanceCount="1"), "InstanceCount"),
        (lambda request: request.update(Name="x" * 257), "Name"),
    ],
    ids=["unknown", "missing", "word", "role", "type", "length"],
)
def test_a_request_that_emrs_model_refuses_is_refused_here(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], word: str
) -> None:
    request = run_job_flow_request(Site(tmp_path).read())
    change(request)
    with pytest.raises(RingfenceError, match=word):
        check_run_job_flow(request)


def test_terraform_reads_a_hadoop_variable_as_text(tmp_path: Path) -> None:
    document = terraform_document(Site(tmp_path).read())
    cluster = document["resource"]["aws_emr_cluster"]["small"]
    assert "/data/pii/tmp/$${user.name}" in cluster["configurations_json"]
    assert cluster["bootstrap_action"][1]["args"][1] == "%%{done}"
    # What Terraform makes of it is the list that the API gets.
    rendered = cluster["configurations_json"].replace("$${", "${").replace("%%{", "%{")
    assert json.loads(rendered) == run_job_flow_request(Site(tmp_path).read())["Configurations"]


def test_a_security_configuration_known_by_name_alone_is_not_made(tmp_path: Path) -> None:
    launch = Site(tmp_path).set({"name": "mine"}, "security_configuration").read()
    terraform = terraform_document(launch)["resource"]
    assert "aws_emr_security_configuration" not in terraform
    assert terraform["aws_emr_cluster"]["small"]["security_configuration"] == "mine"
    template = cloudformation_template(launch)["Resources"]
    assert list(template) == ["Cluster"]
    assert template["Cluster"]["Properties"]["SecurityConfiguration"] == "mine"
    assert run_job_flow_request(launch)["SecurityConfiguration"] == "mine"


def test_the_address_of_a_kms_off_the_cluster_goes_into_core_site_beside_what_is_there(tmp_path: Path) -> None:
    site = Site(tmp_path)
    head = (VECTORS / "bootstrap.yaml").read_text().split("mode:")[0]
    uri = "kms://https@kms1.example.com;kms2.example.com:9600/kms"
    site.file("bootstrap.yaml", f"{head}mode: clients-only\nclients: {{uri: '{uri}'}}\n")
    site.set([{"Classification": "core-site", "Properties": {"fs.trash.interval": "60"}}], "configurations")
    request = run_job_flow_request(site.read())
    assert request["Configurations"] == [
        {
            "Classification": "core-site",
            "Properties": {"fs.trash.interval": "60", "hadoop.security.key.provider.path": uri},
        }
    ]
    arguments = request["Steps"][0]["HadoopJarStep"]["Args"]
    assert arguments[arguments.index("--kms") + 1] == uri
    assert "--tls" in arguments


def test_classifications_of_several_files_are_put_together(tmp_path: Path) -> None:
    nested = {"Classification": "export", "Properties": {"B": "2"}}
    file = [
        {"Classification": "core-site", "Properties": {"b": "2"}},
        {"Classification": "hadoop-env", "Configurations": [nested]},
    ]
    own = {"Classification": "export", "Properties": {"A": "1"}}
    site = Site(tmp_path).file("c.json", json.dumps(file)).set(["c.json"], "configuration_files")
    site.set(
        [
            {"Classification": "core-site", "Properties": {"a": "1"}},
            {"Classification": "hadoop-env", "Configurations": [own]},
        ],
        "configurations",
    )
    both = {"Classification": "export", "Properties": {"A": "1", "B": "2"}}
    assert run_job_flow_request(site.read())["Configurations"] == [
        {"Classification": "core-site", "Properties": {"a": "1", "b": "2"}},
        {"Classification": "hadoop-env", "Properties": {}, "Configurations": [both]},
    ]


@pytest.mark.parametrize(
    ("rest", "expected", "tls"),
    [
        ("mode: ringfence-kms\n", "ringfence", False),
        ("mode: ringfence-kms\nkms: {tls: {cert: /a, key: /b}}\n", "ringfence", True),
        ("mode: existing-kms\n", "existing", False),
        (
            "mode: hardened-stock-kms\n"
            "hardened: {policy: /p, password_file: /q, tls: {cert: /a, key: /b, ca_file: /c}}\n",
            "existing",
            True,
        ),
    ],
)
def test_the_zones_step_expects_the_kms_that_the_nodes_are_given(
    tmp_path: Path, rest: str, expected: str, *, tls: bool
) -> None:
    head = (VECTORS / "bootstrap.yaml").read_text().split("mode:")[0]
    request = run_job_flow_request(Site(tmp_path).file("bootstrap.yaml", head + rest).read())
    arguments = request["Steps"][0]["HadoopJarStep"]["Args"]
    assert arguments[arguments.index("--kms") + 1] == expected
    assert ("--tls" in arguments) is tls


def test_nodes_are_held_to_the_files_that_were_checked(tmp_path: Path) -> None:
    before = json.dumps(run_job_flow_request(Site(tmp_path).read()))
    site = Site(tmp_path).file("zones.yaml", (VECTORS / "zones.yaml").read_text() + "# changed\n")
    changed = run_job_flow_request(site.read())
    assert json.dumps(changed) != before
    assert json.dumps(changed["BootstrapActions"]) in before
    assert json.dumps(changed["Steps"][1:]).strip("[]") in before


def test_a_password_in_a_file_goes_into_no_document_that_is_kept(tmp_path: Path) -> None:
    site = site_of(tmp_path, "every-field", "run-job-flow")
    for made in (terraform_document, cloudformation_template):
        with pytest.raises(ConfigError, match="kdc_admin_password"):
            made(site.read())


def test_run_job_flow_takes_no_reference_to_a_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kdc_admin_password") as caught:
        run_job_flow_request(Site(tmp_path, "every-field").read())
    assert "file" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("content", "mode", "word"),
    [
        (PASSWORD, 0o644, "others can read"),
        ("", 0o600, "no password"),
        ("x" * 300, 0o600, "no password"),
        ("caf\u00e9", 0o600, "no password"),
        (None, 0o600, "cannot read"),
    ],
)
def test_a_password_file_that_is_none_is_named_and_not_quoted(
    tmp_path: Path, content: str | None, mode: int, word: str
) -> None:
    site = site_of(tmp_path, "every-field", "run-job-flow")
    file = tmp_path / "password"
    file.unlink()
    if content is not None:
        file.write_text(content)
        file.chmod(mode)
    with pytest.raises(ConfigError, match=word) as caught:
        run_job_flow_request(site.read())
    assert "password" in caught.value.message
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("role", ["primary", "core"])
def test_terraform_has_no_classifications_of_the_first_two_groups(tmp_path: Path, role: str) -> None:
    site = Site(tmp_path).set([{"Classification": "yarn-site"}], "instances", role, "configurations")
    with pytest.raises(ConfigError, match=rf"instances\.{role}\.configurations"):
        terraform_document(site.read())


def test_terraform_has_no_throughput_of_a_task_groups_volumes(tmp_path: Path) -> None:
    volume = {"type": "gp3", "size_gib": 100, "throughput_mib_s": 250}
    site = Site(tmp_path).set([volume], "instances", "task", 0, "volumes")
    with pytest.raises(ConfigError, match=r"instances\.task\[0\]\.volumes"):
        terraform_document(site.read())
    assert run_job_flow_request(site.read())["Instances"]["InstanceGroups"][2]["EbsConfiguration"]


def main() -> None:
    """Writes the golden files again."""
    (VECTORS / "golden").mkdir(exist_ok=True)
    for document, form in GOLDEN:
        with tempfile.TemporaryDirectory() as directory:
            made = text_of(Path(directory), document, form)
        (VECTORS / "golden" / f"{document}.{form}.json").write_text(made)


if __name__ == "__main__":
    assert EVERY_FIELD.is_file()
    main()
