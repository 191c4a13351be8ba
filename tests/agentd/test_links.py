"""Keepers as the agent sees them, where no process is needed; with keepers that run: tests/e2e/test_links.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from agentd.boot import boot_identity
from agentd.containment import Containment
from agentd.events import Event, ForgetKeeper
from agentd.files import NodeFiles
from agentd.links import Links
from agentd.spawn import Starter
from wire.log import daemon_log

PATIENCE_S = 20.0


def starter_with_what_stays(files: NodeFiles) -> tuple[Starter, Path]:
    """The record of keeper k1 can't be removed; what is noted of k2 can."""
    boot = boot_identity()
    starter = Starter(files.agent_directory, boot, Containment(files.root, boot, None), idle_exit_s=5.0)
    Path(starter.record_file("k1")).mkdir(parents=True)  # as good as any other reason
    noted = Path(files.agent_directory) / "proofs" / "k2"
    noted.parent.mkdir()
    noted.write_text("")
    return starter, noted


async def test_files_of_a_dead_keeper_that_the_disk_will_not_remove_do_not_end_the_agent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = NodeFiles(str(tmp_path / "root"))
    starter, noted = starter_with_what_stays(files)
    send, _ = trio.open_memory_channel[Event](10)
    links = Links(starter, files.agent_directory, files.workitems, boot_identity(), send.send, daemon_log("test"))
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(links.run)
            for name in ("k1", "k2"):
                links.order(ForgetKeeper(name))
            said = ""
            while noted.exists() or "k1" not in said:
                await trio.lowlevel.checkpoint()
                said += capsys.readouterr().err
            links.leave()
    assert "files of a dead keeper" in said
