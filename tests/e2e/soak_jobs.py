"""What the jobs of the soak do: each finds out by itself whether something came too early, too late or twice, and
writes that down among the violations.

Names in capitals with a `$` are the soak's, and are written out before a file is submitted: LOG takes violations,
STARTED every start of an attempt, LOCKS holds what only one may hold at a time, MARKS what a task leaves for others.
"""

from __future__ import annotations

from pathlib import Path

START_MARK = "started-by-the-pool"
"""In the shared directory of a node whose start has run."""

POOL = f"""
pool p {{
  slots = 4  lost_after = 4s
  start {{ retries = 20  script = '''
    test -e "$BATCH_NODE_SHARED_DIR/{START_MARK}" || echo started > "$BATCH_NODE_SHARED_DIR/{START_MARK}"
    setsid sleep 3000 < /dev/null > /dev/null 2>&1 &
  ''' }}
}}
"""

BESIDE = "beside.csv"
BESIDE_TEXT = "tenor,rate\n" * 2000

_BEGIN = f"""
  umask 0; exec 9>> "$LOCKS/$BATCH_JOB_ID.$BATCH_TASK_ID"
  flock -n 9 || echo "$BATCH_JOB_ID/$BATCH_TASK_ID: two attempts at once, $BATCH_ATTEMPT is the later" >> $LOG
  echo "$BATCH_JOB_ID $BATCH_TASK_ID $BATCH_ATTEMPT" >> $STARTED
  test -e "$BATCH_NODE_SHARED_DIR/{START_MARK}" || echo "$BATCH_JOB_ID/$BATCH_TASK_ID before the start" >> $LOG
"""
"""Of every task. The lock goes with the last process that has it open."""

_PREP = """
  prep { retries = 20  script = '''
    echo open > "$BATCH_NODE_SHARED_DIR/$BATCH_JOB_ID"
  ''' }
"""
_PREPARED = """
  test -e "$BATCH_NODE_SHARED_DIR/$BATCH_JOB_ID" || echo "$BATCH_JOB_ID/$BATCH_TASK_ID $WHEN" >> $LOG
"""
_RELEASE = """
  release { retries = 20  script = '''
    rm -f "$BATCH_NODE_SHARED_DIR/$BATCH_JOB_ID"
  ''' }
"""

