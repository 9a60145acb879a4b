#!/usr/bin/env python3
"""A step that brings its result into another zone: asks, is refused a rename, has the agent transfer it, verifies.

    transfer_step.py /data/pii/export /data/masked/export --key /etc/ringfence/receipt-key.pub

It needs `ringfence_client.py` beside it (of the release; `ringfence_agent/client.py` of the wheel), `hdfs` on its path,
Python 3.7, and for the last line `ringfence`. The key is the agent's `receipt-key.pub`, taken from the agent's machine
once and kept.

Exit codes: 0 transferred and verified, 1 refused or failed, 2 the agent cannot be asked.
"""

import argparse
import subprocess
import sys

try:
    from ringfence_agent.client import AgentClient, AgentError, AgentUnavailableError
except ImportError:
    from ringfence_client import AgentClient, AgentError, AgentUnavailableError


def show(transfer):
    """One line of progress."""
    left = "" if transfer.time_left_s is None else ", {:.0f} s left".format(transfer.time_left_s)
    print("{}: {} of {} files{}".format(transfer.state, transfer.files_verified, transfer.files, left), flush=True)


def main(options):
    """Transfers unless a rename does. Raises AgentError."""
    agent = AgentClient()
    answer = agent.check_move(options.source, options.target, user=options.user)
    if answer.rename:
        return min(subprocess.call(["hdfs", "dfs", "-mv", options.source, options.target]), 1)
    print("refused ({}): {}".format(answer.rule, answer.reason))
    if not answer.transfer:
        return 1
    submitted = agent.submit_transfer(options.source, options.target, purpose=options.purpose, user=options.user)
    ended = agent.wait_for_transfer(submitted.id, on_progress=show)
    if ended.state != "done":
        print("failed: {}".format(ended.problem["message"]), file=sys.stderr)
        return 1
    with open(options.receipt, "xb") as stream:  # noqa: PTH123 - Python 3.7
        stream.write(agent.get_receipt(ended.id))
    return subprocess.call(["ringfence", "receipt", "verify", options.receipt, "--key", options.key])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--key", required=True, help="the agent's receipt-key.pub")
    parser.add_argument("--receipt", default="receipt.json", help="where to keep the receipt")
    parser.add_argument("--purpose", help="stands in the receipt")
    parser.add_argument("--user", help="on whose behalf, for those who may")
    try:
        sys.exit(main(parser.parse_args()))
    except AgentUnavailableError as error:
        print("cannot ask: {}".format(error), file=sys.stderr)
        sys.exit(2)
    except AgentError as error:
        print("refused: {}".format(error), file=sys.stderr)
        sys.exit(1)
