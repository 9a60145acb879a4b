#!/usr/bin/env bash
# EMR step: makes the cluster's encryption zones as the policy says, once HDFS and the right KMS are there.
#
#   step-zones.sh --policy s3://BUCKET/zones.yaml --kms ringfence [--tls] [--wait 15m] [--log-uri s3://...]
#
# The arguments are those of `ringfence emr step zones`, which `ringfence emr launch-config` writes. For script-runner.jar
# and command-runner.jar on the primary node; it may be run again at any time, also after it was killed. What it did is
# on standard output, what it waited for on standard error, and the status object in /var/lib/ringfence-node/zones.json.
set -euo pipefail
export LC_ALL=C
umask 022

RINGFENCE=/opt/ringfence/bin/ringfence
STATE=/var/lib/ringfence-node

fail() {
  echo "step-zones: $1" >&2
  echo "hint: $2" >&2
  exit 1
}

# EMR runs steps as the hadoop user. The KMS's admin socket, and the keytab of the superuser, are for root.
if [ "$(id -u)" != 0 ]; then
  exec sudo -n -- bash "$0" "$@" || exit 1
fi

[ -x "$RINGFENCE" ] || fail "$RINGFENCE is not on this node" \
  "did bootstrap-action.sh run here? its log is in /emr/instance-controller/log/bootstrap-actions on this node"

# 0755, by the umask.
mkdir -p "$STATE"
exec "$RINGFENCE" emr step zones --status "$STATE/zones.json" "$@"
