#!/usr/bin/env bash
# EMR bootstrap action: puts Ringfence on this node and starts what sets it up once EMR has provisioned it. Run as root on
# a machine of one's own it makes that a key server (mode: key-server).
#
#   bootstrap-action.sh CONFIG [SHA256]     CONFIG: s3://BUCKET/KEY or a path; SHA256: what it must be
#
# CONFIG is packaging/docs/bootstrap.yaml, filled in. Two of its lines are read here: where the wheelhouse is, and the
# SHA-256 of the wheelhouse's SHA256SUMS. Everything that runs later is checked against that first. No package index is
# needed, and none is asked.
#
# It may be run again at any time, also after it was killed at any line, and beside other bootstrap actions. What takes
# longer than a few minutes is left to ringfence-bootstrap.service; EMR gives up on a node whose bootstrap action fails.
set -euo pipefail
export LC_ALL=C
umask 022

HOME_DIRECTORY=/opt/ringfence
LOCK=/run/ringfence-bootstrap-action.lock
MARK=$HOME_DIRECTORY/.ringfence-wheelhouse
MOST_BYTES=$((128 * 1024 * 1024))  # of one file

say() { echo "bootstrap-action: $*" >&2; }

fail() {
  say "$1"
  [ $# -lt 2 ] || say "hint: $2"
  exit "${3:-1}"
}

# The interpreter of one version, 3.11 or newer; of any such version when none is named. Printed as a path.
find_python() {
  local candidate
  for candidate in "python${1:-3.11}" python3.12 python3.13 python3.14 python3; do
    if "$candidate" - "${1:-}" 2>/dev/null <<'CHECK'
import sys, venv
sys.exit(sys.version_info < (3, 11) or sys.argv[1] not in ("", "%d.%d" % sys.version_info[:2]))
CHECK
    then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

# What is not checked yet lies in memory (/run): a file of any size would take the node's.
bounded() (
  ulimit -f $((MOST_BYTES / 1024))
  exec "$@" </dev/null
)

fetch() { # fetch SOURCE TARGET
  case $1 in
    s3://*)
      command -v aws >/dev/null || fail "$1 cannot be fetched: there is no aws command on this node"
      bounded aws s3 cp --only-show-errors "$1" "$2" ||
        fail "$1 cannot be fetched" "may the instance profile do s3:GetObject on it, and kms:Decrypt with its key?"
      ;;
    *) bounded cp -- "${1#file://}" "$2" || fail "$1 cannot be read" ;;
  esac
}

# A top-level scalar of the YAML file, as bootstrap.yaml says it must stand: alone on its line, quoted or not.
setting() {
  sed -n -E "s/^$1:[[:space:]]+[\"']?([^\"'#[:space:]]+)[\"']?[[:space:]]*(#.*)?\$/\1/p" "$2"
}

check_config() {
  local wanted=$1 file=$2 found
  found=$(sha256sum <"$file" | cut -d' ' -f1)
  [ -z "$wanted" ] || [ "$found" = "$wanted" ] ||
    fail "the configuration is not the one that was meant: its SHA-256 is $found" "" 2
}

# Into a directory that only root can write to, and only what SHA256SUMS names.
fetch_wheelhouse() {
  local source=${1%/} pin=$2 target=$3 sums=$3/SHA256SUMS name
  fetch "$source/SHA256SUMS" "$sums"
  echo "$pin  $sums" | sha256sum --check --status ||
    fail "$source/SHA256SUMS is not the one that wheelhouse_sha256 names: nothing of it was used" "" 2
  if grep -qvE '^[0-9a-f]{64}  [A-Za-z0-9][A-Za-z0-9._+-]*$' "$sums"; then
    fail "$source/SHA256SUMS holds something else than digests and plain names" "make it with packaging/scripts/wheelhouse" 2
  fi
  case $source in
    s3://*)
      # What else lies there, and how much of it, whoever can write there decides. The names have no wildcards.
      local wanted=(--exclude '*')
      while read -r _ name; do
        wanted+=(--include "$name")
      done <"$sums"
      bounded aws s3 cp --recursive --only-show-errors "${wanted[@]}" "$source/" "$target/files/" ||
        fail "$source cannot be fetched" "may the instance profile do s3:ListBucket and s3:GetObject on it?"
      while read -r _ name; do
        mv -- "$target/files/$name" "$target/" || fail "$source has no $name"
      done <"$sums"
      rm -rf "$target/files"
      ;;
    *)
      while read -r _ name; do
        fetch "$source/$name" "$target/$name"
      done <"$sums"
      ;;
  esac
  (cd "$target" && sha256sum --check --strict --quiet SHA256SUMS) >&2 ||
    fail "the wheelhouse is not what its SHA256SUMS says: nothing of it was used" "fetch or build it again" 2
}

