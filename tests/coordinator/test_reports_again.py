"""Reports that come again, and reports under numbers that were used before: a disk that went back in time loses nothing
that is still awaited, and nothing counts twice."""

from __future__ import annotations

from coordinator.records import ReportTaken
from tests.coordinator.playbook import Play, job, phase_end, prep, release, tasks
from wire import messages as m

POOL = {"name": "p", "slots": 2}


def test_a_report_that_comes_again_is_acked_and_leaves_no_row() -> None:
    play = Play()
    node = play.node("n0")
    play.submit(job("j", tasks(size=2), preparation=prep()), pools=[POOL])
    node.prepared("j-1")
    node.end("j-1")
    rows = len(play.kept_of(ReportTaken))
    for report in (m.Report(1, [], [phase_end("j-1", 1, m.Phase.PREPARATION, True)]), m.Report(2, [], [])):
        node.say(report)
    assert len(play.kept_of(ReportTaken)) == rows
    assert node.heard(m.Ack)[-2:] == [m.Ack(1), m.Ack(2)]


def test_f36_what_a_copy_of_a_node_reports_under_numbers_that_the_first_has_used_counts() -> None:
    play = Play()
    node = play.node("n0")
    job_id = play.submit(job("j", tasks(size=6), release=release()), pools=[POOL])
    for _ in range(4):
        node.end(job_id)
    assert node.number == 4
    node.number = 0  # the disk of the copy knows nothing of them
    node.end(job_id)
    node.end(job_id)
    assert play.show(job_id)["tasks"]["succeeded"] == 6
    node.released(job_id)
    assert play.show(job_id)["state"] == "completed"
    assert [row["state"] for row in play.admin.ask(m.JobNodes, job_id)] == ["released"]
