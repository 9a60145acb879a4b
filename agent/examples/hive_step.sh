#!/usr/bin/env bash
# A Hive step: runs a query that rewrites a table or a partition inside its encryption zone.
#
#     hive_step.sh hdfs:///data/pii/daily/dt=2026-11-22 daily.hql
#
# Hive writes into its staging directory and renames into the table's, so both have to be in one zone. The agent says
# where; LOCATION has to be what `DESCRIBE FORMATTED` says of the table or the partition. The project's tests read this
# script with bash and run it against no Hive.
set -euo pipefail

location=$1 query=$2
staging=$(ringfence agent places --job "hive-$$" --only staging "$location")
trap 'hdfs dfs -rm -r -f -skipTrash "$staging" >/dev/null 2>&1' EXIT

beeline --silent=true -u "${HIVE_URL:-jdbc:hive2://localhost:10000/default}" \
  --hiveconf "hive.exec.stagingdir=$staging" \
  -f "$query"
