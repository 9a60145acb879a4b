"""Copies a file of HDFS with `hdfs-native`, no Java in it: `python native_copy.py URL SOURCE TARGET`.

As whoever HADOOP_USER_NAME claims to be. Prints one JSON object: `{"result": null}`, or `{"error", "message"}`.
"""

from __future__ import annotations

import json
import sys

import hdfs_native


def main() -> int:
    url, source, target = sys.argv[1:]
    client = hdfs_native.Client(url)
    try:
        with client.read(source) as stream:
            content = stream.read()
        with client.create(target) as stream:
            stream.write(content)
    except Exception as error:  # noqa: BLE001 - the library has no type of its own
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
        return 1
    print(json.dumps({"result": None}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
