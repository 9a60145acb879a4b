"""The Grafana dashboard and the alert rules against what the running key server and agent really tell.

Every metric and every label that they name must be in an exposition of today's servers, so that no panel stays empty
and no alert stays silent for a name that does not exist. Expressions are read by a parser made from Prometheus' own
grammar.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from agent_page import ServedAgent, state_with
from certificates import Certificates
from kms_serving import KmsPlace, call
from prometheus_client.parser import text_string_to_metric_families

from ringfence_agent.budgets import BudgetView
from ringfence_agent.events.watcher import EventView
from ringfence_agent.turn import ALWAYS_MINE
from ringfence_zones.cli.main import root
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.policy import parse_policy

CHECKOUT = Path(__file__).parents[2]
DASHBOARD = json.loads((CHECKOUT / "packaging/grafana/ringfence-dashboard.json").read_text())
ALERTS = yaml.safe_load((CHECKOUT / "packaging/prometheus/ringfence-alerts.yml").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
# What Prometheus itself adds to every series it takes, and the series it makes of each target.
OF_PROMETHEUS = {"instance", "job"}
MADE_BY_PROMETHEUS = {"up": OF_PROMETHEUS}
_POLICY = "version: 1\ncluster: c\nzones: [{path: /z, owner: o}]\nkms: {namenode_users: [hdfs], admins: [hdfs]}\n"

Exposed = Mapping[str, Mapping[str, set[str]]]


def read_exposition(text: str) -> dict[str, dict[str, set[str]]]:
    """The values of each label of each metric."""
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


@pytest.fixture(scope="module")
def of_the_kms(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Exposed:
    place = KmsPlace.make(tmp_path_factory.mktemp("kms"))
    files, backups = certificates.server, place.directory / "backups"
    backups.mkdir(mode=0o700)
    settings = place.directory / "kms.yaml"
    settings.write_text(f"backup: {{to: {backups}}}\n")
    options = ("--config", str(settings), "--tls-cert", str(files.certificate), "--tls-key", str(files.key))
    with place.serving(1, *options, client_context=certificates.client_context()) as kms:
        client = kms.one_worker()
        assert call(client, "POST", "/kms/v1/keys", {"name": "k", "length": 128}).status == 201
        (eek,) = json.loads(call(client, "GET", "/kms/v1/key/k/_eek", query={"eek_op": "generate"}).body)
        body = {"name": "k", "iv": eek["iv"], "material": eek["encryptedKeyVersion"]["material"]}
        call(client, "POST", "/kms/v1/keyversion/k%400/_eek", body, query={"eek_op": "decrypt"})
        return read_exposition(call(client, "GET", "/metrics", user=None).body.decode())


@pytest.fixture(scope="module")
def of_the_agent() -> Iterator[Exposed]:
    with tempfile.TemporaryDirectory(prefix="rfg") as directory:
        agent = ServedAgent(Path(directory))
        finding = Finding(severity=Severity.ERROR, rule=Rule.ROOT_NOT_PINNED, path="/z", message="m", hint="h")
        agent.publish(
            state_with("/z"),
            parse_policy(_POLICY, "z.yaml"),
            findings=(finding,),
            turn=ALWAYS_MINE,
            budgets=BudgetView(),
        )
        agent.board.publish_events(EventView(txid=1, newest_txid=1, seen_s=time.monotonic()))
        with agent.serving():
            yield read_exposition(agent.ask("GET", "/metrics")[2].decode())


@pytest.fixture(scope="module")
def exposed(of_the_kms: Exposed, of_the_agent: Exposed) -> Exposed:
    return {**of_the_kms, **of_the_agent}


def parse(expression: str) -> promql_parser.Expr:
    # Grafana puts these in before Prometheus reads it.
    return promql_parser.parse(expression.replace("$__rate_interval", "5m"))


def problems_of(expression: str, exposed: Exposed) -> list[str]:
    """Names, labels and values that nothing exposes."""
    selectors: list[promql_parser.VectorSelector] = []
    grouped: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            selectors.append(node)
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            grouped.update(node.modifier.labels)

    promql_parser.walk(parse(expression), visit)
    names = [selector.name for selector in selectors]
    problems = [f"no metric {name}" for name in names if name not in exposed and name not in MADE_BY_PROMETHEUS]
    known = OF_PROMETHEUS.union(*(exposed.get(name, {}) for name in names))
    problems += [f"no label {label} to group by" for label in grouped - known]
    for selector in selectors:
        for matcher in selector.matchers.matchers:
            values = exposed.get(selector.name, {}).get(matcher.name)
            if values is None and matcher.name not in OF_PROMETHEUS:
                problems.append(f"{selector.name} has no label {matcher.name}")
            elif values is not None and matcher.value not in values:
                problems.append(f"{selector.name} never has {matcher.name}={matcher.value}")
    return problems if selectors else ["it asks for nothing"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_asks_for_what_is_there(panel: dict[str, Any], exposed: Exposed) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        assert problems_of(target["expr"], exposed) == []
        labels = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert all(f"{label}" in target["expr"] or label == "instance" for label in labels)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_asks_for_what_is_there(rule: dict[str, Any], exposed: Exposed) -> None:
    assert problems_of(rule["expr"], exposed) == []


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("ringfence_kms_requests", "no metric"),
        ('ringfence_kms_requests_total{operation="DECRYPT_EEK"}', "no label"),
        ('ringfence_kms_requests_total{op="DECRYPT"}', "never has"),
        ("sum by (zone) (ringfence_agent_findings)", "to group by"),
        ("1 + 1", "asks for nothing"),
    ],
)
def test_a_name_that_nothing_exposes_is_found(expression: str, problem: str, exposed: Exposed) -> None:
    assert problem in " ".join(problems_of(expression, exposed))


def test_an_expression_that_is_none_is_found() -> None:
    with pytest.raises(ValueError, match="unclosed"):
        parse("sum(rate(ringfence_kms_requests_total[5m])")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_is_one_that_prometheus_loads(rule: dict[str, Any]) -> None:
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Ringfence[A-Za-z]+", rule["alert"])
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"].keys() == {"summary", "description"}
    used = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    groups = re.findall(r"by \(([^)]*)\)", rule["expr"])
    if groups:
        assert used <= {label.strip() for label in groups[0].split(",")}
    else:
        assert used <= OF_PROMETHEUS


def test_alerts_are_named_once_and_send_people_to_commands_that_exist() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    text = " ".join(rule["annotations"]["description"] for rule in RULES)
    for words in re.findall(r"\bringfence ((?:[a-z]+ ?)+)", text):
        assert root.get_command(None, words.split()[0]) is not None, words  # type: ignore[arg-type]
    for path in re.findall(r"packaging/[\w/.-]+\w", text):
        assert (CHECKOUT / path).exists()


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    assert {"title", "uid", "schemaVersion", "panels", "templating"} <= DASHBOARD.keys()
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"]))) - {"__rate_interval"}
    assert used == variables
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
    refs = [[target["refId"] for target in panel["targets"]] for panel in PANELS]
    assert all(len(set(each)) == len(each) for each in refs)


def test_the_variables_are_read_from_metrics_that_are_there(exposed: Exposed) -> None:
    asked = [v["definition"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    names = [re.fullmatch(r"label_values\((\w+), instance\)", each)[1] for each in asked]  # type: ignore[index]
    assert names
    assert set(names) <= exposed.keys()
