#!/usr/bin/env python3
"""A Python step: brings a finished file to its place, and says what to do where a rename cannot.

    python_step.py /data/pii/daily/part-0 /data/pii/archive/part-0

It needs `ringfence_client.py` beside it (of the release; `ringfence_agent/client.py` of the wheel), `hdfs` on its path,
and nothing else. Python 3.7. On another node than the agent's set RINGFENCE_AGENT_URL, RINGFENCE_AGENT_TOKEN_FILE and
RINGFENCE_AGENT_CA_FILE.

Exit codes: 0 moved, 1 refused or failed, 2 the agent cannot be asked.
"""

import subprocess
import sys

try:
    from ringfence_agent.client import AgentClient, AgentError
except ImportError:
    from ringfence_client import AgentClient, AgentError


def main(source, target):
    """Moves `source` to `target` where that is allowed."""
    try:
        answer = AgentClient().check_move(source, target)
    except AgentError as error:
        print("cannot ask: {}".format(error), file=sys.stderr)
        if error.hint:
            print("  {}".format(error.hint), file=sys.stderr)
        return 2
    if not answer.rename:
        print("refused ({}): {}".format(answer.rule, answer.reason), file=sys.stderr)
        if answer.command:
            print("  instead: {}".format(answer.command), file=sys.stderr)
        return 1
    if subprocess.call(["hdfs", "dfs", "-mv", source, target]) != 0:
        return 1  # hdfs has said why
    print("moved {} to {}".format(source, target))
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python_step.py SOURCE TARGET")
    sys.exit(main(sys.argv[1], sys.argv[2]))