_BODIES: dict[str, str] = {
    "plain": """
      $PREP
      task t for i in 1..8 { retries = 2  keep = 0s  script = '''
        $BEGIN
        $UNPREPARED
        sleep $PACE
        $RELEASED
      ''' }
      task last { after = t  keep = 0s  run = ["true"] }
      $RELEASE
    """,
    "bare": """
      task t for i in 1..6 { keep = 0s  script = '''
        $BEGIN
      ''' }
    """,
    "failing": """
      task t for i in 1..4 { retries = 1  keep = 0s  script = '''
        $BEGIN
        echo "this one fails: $i"
        sleep $PACE
        exit $((i % 2 * 3))
      ''' }
      task after_all { after = t  keep = 0s  run = ["true"] }
    """,
    "daemons": """
      prep { retries = 20  script = '''
        setsid sleep 3000 < /dev/null > /dev/null 2>&1 &
      ''' }
      task t for i in 1..4 { retries = 3  keep = 0s  script = '''
        $BEGIN
        setsid sleep 3000 < /dev/null > /dev/null 2>&1 &
        sleep $PACE
      ''' }
    """,
    "slow": """
      task t for i in 1..2 { timeout = 700ms  keep = 0s  script = '''
        $BEGIN
        sleep $i
      ''' }
    """,
    "branches": """
      task t for i in 1..4 { retries = 1  keep = 0s  script = '''
        $BEGIN
        : >> "$MARKS/$BATCH_JOB_ID.$i"
        sleep $PACE
        exit $((i % 2))
      ''' }
      task o { optional = true  keep = 0s  run = ["false"] }
      task each for i in 1..4 { after = [t[i], o]  keep = 0s  script = '''
        $BEGIN
        test -e "$MARKS/$BATCH_JOB_ID.$i" || echo "$BATCH_JOB_ID/$BATCH_TASK_ID before what it waits for" >> $LOG
      ''' }
      task all { after = [t.done, each.done]  keep = 0s  run = ["true"] }
      task alarm { after = t.failed  keep = 0s  script = '''
        $BEGIN
        ls "$MARKS" | grep -q "^$BATCH_JOB_ID[.]" || echo "$BATCH_JOB_ID/alarm before anything" >> $LOG
      ''' }
    """,
    "arms": """
      task t for i in 0..5 { retries = 1  keep = 0s  timeout = 5s  script = '''
        $BEGIN
        sleep $PACE
        case $i in
          0) exit 3 ;;
          1) exit 75 ;;
          2) test "$BATCH_ATTEMPT" -gt 1 || exit 75 ;;
          3) exit 64 ;;
          4) test "$BATCH_ATTEMPT" -gt 1 || sleep 60 ;;
          5) exit 9 ;;
        esac
        '''
        exit {
          3       => succeed
          75      => retry(times = 2, backoff = 50ms..500ms, elsewhere = true)
          64      => fail
          timeout => retry(times = 1)
        }
      }
    """,
    "stopping": """
      $PREP
      task t for i in 1..6 { keep = 0s  script = '''
        $BEGIN
        $UNPREPARED
        test "$i" != 3 || exit 64
        sleep $PACE
        '''
        exit { 64 => stop }
      }
      $RELEASE
    """,
    "needing": """
      task t for i in 1..4 { retries = 2  keep = 0s
        needs { gpus = 1  cpus = 0.1 }
        script = '''
          $BEGIN
          exec 8>> "$LOCKS/gpu.$BATCH_NODE_ID.$CUDA_VISIBLE_DEVICES"
          flock -n 8 || echo "$BATCH_JOB_ID/$BATCH_TASK_ID: GPU $CUDA_VISIBLE_DEVICES is another's" >> $LOG
          sleep $PACE
        '''
      }
      task there { keep = 0s
        needs { licence = 1  labels = ["zone=b"] }
        script = '''
          $BEGIN
          test "$BATCH_NODE_ID" = n2 || echo "$BATCH_JOB_ID/there is on $BATCH_NODE_ID" >> $LOG
        '''
      }
    """,
    "files": """
      prep { retries = 20
        file "in/beside.csv" { from = "beside.csv" }
        script = 'test "$(wc -l < in/beside.csv)" = 2000'
      }
      task t for i in 1..3 { retries = 1  keep = 0s
        file "note" { text = "${i} of ${task.id}\\n" }
        file "curve.csv" { from = "beside.csv"  mode = "0600" }
        script = '''
          $BEGIN
          test "$(cat note)" = "$i of $BATCH_TASK_ID" || echo "$BATCH_JOB_ID/$BATCH_TASK_ID: $(cat note)" >> $LOG
          test "$(wc -l < curve.csv)" = 2000 || echo "$BATCH_JOB_ID/$BATCH_TASK_ID: a file is cut off" >> $LOG
        '''
      }
    """,
    "barring": """
      prep { script = 'test $((RANDOM % 3)) != 0' }
      task t for i in 1..3 { keep = 1s  script = '''
        $BEGIN
        sleep $PACE
      ''' }
    """,
    "kept": """
      $PREP
      task t for i in 1..4 { retries = 1  keep = 2s  script = '''
        $BEGIN
        $UNPREPARED
        echo "$i" > result
        sleep $PACE
        $RELEASED
      ''' }
      $RELEASE
    """,
}

KINDS = tuple(_BODIES)


def text_of(kind: str, directory: Path, *, priority: int, pace_s: float) -> str:
    """The file of a job of this kind, for a soak in `directory`. `pace_s`: how long most of its tasks take."""
    text = _BODIES[kind].replace("$PACE", f"{pace_s:g}")
    for name, part in (
        ("PREP", _PREP),
        ("RELEASE", _RELEASE),
        ("BEGIN", _BEGIN),
        ("UNPREPARED", _PREPARED.replace("$WHEN", "unprepared")),
        ("RELEASED", _PREPARED.replace("$WHEN", "outlived its preparation")),
    ):
        text = text.replace(f"${name}\n", part.strip() + "\n")
    for name, path in PLACES.items():
        text = text.replace(f"${name}", str(directory / path))
    return f"{POOL}\njob {kind} {{\n pool = p  priority = {priority}  release_grace = 2m\n{text}\n}}\n"


PLACES = {"LOG": "violations", "STARTED": "started", "LOCKS": "locks", "MARKS": "marks"}
"""What lies where in a soak's directory."""
