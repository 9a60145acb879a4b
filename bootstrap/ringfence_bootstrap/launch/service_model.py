"""A request held against EMR's own service model, the one that boto3 and the AWS CLI call EMR by.

The model comes with botocore (extra `emr`), and is read without a session, credentials or a network. It knows names,
types, required members and enumerations. It bounds no list and no text (`limits` does), and botocore's validator looks
at no enumeration; both are looked at here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ringfence_zones.errors import MissingExtraError, RingfenceError

_SERVICE = "emr"
_OPERATION = "RunJobFlow"


def check_run_job_flow(request: Mapping[str, Any]) -> None:
    """Raises RingfenceError for a request that EMR's model refuses, which is a fault of ours.

    MissingExtraError without botocore.
    """
    try:
        from botocore.loaders import Loader  # noqa: PLC0415 - half a second that only this command takes
        from botocore.model import ServiceModel  # noqa: PLC0415
        from botocore.validate import ParamValidator  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError("ringfence emr launch-config --format run-job-flow", "emr") from error
    model = ServiceModel(Loader().load_service_model(_SERVICE, "service-2"), _SERVICE)
    shape = model.operation_model(_OPERATION).input_shape
    report = ParamValidator().validate(dict(request), shape)
    problems = [report.generate_report()] if report.has_errors() else list(_enumerations(request, shape, _OPERATION))
    if problems:
        raise RingfenceError(
            f"EMR's service model refuses the request: {'; '.join(problems)}",
            hint="this is a fault of Ringfence; the installed botocore may also be of another time than it",
        )


def _enumerations(value: Any, shape: Any, where: str) -> Iterator[str]:
    """Words and lengths that the shapes bound."""
    if shape.type_name == "structure":
        for name, inner in value.items():
            yield from _enumerations(inner, shape.members[name], f"{where}.{name}")
    elif shape.type_name == "list":
        for index, inner in enumerate(value):
            yield from _enumerations(inner, shape.member, f"{where}[{index}]")
    elif shape.type_name == "map":
        for name, inner in value.items():
            yield from _enumerations(inner, shape.value, f"{where}.{name}")
    elif shape.type_name == "string":
        words, most = getattr(shape, "enum", None), shape.metadata.get("max")
        if words and value not in words:
            yield f"{where} is none of {', '.join(words)}"
        if most is not None and len(value) > most:
            yield f"{where} is longer than {most} characters"
