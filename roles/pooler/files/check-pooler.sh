#!/bin/sh
# Managed by selfhost.fleet.pooler; changes are overwritten.
# PgBouncer has no option that checks its configuration: it is started with the candidate, in a network of its own where the port is
# free, and must come up without a complaint and listen. Runs where the candidate is seen in /etc.
# Arguments: address:port.
set -eu
if [ "${1:-}" != inside ]; then
  exec unshare --net --ipc --mount --pid --fork --kill-child sh "$0" inside "$1"
fi
# A new network has the loopback interface only, and that is down.
ip link set lo up
mount -t tmpfs -o mode=0755 tmpfs /run/postgresql
chown postgres:postgres /run/postgresql
log=/run/postgresql/check.log
setpriv --reuid=postgres --regid=postgres --init-groups --reset-env -- /usr/sbin/pgbouncer /etc/pgbouncer/pgbouncer.ini >"$log" 2>&1 &
pooler=$!
tries=100
while kill -0 "$pooler" 2>/dev/null && ! grep -q ' process up' "$log"; do
  tries=$((tries - 1))
  if [ "$tries" -eq 0 ]; then
    echo 'PgBouncer did not come up with this configuration within 5 s:' >&2
    cat "$log" >&2
    exit 1
  fi
  sleep 0.05
done
# It starts with a broken user list or TLS, too, and only says so.
if grep -E ' (WARNING|ERROR|FATAL) ' "$log" | grep -v 'kernel file descriptor limit' >&2 || ! grep -q ' process up' "$log"; then
  grep -qE ' (WARNING|ERROR|FATAL) ' "$log" || cat "$log" >&2
  exit 1
fi
if ! grep -qF " listening on $2" "$log"; then
  echo "PgBouncer does not listen on $2 with this configuration:" >&2
  grep ' listening on ' "$log" >&2
  exit 1
fi
