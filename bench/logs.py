"""How late `logs -f` is: from a line written on the node to the line out of the command, while the cluster is busy.

The floor is `tail -f` of the very file, in the same moments (where the kernel tells it of no change it looks every
5 ms): what this machine makes of a line without a network, a coordinator or an agent.
"""

from __future__ import annotations

import selectors
import subprocess
import time
from pathlib import Path
from statistics import median, quantiles

from bench.cluster import ENVIRONMENT, PATIENCE_S, ROOT, BenchFailed, Cluster, cluster
from bench.measure import BARE, SLOTS, batch_file, line

PROMISE_MS = 200.0
SPOKEN = """edition = 1
job spoken {
  pool = bench
  priority = 1
  task t {
    script = '''
      while :; do
        echo "$EPOCHREALTIME"
        sleep "0.$(printf %03d $((RANDOM % 300)))"
      done
    '''
  }
}
"""
"""Its task says the time at random moments, one every 150 ms in the mean."""


def logs(directory: Path, lines: int, tasks: int) -> None:
    """So many lines, of which each is seen by both, while short tasks run; what does not end in the time is drained."""
    with cluster(directory) as live:
        live.add_agent("bench", "bench-1", SLOTS + 1, BARE)
        live.run("submit", str(batch_file(directory, tasks)))
        (directory / "spoken.batch").write_text(SPOKEN)
        live.run("submit", str(directory / "spoken.batch"))
        late = follow(live, lines)
        ended = live.ask("job", "show", "spawn")["tasks"]["succeeded"]
    print(f"logs -f, from a line's writing to its coming out, {lines} lines; {ended:,} short tasks ran meanwhile")
    for name, each in (("logs -f", late["logs"]), ("floor: tail -f", late["tail"])):
        line(f"{name}, median, ms", f"{1000 * median(each):.1f}")
        line(f"{name}, 95th percentile, ms", f"{1000 * quantiles(each, n=20, method='inclusive')[-1]:.1f}")
        line(f"{name}, worst, ms", f"{1000 * max(each):.1f}")
    kept = sum(1000 * s <= PROMISE_MS for s in late["logs"])
    line(f"logs -f, within {PROMISE_MS:.0f} ms", f"{kept} of {lines}")


def follow(live: Cluster, lines: int) -> dict[str, list[float]]:
    """Seconds that each of the two was behind, for lines that were written once both were there."""
    path = live.directory / "bench-1" / "workitems" / "spoken-1" / "t" / "stdout.txt"
    followers = {
        "logs": live.words("logs", "spoken-1/t", "-f", shape="table"),
        "tail": ["tail", "--lines=+1", "--retry", "--follow=name", "--sleep-interval=0.005", str(path)],
    }
    late: dict[str, list[float]] = {name: [] for name in followers}
    processes = {
        name: subprocess.Popen(words, stdout=subprocess.PIPE, stderr=live.log, cwd=ROOT, env=ENVIRONMENT, bufsize=0)
        for name, words in followers.items()
    }
    try:
        with selectors.DefaultSelector() as waiting:
            for name, process in processes.items():
                assert process.stdout is not None
                waiting.register(process.stdout, selectors.EVENT_READ, name)
            _listen(live, waiting, late, lines)
    finally:
        for process in processes.values():
            process.terminate()
            process.communicate()
    return {name: each[:lines] for name, each in late.items()}


def _listen(live: Cluster, waiting: selectors.BaseSelector, late: dict[str, list[float]], lines: int) -> None:
    here: dict[str, float] = {}
    """When each follower's first line came: what was written before both were there tells nothing."""
    while any(len(each) < lines for each in late.values()):
        ready = waiting.select(PATIENCE_S)
        if not ready:
            raise BenchFailed(f"no line comes:\n{live.tail()}")
        for key, _ in ready:
            said = key.fileobj.read(65_536)  # type: ignore[union-attr]  # a pipe
            came = time.time()
            here.setdefault(key.data, came)
            if not said:
                raise BenchFailed(f"the follower `{key.data}` ended:\n{live.tail()}")
            late[key.data] += [
                came - float(text)
                for text in said.split()
                if len(here) == len(late) and float(text) > max(here.values())
            ]
