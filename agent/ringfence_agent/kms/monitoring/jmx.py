"""`/jmx` and `/kms/jmx` in the shape of Hadoop's `JMXJsonServlet`, as far as monitoring of a KMS looks.

The beans are those that Hadoop's tests and operators' templates name: `java.lang:type=Memory` and `type=Runtime`,
`Hadoop:service=KMS,name=JvmMetrics` and one meter for each kind of call. There is no JVM: memory and threads are this
server's. The service's name in beans is `hadoop.kms.metrics.process.name`.

`?qry=PATTERN` picks beans by name, with `*` and `?` as in `javax.management.ObjectName`; one that is longer than any
name is refused, because matching takes the event loop's time. `?get=` is not served.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import resource
import threading
import time
from collections.abc import Iterator
from typing import Any

from ringfence_agent.http.response import Response, ResponseHead
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.kms import Kms
from ringfence_agent.kms.monitoring.metrics import METERS, RATE_MINUTES, MetricsTable
from ringfence_zones.errors import InputError

_HEAD = ResponseHead(
    200,
    headers=[
        ("Content-Type", "application/json; charset=utf8"),
        ("Cache-Control", "no-cache"),
        ("Pragma", "no-cache"),
        ("X-Content-Type-Options", "nosniff"),
    ],
)
_RATES = ("OneMinuteRate", "FiveMinuteRate", "FifteenMinuteRate")
_MIB = 1024 * 1024
_MAX_PATTERN_CHARS = 256
Bean = dict[str, Any]


def get(kms: Kms, call: Call) -> Response:
    """The beans, all or those that `qry` names. Raises InputError."""
    call.op = "GET_JMX"
    if len(call.query.qry or "") > _MAX_PATTERN_CHARS:
        raise InputError(f"the pattern qry has at most {_MAX_PATTERN_CHARS} characters")
    monitoring = kms.monitoring
    beans = list(_select(list_beans(monitoring.metrics.table, monitoring.service_name, kms.version), call.query.qry))
    # Clients of Hadoop's servlet search the text: a blank on both sides of the colon, as Jackson prints.
    text = json.dumps({"beans": beans}, indent=2, separators=(",", " : "))
    return Response(_HEAD, text.encode())


def list_beans(table: MetricsTable, service: str, version: str) -> list[Bean]:
    """Every bean."""
    now_s = time.time()
    return [
        _memory(),
        _runtime(table.created_s, now_s, version),
        _jvm_metrics(service),
        *(_meter(table, name, now_s) for name in METERS),
    ]


def _select(beans: list[Bean], pattern: str | None) -> Iterator[Bean]:
    if not pattern:
        yield from beans
        return
    # An ObjectName's properties come in any order, and `,*` at the end stands for more of them.
    domain, _, wanted = pattern.partition(":")
    properties = wanted.split(",")
    for bean in beans:
        own_domain, _, own = bean["name"].partition(":")
        has = own.split(",")
        fits = all(each == "*" or any(_fits(each, one) for one in has) for each in properties)
        whole = "*" in properties or len(properties) == len(has)
        if _fits(domain, own_domain) and fits and whole:
            yield bean


def _fits(pattern: str, text: str) -> bool:
    return re.fullmatch(fnmatch.translate(pattern.replace("[", "[[]")), text) is not None


def _memory() -> Bean:
    used = _resident_bytes()
    usage = {"committed": used, "init": 0, "max": -1, "used": used}
    return {
        "name": "java.lang:type=Memory",
        "modelerType": "sun.management.MemoryImpl",
        "Verbose": False,
        "ObjectPendingFinalizationCount": 0,
        "HeapMemoryUsage": usage,
        "NonHeapMemoryUsage": {"committed": 0, "init": 0, "max": -1, "used": 0},
        "ObjectName": "java.lang:type=Memory",
    }


def _runtime(started_s: float, now_s: float, version: str) -> Bean:
    return {
        "name": "java.lang:type=Runtime",
        "modelerType": "sun.management.RuntimeImpl",
        "Name": f"{os.getpid()}@{os.uname().nodename}",
        "SpecName": "Ringfence KMS",
        "SpecVersion": version,
        "StartTime": int(started_s * 1000),
        "Uptime": int((now_s - started_s) * 1000),
        "ObjectName": "java.lang:type=Runtime",
    }


def _jvm_metrics(service: str) -> Bean:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "name": f"Hadoop:service={service},name=JvmMetrics",
        "modelerType": "JvmMetrics",
        "tag.Context": "jvm",
        "tag.ProcessName": service,
        "tag.SessionId": None,
        "tag.Hostname": os.uname().nodename,
        "MemHeapUsedM": _resident_bytes() / _MIB,
        "MemHeapCommittedM": _resident_bytes() / _MIB,
        "MemMaxM": usage.ru_maxrss / 1024,
        "MemNonHeapUsedM": 0.0,
        "GcCount": 0,
        "GcTimeMillis": 0,
        "ThreadsRunnable": threading.active_count(),
        "LogFatal": 0,
        "LogError": 0,
        "LogWarn": 0,
        "LogInfo": 0,
    }


def _meter(table: MetricsTable, name: str, now_s: float) -> Bean:
    count = table.meter(name)
    bean: Bean = {
        "name": f"metrics:name=hadoop.kms.{name}.calls.meter",
        "modelerType": "com.codahale.metrics.jmx.JmxReporter$JmxMeter",
        "Count": count,
        "RateUnit": "events/second",
        "MeanRate": count / max(now_s - table.created_s, 1e-3),
    }
    return bean | {_RATES[number]: table.rate(name, number) for number in range(len(RATE_MINUTES))}


def _resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as stream:  # noqa: PTH123 - a system file, read on each request
        return int(stream.read().split()[1]) * resource.getpagesize()
