"""What EMR's API takes at most. Its model bounds no list, so the service alone refuses, with the first thing it sees.

Sources: EMR's API reference (bootstrap actions, steps, HadoopJarStep's strings in total) and the lengths of the
shapes `XmlString` and `XmlStringMaxLen256` in botocore's model, which botocore itself does not hold anybody to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ringfence_bootstrap.launch.draft import Draft, Place
from ringfence_bootstrap.releases import Train
from ringfence_zones.findings import Finding, Rule

MAX_BOOTSTRAP_ACTIONS = 16
MAX_STEPS = 256
MAX_STEPS_OF_SPARK = 100
MAX_TEXT_CHARACTERS = 10_280
MAX_STEP_CHARACTERS = 10_240
MAX_STEP_CONCURRENCY = 256


def find_limits(draft: Draft) -> Iterator[Finding]:
    """What is too many or too long."""
    document = draft.document
    ours = 1 if document.ringfence is not None else 0
    zones = 1 if document.ringfence is not None and document.ringfence.zones is not None else 0
    actions, all_steps = ours + len(document.bootstrap_actions), zones + len(document.steps)
    place = draft.root.at("bootstrap_actions")
    if actions > MAX_BOOTSTRAP_ACTIONS:
        of_ours = " (Ringfence's among them)" if ours else ""
        message = f"{actions} bootstrap actions{of_ours}; EMR takes {MAX_BOOTSTRAP_ACTIONS}"
        yield place.error(Rule.EMR_LIMIT, message, "put several scripts into one, in the order they need")
    for index, action in enumerate(draft.document.bootstrap_actions):
        for name, texts in (("path", (action.path,)), ("args", action.args)):
            yield from _texts(place.at(index, name), f"the bootstrap action {action.name!r}", texts)
    most = MAX_STEPS_OF_SPARK if draft.release.train is Train.SPARK else MAX_STEPS
    if all_steps > most:
        message = f"{all_steps} steps; {draft.release} takes {most} at once"
        yield draft.root.at("steps").error(Rule.EMR_LIMIT, message, "add later ones when the first are done")
    for index, step in enumerate(draft.document.steps):
        texts = (step.jar, step.main_class or "", *step.args, *step.properties, *step.properties.values())
        total = sum(map(len, texts))
        if total > MAX_STEP_CHARACTERS:
            message = f"the strings of the step {step.name!r} have {total} characters together; EMR takes"
            hint = "put them into a file on S3 and name the file"
            yield draft.root.at("steps", index).error(Rule.EMR_LIMIT, f"{message} {MAX_STEP_CHARACTERS}", hint)
    if draft.document.step_concurrency > MAX_STEP_CONCURRENCY:
        message = f"EMR runs {MAX_STEP_CONCURRENCY} steps side by side at most"
        yield draft.root.at("step_concurrency").error(Rule.EMR_LIMIT, message, f"write {MAX_STEP_CONCURRENCY} or less")


def _texts(place: Place, whose: str, texts: Sequence[str]) -> Iterator[Finding]:
    for text in texts:
        if len(text) > MAX_TEXT_CHARACTERS:
            message = f"a string of {whose} has {len(text)} characters; EMR takes {MAX_TEXT_CHARACTERS}"
            yield place.error(Rule.EMR_LIMIT, message, "put it into a file on S3 and name the file")
