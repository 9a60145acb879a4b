"""What a whole command of ours does to the node's KMS, as one step: the takeover, the hardening, and what undoes each.

They are run as commands, which have journals of their own: what one of them left half done the next call of it rolls
back and says so with exit code 4, and only then can it be asked again.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ringfence_bootstrap.journal import DONE, RUNNING, Journal, Step, Undo
from ringfence_bootstrap.node.changes import forget
from ringfence_bootstrap.takeover.key_commands import ringfence_command
from ringfence_zones.cli import exits
from ringfence_zones.errors import InstallError

# An import of many keys, two starts of Java, the proofs.
_TIMEOUT_S = 1800


@dataclass(frozen=True, slots=True)
class CommandPair:
    """A command and the one that undoes it: their words, and the names of their journals without `.json`."""

    name: str
    title: str
    there: tuple[str, ...]
    back: tuple[str, ...]
    journals: tuple[str, str]


TAKEOVER = CommandPair(
    "takeover", "taking the stock KMS over", ("kms", "takeover"), ("kms", "return"), ("takeover", "return")
)
HARDENING = CommandPair(
    "harden", "hardening the stock KMS", ("kms", "harden"), ("kms", "harden", "undo"), ("harden", "undo")
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """`global_options` say which cluster and, under simple authentication, as whom; `options` are the command's own,
    `proving` those that both take. `state` is where both have their journals, and goes with the undo.
    """

    pair: CommandPair
    state: Path
    global_options: tuple[str, ...]
    options: tuple[str, ...]
    proving: tuple[str, ...]

    def step(self) -> Step:
        """See the module."""
        return Step(self.pair.name, self.pair.title, self.go, self.go_back, self._look)

    def _look(self) -> Undo:
        # Somebody who did it by hand before undoes it by hand.
        return {"was_done": self._state(0) == DONE}

    def go(self) -> None:
        """Returns when it is done. Raises InstallError."""
        if self._state(0) == DONE:
            return
        self._roll_back()
        self._run(self.pair.there, self.options)

    def go_back(self, undo: Undo) -> str | None:
        """Returns when it is undone, done or half done. Raises InstallError."""
        if undo["was_done"]:
            return None
        self._roll_back()
        if self._state(0) == DONE:
            self._run(self.pair.back, ())
        # What it remembers of our key store (which entries are in it) would be wrong of the next one.
        forget([self.state])
        return None

    def _roll_back(self) -> None:
        """What a command that died left half done."""
        for number, words, options in ((1, self.pair.back, ()), (0, self.pair.there, self.options)):
            if self._state(number) == RUNNING:
                code, error = self._try(words, options)
                if code != exits.ROLLED_BACK and error is not None:
                    raise error
                return

    def _run(self, words: tuple[str, ...], options: tuple[str, ...]) -> None:
        _, error = self._try(words, options)
        if error is not None:
            raise error

    def _try(self, words: tuple[str, ...], options: tuple[str, ...]) -> tuple[int, InstallError | None]:
        command = [ringfence_command(), *words, *options, *self.proving, "--state-dir", str(self.state)]
        command += [*self.global_options, "--json", "--yes"]
        what = f"ringfence {' '.join(words)}"
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InstallError(f"{what} did not run: {error}") from error
        return done.returncode, _failure(what, done.returncode, done.stderr) if done.returncode else None

    def _state(self, number: int) -> str | None:
        found = Journal(self.state / f"{self.pair.journals[number]}.json").find()
        return None if found is None else found[0]


def _failure(what: str, code: int, stderr: str) -> InstallError:
    lines: Sequence[str] = stderr.strip().splitlines() or ["it said nothing"]
    try:
        error = json.loads(lines[-1])["error"]
        # The journal around this step says the same of itself.
        message = str(error["message"]).replace("; everything is as it was before", "", 1)
        return InstallError(message, hint=error.get("hint"), command=error.get("command"))
    except (ValueError, KeyError, TypeError):
        return InstallError(f"{what} ended with {code}: {lines[-1]}")
