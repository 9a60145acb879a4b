"""`/metrics` for an authenticated user who is not on this machine; everybody else's is `monitoring`'s."""

from __future__ import annotations

from ringfence_agent.http.response import Response
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.kms import Kms


def get(kms: Kms, call: Call) -> Response:
    """The metrics, or a refusal, as `metrics.access` says."""
    call.op = "GET_METRICS"
    return kms.monitoring.render_metrics(kms.access.published.revision)
