#!/usr/bin/env bash
# A shell step: makes one sorted file of a directory of text files, and puts it where it belongs in one rename.
#
#     shell_step.sh hdfs:///data/pii/raw/2026-11-22 hdfs:///data/pii/daily/2026-11-22
#
# What is not finished yet is staged where the agent says: in the zone of the target, so that the last rename works. A
# rename that would leave the zone is refused by `ringfence mv`, with the rule and the command that works instead.
set -euo pipefail

input=$1 target=$2
staging=$(ringfence agent places --job "step-$$" --only staging "$target")
trap 'hdfs dfs -rm -r -f -skipTrash "$staging" >/dev/null 2>&1' EXIT

hdfs dfs -mkdir -p "$staging"
hdfs dfs -text "$input/*" | LC_ALL=C sort -u | hdfs dfs -put - "$staging/result"
ringfence mv "$staging/result" "$target"
