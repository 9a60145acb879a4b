"""`python -m ringfence_agent.transfer.leashed PARENT COMMAND...`: becomes COMMAND, and is killed when PARENT ends.

For commands whose effect must not come after the agent's death, when nobody would know of it. The kernel watches the
thread that started this, so that thread has to wait for it.
"""

from __future__ import annotations

import os
import sys

from ringfence_agent.process_hygiene import die_with_parent


def main(arguments: list[str]) -> None:
    """Does not return."""
    parent, *command = arguments
    die_with_parent(int(parent))
    os.execvp(command[0], command)  # noqa: S606 - no shell is meant


if __name__ == "__main__":
    main(sys.argv[1:])
