"""What custody `transit` is compared with: one call of hvac to Vault for each data key, from 64 threads.

Run as a program: reads one JSON object from standard input (`address`, `token`, `mount`, `key`, `items` of
[ciphertext, context], `clients`, `seconds`) and prints how many were opened and in how many seconds. The token is in
no argument.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from typing import Any

import hvac
import requests


def main() -> None:
    """Opens items round robin until the time is up; the first failure ends it all."""
    given = json.load(sys.stdin)
    numbers = itertools.count()
    opened = [0] * given["clients"]
    failures: list[str] = []
    began = time.monotonic()
    until = began + given["seconds"]

    def work(client_number: int) -> None:
        transit = _client(given).secrets.transit
        while time.monotonic() < until and not failures:
            ciphertext, context = given["items"][next(numbers) % len(given["items"])]
            try:
                transit.decrypt_data(given["key"], ciphertext, context=context, mount_point=given["mount"])
            except Exception as error:  # noqa: BLE001 - its text may hold what Vault was given
                failures.append(type(error).__name__)
                return
            opened[client_number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(given["clients"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        sys.exit(f"hvac failed with {failures[0]}")
    print(json.dumps({"opened": sum(opened), "seconds": time.monotonic() - began}))


def _client(given: dict[str, Any]) -> hvac.Client:
    session = requests.Session()
    session.trust_env = False
    return hvac.Client(url=given["address"], token=given["token"], session=session)


if __name__ == "__main__":
    main()
