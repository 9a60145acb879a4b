#!/usr/bin/python3
"""`aws s3 cp` in a node without a network: s3://BUCKET/KEY is /srv/s3/BUCKET/KEY."""

import shutil
import sys
from pathlib import Path


def place(address):
    return Path("/srv/s3") / address.removeprefix("s3://") if address.startswith("s3://") else Path(address)


def main():
    # --exclude '*' and then --include NAME...: of the names alone
    patterns = [
        value for option, value in zip(sys.argv, sys.argv[1:], strict=False) if option in ("--exclude", "--include")
    ]
    included = patterns[1:]
    if patterns:
        assert patterns[0] == "*" and sys.argv.count("--exclude") == 1, sys.argv
        start = sys.argv.index("--exclude")
        del sys.argv[start : start + 2 * len(patterns)]
    words = [each for each in sys.argv[1:] if not each.startswith("--")]
    if words[:2] != ["s3", "cp"] or set(sys.argv[1:]) - set(words) - {"--only-show-errors", "--recursive"}:
        sys.exit(f"this aws knows only s3 cp, not {sys.argv[1:]}")
    source, target = words[2:]
    try:
        if "--recursive" in sys.argv:
            left_out = (lambda _directory, names: set(names) - set(included)) if patterns else None
            shutil.copytree(place(source), place(target), ignore=left_out, dirs_exist_ok=True)
        elif target == "-":
            sys.stdout.buffer.write(place(source).read_bytes())
        else:
            place(target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place(source), place(target))
    except FileNotFoundError:
        sys.exit("fatal error: An error occurred (404) when calling the HeadObject operation: Not Found")


main()
