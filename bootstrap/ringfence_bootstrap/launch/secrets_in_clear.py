"""Secrets that would be read by whoever may describe the cluster.

EMR answers DescribeCluster, ListBootstrapActions and ListSteps with classifications and arguments as they were given,
and writes them into logs. In classifications it takes a reference instead: a property named `EMR.secret@NAME` whose
value is the ARN of a secret. Arguments have no such thing: they name where a secret is, never the secret.

What is found is never quoted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ringfence_bootstrap.classifications.document import SECRET_PREFIX
from ringfence_bootstrap.launch.draft import Classification, Draft, Place
from ringfence_zones.aws_names import is_secret_arn
from ringfence_zones.findings import Finding, Rule

_MAX_REFERENCE_CHARACTERS = 1024
# A name whose value is a secret: javax.jdo.option.ConnectionPassword, fs.s3a.secret.key, ranger.ks.jpa.jdbc.password.
_NAME = re.compile(
    r"(password|passwd|passphrase|secret[._-]?(access[._-]?)?key|secret$|[._-]secret[._-]id|credential$|private[._-]?key"
    r"|api[._-]?key|(auth|access|bearer|session|api|vault)[._-]?token)",
    re.IGNORECASE,
)
# ... and one that says where it is, how it is made, or whether there is one.
_ABOUT = re.compile(
    r"([._-](file|path|location|alias|provider|providers|class|command|env|arn|name|uri|url|enabled|required|length"
    r"|algorithm|expiry|timeout|renew-interval|max-lifetime|interval|prompt|policy)$|\.file\.)",
    re.IGNORECASE,
)
# What is a secret whatever it is called.
_VALUE = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\b(AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bhv[sbr]\.[A-Za-z0-9_-]{20,}"
    r"|\b(ghp|gho|ghs)_[A-Za-z0-9]{30,}"
    r"|://[^/\s:@]+:[^/\s:@]+@"
)
_NO_SECRET = frozenset({"", "true", "false", "none", "null"})
_OPTION = re.compile(r"--?(?P<name>[A-Za-z][\w.-]*)")
_ASSIGNED = re.compile(r"(--?)?(?P<name>[A-Za-z][\w.@-]*)=(?P<value>.*)", re.DOTALL)


def find_secrets(draft: Draft) -> Iterator[Finding]:
    """Secrets in classifications, in bootstrap actions and in steps."""
    for outer in draft.classifications:
        for each in outer.with_nested():
            yield from _in_properties(each)
    for index, action in enumerate(draft.document.bootstrap_actions):
        place = draft.root.at("bootstrap_actions", index, "args")
        yield from _in_arguments(action.args, place, f"the bootstrap action {action.name!r}")
    for index, step in enumerate(draft.document.steps):
        place = draft.root.at("steps", index)
        yield from _in_arguments(step.args, place.at("args"), f"the step {step.name!r}")
        for name, value in step.properties.items():
            if _is_secret(name, value):
                yield _argument(place.at("properties", name), f"the property {name} of the step {step.name!r}")


def _in_properties(each: Classification) -> Iterator[Finding]:
    for name, value in each.properties.items():
        place = each.property_place(name)
        if name.startswith(SECRET_PREFIX):
            yield from _reference(each, name, value, place)
        elif _is_secret(name, value):
            yield place.error(
                Rule.EMR_SECRET_IN_CLEAR,
                f"{name} of {each.name} is a secret, and whoever may describe the cluster would read it",
                f'put it into Secrets Manager and write  "{SECRET_PREFIX}{name}": its ARN',
            )


def _reference(each: Classification, name: str, value: str, place: Place) -> Iterator[Finding]:
    if not is_secret_arn(value):
        # Not quoted: it may be the secret.
        message = f"the value of {name} is not the ARN of a secret"
        hint = "write arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME"
        yield place.error(Rule.EMR_SECRET_REFERENCE, message, hint)
    if len(name) + len(value) > _MAX_REFERENCE_CHARACTERS:
        message = (
            f"{name} and its value have {len(name) + len(value)} characters; EMR takes {_MAX_REFERENCE_CHARACTERS}"
        )
        yield place.error(Rule.EMR_LIMIT, message, "give the secret a shorter name")
    if name.removeprefix(SECRET_PREFIX) in each.properties:
        message = f"{name.removeprefix(SECRET_PREFIX)} is here as itself and as {name}"
        yield place.error(Rule.EMR_SECRET_REFERENCE, message, "remove the one in clear")


def _in_arguments(arguments: Sequence[str], place: Place, whose: str) -> Iterator[Finding]:
    for index, argument in enumerate(arguments):
        option = arguments[index - 1] if index else ""
        # `bash -c` takes a whole command in one argument.
        if _is_secret_word(argument, option) or any(map(_is_secret_word, *_words(argument))):
            yield _argument(place.at(index), f"argument {index} of {whose}")


def _words(command: str) -> tuple[list[str], list[str]]:
    """The words of a command, and before each the word that stands before it."""
    words = [word.strip("\"'") for word in command.split()]
    return words, ["", *words[:-1]]


def _is_secret_word(word: str, before: str) -> bool:
    assigned = _ASSIGNED.fullmatch(word)
    if assigned is not None:
        return _is_secret(assigned["name"], assigned["value"].strip("\"'"))
    option = _OPTION.fullmatch(before)
    if option is not None and not word.startswith("-"):
        return _is_secret(option["name"], word)
    return _VALUE.search(word) is not None


def _argument(place: Place, what: str) -> Finding:
    return place.error(
        Rule.EMR_SECRET_IN_CLEAR,
        f"{what} is a secret; arguments stand in EMR's answers and in its logs",
        "name where it is instead: the ARN of a secret, a path in Vault, a file",
    )


def _is_secret(name: str, value: str) -> bool:
    if _VALUE.search(value):
        return True
    if value.strip().lower() in _NO_SECRET or is_secret_arn(value) or value.startswith(("${", "s3://")):
        return False
    return _NAME.search(name) is not None and _ABOUT.search(name) is None and not value.startswith("/")
