"""Every message that crosses a connection, one type each, and who may send it.

A frame is `[epoch, sequence, message]` (see `wire.connection`): frames of one session arrive in order or the session
ends, so all recovery lives in one place, the reconciliation after a join:

    agent        Join ->                      coordinator
                 <- Joined
                 Report* ->                   what was durable here and not acked yet
                 Inventory+ ->                what is held here; the last one has `last`
                 <- Drop, OpenRound, Prepare, Release ...    whatever differs from the coordinator's ledger

Until the last Inventory was taken a node is `joining` and gets no work. A grant the ledger holds and the inventory
does not is gone: its tasks are lost there and go elsewhere under a new attempt number, which is never used twice.
"""

from __future__ import annotations

from typing import Final

from wire.opening import *
from wire.orders import *
from wire.requests import *
from wire.vocabulary import *

FromNode = (
    Join | Inventory | Heartbeat | Report | Started | PhaseStarted | Recalled | NotHeld | Removed | Leaving
    | Health | FileContents | FileListing | FileRefused | BlobWanted
    | TaskOutputs
    | ShellOpened | ShellOutput | ShellWritten | ShellEnded
)  # fmt: skip
Enrolling = AskAuthority | Authority | Enroll | Enrolled
Renewal = Renew | Renewed
ToNode = (
    Joined | JoinRefused | HeartbeatAck | Ack | BodyChunk | OpenRound | Prepare | Run | Recall | Drop | ReleaseRound
    | RemoveJob | Depart | ReadFile | ListFiles | BlobPiece
    | StopTasks | StartNode
    | OutputsTaken
    | OpenShell | ShellInput | ShellSize | ShellTaken | CloseShell
)  # fmt: skip
FromClient = (
    Upload | Submit | JobList | JobShow | JobWait | JobTerminate | JobDelete | JobNodes | TaskList | TaskShow
    | NodeDrain | NodeEnable | NodeForget | NodeRetryPrep
    | Explain | NodeList | NodeShow | PoolList | PoolShow | LogRead | FilesRead | FilesList | Overview
    | EventsRead | Finish | Top
    | TokenCreate | TokenList | TokenRevoke | IdentityList | IdentityRevoke | NodeRevoke
    | JobDisable | JobEnable | JobSet | JobRetry | TaskCancel
    | ShellOpen | ShellRead | ShellWrite | ShellResize | ShellClose
)  # fmt: skip
ToClient = Reply | Refused
Opening = Hello | Welcome | Goodbye
AnyMessage = FromNode | ToNode | FromClient | ToClient | Opening | Enrolling | Renewal

_NODE: Final = frozenset({Role.NODE})
_PEOPLE: Final = frozenset({Role.USER, Role.OPERATOR, Role.ADMIN})
_OPERATORS: Final = frozenset({Role.OPERATOR, Role.ADMIN})
_ADMIN: Final = frozenset({Role.ADMIN})
_COORDINATOR: Final = frozenset({Role.COORDINATOR})
_ANYONE: Final = frozenset(Role)

SENDERS: Final[dict[type[Message], frozenset[Role]]] = {
    **dict.fromkeys(FromNode.__args__, _NODE),
    **dict.fromkeys(ToNode.__args__, _COORDINATOR),
    **dict.fromkeys(FromClient.__args__, _PEOPLE),
    **dict.fromkeys(ToClient.__args__, _COORDINATOR),
    **dict.fromkeys((Finish, TokenCreate, TokenList, TokenRevoke, IdentityList, IdentityRevoke), _ADMIN),
    NodeRevoke: _OPERATORS,
    **dict.fromkeys((AskAuthority, Enroll, Renew), _ANYONE - _COORDINATOR),
    **dict.fromkeys((Authority, Enrolled, Renewed), _COORDINATOR),
    Hello: _ANYONE - _COORDINATOR,
    Welcome: _COORDINATOR,
    Goodbye: _ANYONE,
}
"""The closed table of who may send what; `wire.connection` refuses the rest (tests go through every pair)."""
