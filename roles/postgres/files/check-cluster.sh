#!/bin/sh
# Managed by selfhost.fleet.postgres; changes are overwritten.
# The one full check of a configuration is a start: of PostgreSQL on an empty cluster, with no network, no live data and no live socket.
# Runs where the candidate is seen in /etc. Arguments: version.
set -eu
if [ "${2:-}" != inside ]; then
  exec unshare --net --ipc --pid --fork --kill-child sh "$0" "$1" inside
fi
etc="/etc/postgresql/$1/main" bin="/usr/lib/postgresql/$1/bin"
scratch="$(mktemp -d /run/selfhost-check.XXXXXXXX)"
chown postgres:postgres "$scratch"
postgres() { setpriv --reuid=postgres --regid=postgres --init-groups --reset-env -- "$@"; }
cd "$scratch"
if ! postgres "$bin/initdb" --pgdata="$scratch/data" --no-sync --auth=reject >"$scratch/initdb" 2>&1; then
  cat "$scratch/initdb" >&2
  exit 1
fi
overrides="-c data_directory=$scratch/data -c external_pid_file=$scratch/pid -c listen_addresses= -c unix_socket_directories=$scratch \
-c log_destination=stderr -c logging_collector=off -c log_min_messages=log -c archive_mode=off -c huge_pages=off -c log_line_prefix="
if ! postgres "$bin/pg_ctl" --pgdata="$etc" --silent --wait --timeout=30 --log="$scratch/log" --options="$overrides" start >"$scratch/ctl" 2>&1; then
  # What a server says before it gives up; its greetings are no reason.
  if [ -s "$scratch/log" ]; then
    grep -Ev '^pg_ctl: |LOG:  (starting PostgreSQL|listening on|database system is shut down)' "$scratch/log" >&2
  else
    cat "$scratch/ctl" >&2
  fi
  exit 1
fi
# Gone with the process namespace as well, should this fail.
postgres "$bin/pg_ctl" --pgdata="$scratch/data" --silent --wait --mode=immediate stop >/dev/null
