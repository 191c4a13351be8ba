"""The node's core: decides what runs where and when on this node, from typed events. Pure.

    core = AgentCore(NodeConfig(...))
    for record in log: core.apply(record)
    core.restarted(now)                     once, also on an empty log; asks for the survey of journalled keepers
    core.handle(event, now) -> None         any of agentd.events.Event
    core.take_ready() -> Ready
    core.next_deadline() -> Instant | None

It says Join by itself at Connected, once the survey is over (every SurveyKeeper answered by a hello or KeeperDead).
"""

from __future__ import annotations
