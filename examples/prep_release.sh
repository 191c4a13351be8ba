#!/usr/bin/env bash
# The walk-through of a client: start the daemons, submit, look at a file on each node, end the job, see each node released.
#
#   examples/prep_release.sh            (with .venv/bin on the PATH, or after `make setup`)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ ! -d "$here/../.venv/bin" ] || PATH="$here/../.venv/bin:$PATH"

BATCH_STATE=$(mktemp -d)
export BATCH_STATE
unset BATCH_COORDINATOR
daemons=()

stop() {
  status=$?
  if [ "${#daemons[@]}" -gt 0 ]; then
    kill "${daemons[@]}" 2>/dev/null || true
    wait "${daemons[@]}" 2>/dev/null || true
  fi
  if [ "$status" -ne 0 ]; then
    tail -n 5 "$BATCH_STATE"/*.log >&2
  fi
  rm -rf "$BATCH_STATE"
  exit "$status"
}
trap stop EXIT

coordinator serve > "$BATCH_STATE/serve.log" 2>&1 &
daemons+=($!)
for node in demo-1 demo-2; do
  agentd --coordinator "$BATCH_STATE/coordinator.sock" --pool demo --name "$node" --root "$BATCH_STATE/$node" \
    > "$BATCH_STATE/$node.log" 2>&1 &
  daemons+=($!)
done
tries=0
until [ "$(coordinator node list 2> /dev/null | grep -c ' idle ')" -eq 2 ]; do
  tries=$((tries + 1))
  [ "$tries" -lt 300 ] || { echo "the daemons did not come up" >&2; exit 1; }
  sleep 0.1
done

job=$(coordinator submit "$here/prep_release_manual.batch")
echo "Submitted $job"
coordinator job wait --tasks "$job" > /dev/null
echo "All tasks completed."

for node in $(coordinator job nodes "$job" | awk 'NR > 1 { print $1 }'); do
  echo
  echo "Contents of shared/job_prep_and_release.txt on $node:"
  echo "-------------------------------------------"
  coordinator files cat "$node" shared/job_prep_and_release.txt
done

echo
coordinator job terminate "$job"
coordinator job wait "$job" > /dev/null
coordinator job nodes "$job" -o json | python3 -c '
import json, sys

for row in json.load(sys.stdin):
    print()
    print(row["node"] + ":")
    print("  Prep task exit code:   ", row["prep"]["exit_code"])
    print("  Release task exit code:", row["release"]["exit_code"])
'

echo
coordinator job delete "$job" --yes