# pip comes along as a wheel, so that the node's Python needs no ensurepip; a wheel is a zip file that Python can run.
make_environment() {
  local python=$1 wheels=$2 pip
  pip=$(find "$wheels" -name 'pip-*.whl' -print -quit)
  [ -n "$pip" ] || fail "the wheelhouse has no pip" "make it with packaging/scripts/wheelhouse" 2
  (cd "$HOME_DIRECTORY" && rm -rf bin lib lib64 include share pyvenv.cfg)
  "$python" -m venv --without-pip "$HOME_DIRECTORY"
  PIP_CONFIG_FILE=/dev/null "$HOME_DIRECTORY/bin/python" "$pip/pip" --isolated install --quiet --no-index --no-deps \
    --no-cache-dir --no-warn-script-location --disable-pip-version-check --find-links "$wheels" \
    --only-binary=:all: --require-hashes --requirement "$wheels/requirements.txt" ||
    fail "the wheelhouse does not fit this node's $("$python" --version)" \
      "make one for it: packaging/scripts/wheelhouse --python VERSION"
}

main() {
  case $# in
    1 | 2) ;;
    *) fail "usage: bootstrap-action.sh CONFIG [SHA256]" "" 2 ;;
  esac
  # EMR runs bootstrap actions as the hadoop user, who may do everything by sudo.
  [ "$(id -u)" = 0 ] || exec sudo -n -- bash "$0" "$@"

  local python version config wheelhouse pin
  find_python >/dev/null || fail "this node has no Python 3.11 or newer" \
    "use emr-7.1.0 or later; on an older release run the key server off the cluster, whose clients need only core-site.xml; on a machine of your own install python3.11" 2

  # A path that was given relative means the caller's directory; what is started here must not hold on to it.
  case $1 in
    s3://* | /* | file://*) ;;
    *) set -- "$PWD/$1" "${@:2}" ;;
  esac
  cd /

  # One at a time; the descriptor goes with this process, however it ends.
  exec 9>"$LOCK"
  flock 9
  scratch=$(mktemp -d /run/ringfence-bootstrap-XXXXXX)
  trap 'rm -rf "$scratch"' EXIT
  find /run -maxdepth 1 -name 'ringfence-bootstrap-??????' ! -path "$scratch" -exec rm -rf {} +  # of runs that died

  say "fetching the configuration"
  config=$scratch/bootstrap.yaml
  fetch "$1" "$config"
  check_config "${2:-}" "$config"
  wheelhouse=$(setting wheelhouse "$config")
  pin=$(setting wheelhouse_sha256 "$config")
  if [ -z "$wheelhouse" ] || [ -z "$pin" ]; then
    fail "$1 does not say wheelhouse and wheelhouse_sha256, each on a line of its own" \
      "packaging/docs/bootstrap.yaml shows them" 2
  fi

  if [ "$(cat "$MARK" 2>/dev/null)" = "$pin" ]; then
    say "the wheelhouse is installed"
  else
    # Something that is not ours is never touched; what a run that died left has the mark of having begun.
    if [ -e "$HOME_DIRECTORY" ] && [ ! -e "$MARK" ] && [ -n "$(ls -A "$HOME_DIRECTORY")" ]; then
      fail "$HOME_DIRECTORY is there, and was not made by this bootstrap action" "move it away"
    fi
    if [ -e /var/lib/ringfence-node/journal/install.json ] && [ "$(cat "$MARK" 2>/dev/null)" != begun ]; then
      fail "this node was set up with another wheelhouse" "ringfence uninstall --yes, and run this again"
    fi
    say "fetching the wheelhouse"
    mkdir "$scratch/wheels"
    fetch_wheelhouse "$wheelhouse" "$pin" "$scratch/wheels"
    version=$(cat "$scratch/wheels/python-version")
    python=$(find_python "$version") || fail "the wheelhouse is for Python $version, which this node does not have" \
      "make one for a Python that it has: packaging/scripts/wheelhouse --python VERSION" 2
    say "installing into $HOME_DIRECTORY"
    mkdir -p "$HOME_DIRECTORY"
    echo begun >"$MARK"
    make_environment "$python" "$scratch/wheels"
    say "installed"
    echo "$pin" >"$MARK.new"
    mv "$MARK.new" "$MARK"
  fi

  say "handing over"
  "$HOME_DIRECTORY/bin/ringfence" emr node install --config "$config"
}

main "$@"
exit
