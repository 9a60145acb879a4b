#!/usr/bin/python3
"""systemctl in a node without systemd: units of Type=forking by their commands, others by ringfence-run.

As the real one: a unit is what it was when it was loaded, until daemon-reload; a masked unit cannot be started; a unit
whose file is itself in /etc/systemd/system cannot be masked; an unknown one cannot be stopped.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

LAUNCHER = "@LAUNCHER@"
UNITS = Path("/etc/systemd/system")
STATE = Path("/run/units")
LOADED = STATE / "loaded"
MASKED = "masked\n"


def fail(text):
    print(text, file=sys.stderr)
    sys.exit(1)


def load(unit):
    """The unit's text, MASKED, or None."""
    cached = LOADED / unit
    if not cached.exists():
        place = UNITS / unit
        if place.is_symlink() and place.resolve() == Path("/dev/null"):
            cached.write_text(MASKED)
        elif place.is_file():
            cached.write_text(place.read_text())
        else:
            return None
    return cached.read_text()


def setting(text, name):
    values = [line.partition("=")[2].strip() for line in text.splitlines() if line.startswith(name + "=")]
    return values[-1] if values else ""


def reload():
    for each in LOADED.iterdir():
        each.unlink()


def pid_of(unit):
    try:
        pid = int((STATE / f"{unit}.pid").read_text())
        return pid if b"ringfence-run" in Path(f"/proc/{pid}/cmdline").read_bytes() else None
    except (OSError, ValueError):
        return None


def start(unit):
    text = load(unit)
    if text is None:
        fail(f"Failed to start {unit}: Unit {unit} not found.")
    if text == MASKED:
        fail(f"Failed to start {unit}: Unit {unit} is masked.")
    if setting(text, "Type") == "forking":
        done = subprocess.run(shlex.split(setting(text, "ExecStart")), stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            fail(f"Job for {unit} failed.")
        return
    if pid_of(unit) is None:
        with (STATE / f"{unit}.log").open("a") as log:
            process = subprocess.Popen(
                [LAUNCHER, str(UNITS / unit)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        (STATE / f"{unit}.pid").write_text(str(process.pid))


def stop(unit):
    text = load(unit)
    if text is None:
        fail(f"Failed to stop {unit}: Unit {unit} not loaded.")
    if text != MASKED and setting(text, "Type") == "forking":
        subprocess.run(shlex.split(setting(text, "ExecStop")), stdin=subprocess.DEVNULL, check=False)
        return
    pid = pid_of(unit)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        while pid_of(unit) is not None:
            time.sleep(0.05)


def enable(unit, wanted):
    text = load(unit)
    if text is None or text == MASKED:
        fail(f"Failed to {'en' if wanted else 'dis'}able unit: Unit file {unit} does not exist or is masked.")
    link = UNITS / f"{setting(text, 'WantedBy')}.wants" / unit
    link.unlink(missing_ok=True)
    if wanted:
        link.symlink_to(UNITS / unit)


def mask(unit, wanted):
    place = UNITS / unit
    is_mask = place.is_symlink() and place.resolve() == Path("/dev/null")
    if wanted and not is_mask:
        if place.exists():
            fail(f"Failed to mask unit: File {place} already exists.")
        place.symlink_to("/dev/null")
    elif not wanted and is_mask:
        place.unlink()
    reload()


def show(unit, name):
    text = load(unit)
    if name == "LoadState":
        print("not-found" if text is None else "masked" if text == MASKED else "loaded")
    elif name == "ActiveState":
        print("active" if pid_of(unit) is not None else "inactive")
    else:
        fail(f"this systemctl shows no {name}")


def main():
    LOADED.mkdir(parents=True, exist_ok=True)
    options = [each for each in sys.argv[1:] if each.startswith("--")]
    verb, *units = [each for each in sys.argv[1:] if not each.startswith("--")]
    known = {"--no-block", "--value"}
    if any(each not in known and not each.startswith("--property=") for each in options):
        fail(f"this systemctl has no {options}")
    if verb == "daemon-reload":
        reload()
        return
    (unit,) = [each if "." in each else f"{each}.service" for each in units]
    if verb == "show":
        show(unit, next(each for each in options if each.startswith("--property=")).partition("=")[2])
    elif verb == "restart":
        stop(unit)
        start(unit)
    elif verb in ("start", "stop"):
        {"start": start, "stop": stop}[verb](unit)
    elif verb in ("enable", "disable"):
        enable(unit, verb == "enable")
    elif verb in ("mask", "unmask"):
        mask(unit, verb == "mask")
    else:
        fail(f"Unknown command verb {verb}.")


main()
