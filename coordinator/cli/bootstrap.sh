# Makes this machine a node: run by `coordinator pool bootstrap` over ssh, with what it brought along in the directory $1.
# It says what it does in lines on stdout: `step TEXT`, `name NODE`, and in the end `started CHANGED` or `failed CODE TEXT`.
# POOL ADDRESS NAME ROOT PREFIX PYTHON DIGEST NEEDS_KB PIP_ARGS PIP_NAMES come from the file `settings`; a token, if it is
# needed, from the file `join`, and goes on to the agent's stdin.
set -u
umask 077
here=$1
trap 'rm -rf "$here"' EXIT
# Whoever asked may be gone, and nobody read what it says: also then nothing of it stays here, the token least of all.
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM
. "$here/settings"

said="$here/said"
last() { tail -n 1 "$1" 2>/dev/null | cut -c 1-400; }
fail() { printf 'failed %s %s\n' "$1" "$2"; exit 1; }
give_up() {  # CODE: what was said last says why
  if grep -qi 'no space left on device' "$said"; then fail no-space "$(last "$said")"; fi
  fail "$1" "$(last "$said")"
}

# ---- a Python that is new enough

suits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
python=
if [ -n "$PYTHON" ]; then
  suits "$PYTHON" && python=$PYTHON
else
  for found in python3 python3.14 python3.13 python3.12 python3.11; do
    if suits "$found"; then python=$found; break; fi
  done
fi
[ -n "$python" ] || fail no-python "$("${PYTHON:-python3}" --version 2>&1 | tail -n 1 | cut -c 1-200)"

NAME=${NAME:-$("$python" -c 'import platform; print(platform.node())')}
printf 'name %s\n' "$NAME"
if [ "$(id -u)" = 0 ]; then
  PREFIX=${PREFIX:-/opt/poolkeeper}
  ROOT=${ROOT:-/var/lib/poolkeeper-node/$NAME}
else
  PREFIX=${PREFIX:-$HOME/.local/share/poolkeeper}
  ROOT=${ROOT:-${XDG_STATE_HOME:-$HOME/.local/state}/poolkeeper/nodes/$NAME}
fi
mkdir -p "$PREFIX" 2>"$said" || give_up install-failed

# ---- one at a time: who asked before may be gone, and what it began here go on

exec 9>>"$PREFIX/bootstrap.lock"
"$python" - "$PATIENCE" 9>&9 <<'PYTHON' || fail busy "$PREFIX is being set up there already, by an earlier call: try again"
import fcntl, sys, time
until = time.monotonic() + int(sys.argv[1]) / 10
while True:
    try:
        fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
    except BlockingIOError:
        if time.monotonic() > until:
            sys.exit(1)
        time.sleep(0.1)
PYTHON

# ---- Poolkeeper in an environment of its own, named after what is in it

place=$PREFIX/venv-$DIGEST
log=$PREFIX/agentd.log
changed=no
if [ ! -e "$place/complete" ]; then
  free=$(df -Pk "$PREFIX" | awk 'NR == 2 { print $4 }')
  [ "${free:-0}" -ge "$NEEDS_KB" ] || fail no-space "$PREFIX has $free KiB free, of $NEEDS_KB KiB that are needed"
  echo 'step installing'
  rm -rf "$place"
  "$python" -m venv "$place" >"$said" 2>&1 || give_up no-venv
  # PIP_ARGS and PIP_NAMES are lists of words.
  (cd "$here" && PIP_FIND_LINKS="$here/wheels" "$place/bin/python" -m pip install --quiet --disable-pip-version-check \
    --no-input $PIP_ARGS $PIP_NAMES) >"$said" 2>&1 || give_up install-failed
  : >"$place/complete"
  changed=yes
fi

# ---- the agent: one on this root, of this version

held() {  # whether an agent has the root
  "$place/bin/python" - "$ROOT/.agent/lock" <<'PYTHON'
import fcntl, sys
try:
    with open(sys.argv[1]) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except FileNotFoundError:
    sys.exit(1)
except BlockingIOError:
    sys.exit(0)
sys.exit(1)
PYTHON
}
lives() {  # the process that this command started here, if it lives and is still that one
  read -r pid began its_root <"$PREFIX/agentd.pid" 2>/dev/null || return 1
  set -- $(cat "/proc/$pid/stat" 2>/dev/null)
  [ "$#" -ge 22 ] && [ "$3" != Z ] && [ "${22}" = "$began" ]
}
ours() { lives && [ "${its_root:-$ROOT}" = "$ROOT" ]; }

if held; then
  if ours && [ "$(readlink "$PREFIX/current")" != "$place" ]; then
    echo 'step replacing the agent by this version; its tasks go on'
    kill -TERM "$pid"
    tries=0
    while held; do
      tries=$((tries + 1))
      [ "$tries" -le 100 ] || fail busy "the agent of process $pid does not end"
      sleep 0.2
    done
  else
    printf 'started %s\n' "$changed"
    exit 0
  fi
fi

if lives && ! ours; then
  fail busy "the agent of $its_root runs from $PREFIX: give the one of $ROOT another --prefix"
fi

echo 'step starting'
# A log of its own for this agent, in its place before there is an agent: the child opens it, whenever it gets to run.
: >"$log.new"
mv -f "$log.new" "$log"
nohup "$place/bin/agentd" --coordinator "$ADDRESS" --pool "$POOL" --name "$NAME" --root "$ROOT" --join - \
  <"$here/join" >>"$log" 2>&1 9>&- &
pid=$!
printf '%s %s %s\n' "$pid" "$(cut -d ' ' -f 22 "/proc/$pid/stat" 2>/dev/null)" "$ROOT" >"$PREFIX/agentd.pid"
tries=0
settled=0
while [ "$settled" -lt 5 ]; do  # a second after it is ready: what is refused for good is refused by then
  kill -0 "$pid" 2>/dev/null || fail agent-ended "$(last "$log")"
  if grep -q '^agentd: node ' "$log" && [ -e "$ROOT/.agent/identity/certificate.pem" ]; then settled=$((settled + 1)); fi
  tries=$((tries + 1))
  if [ "$tries" -gt "$PATIENCE" ]; then
    # One that was never let in never will be: its token goes with this call. And a next call would leave it in place.
    [ -e "$ROOT/.agent/identity/certificate.pem" ] || { kill -TERM "$pid"; wait "$pid" 2>/dev/null; }
    fail not-joined "$(last "$log")"
  fi
  sleep 0.2
done
ln -sfn "$place" "$PREFIX/current"
for old in "$PREFIX"/venv-*; do
  [ "$old" = "$place" ] || rm -rf "$old"
done
echo 'started yes'
