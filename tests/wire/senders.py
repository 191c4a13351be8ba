"""Who may send what, written out by hand: the closed table that the code's own is held against."""

from __future__ import annotations

from typing import Final

from wire.messages import Role

_LETTERS: Final = {"n": Role.NODE, "u": Role.USER, "o": Role.OPERATOR, "a": Role.ADMIN, "c": Role.COORDINATOR}

_WRITTEN: Final = {
    # opening and parting
    "Hello": "nuoa",
    "Welcome": "c",
    "Goodbye": "nuoac",
    # certificates
    "AskAuthority": "nuoa",
    "Authority": "c",
    "Enroll": "nuoa",
    "Enrolled": "c",
    "Renew": "nuoa",
    "Renewed": "c",
    # what nodes say
    "Join": "n",
    "Inventory": "n",
    "Heartbeat": "n",
    "Report": "n",
    "Started": "n",
    "PhaseStarted": "n",
    "Recalled": "n",
    "NotHeld": "n",
    "Removed": "n",
    "Leaving": "n",
    "Health": "n",
    "FileContents": "n",
    "FileListing": "n",
    "FileRefused": "n",
    "BlobWanted": "n",
    "TaskOutputs": "n",
    # what nodes are told
    "Joined": "c",
    "JoinRefused": "c",
    "HeartbeatAck": "c",
    "Ack": "c",
    "BodyChunk": "c",
    "BlobPiece": "c",
    "OpenRound": "c",
    "Prepare": "c",
    "Run": "c",
    "Recall": "c",
    "StopTasks": "c",
    "Drop": "c",
    "ReleaseRound": "c",
    "RemoveJob": "c",
    "Depart": "c",
    "ReadFile": "c",
    "ListFiles": "c",
    "OutputsTaken": "c",
    "StartNode": "c",
    # what people ask
    "Upload": "uoa",
    "Submit": "uoa",
    "JobList": "uoa",
    "JobShow": "uoa",
    "JobWait": "uoa",
    "JobTerminate": "uoa",
    "JobDelete": "uoa",
    "JobDisable": "uoa",
    "JobEnable": "uoa",
    "JobSet": "uoa",
    "JobRetry": "uoa",
    "TaskCancel": "uoa",
    "JobNodes": "uoa",
    "TaskList": "uoa",
    "TaskShow": "uoa",
    "Explain": "uoa",
    "NodeList": "uoa",
    "NodeShow": "uoa",
    "NodeDrain": "uoa",
    "NodeEnable": "uoa",
    "NodeForget": "uoa",
    "NodeRetryPrep": "uoa",
    "PoolList": "uoa",
    "PoolShow": "uoa",
    "LogRead": "uoa",
    "FilesRead": "uoa",
    "FilesList": "uoa",
    "EventsRead": "uoa",
    "Overview": "uoa",
    "Top": "uoa",
    "Finish": "a",
    "TokenCreate": "a",
    "TokenList": "a",
    "TokenRevoke": "a",
    "IdentityList": "a",
    "IdentityRevoke": "a",
    "NodeRevoke": "oa",
    # what people are answered
    "Reply": "c",
    "Refused": "c",
}

MAY_SEND: Final = {name: frozenset(_LETTERS[letter] for letter in letters) for name, letters in _WRITTEN.items()}
"""By the message's name. A message that has no row here is a message that nobody has thought about."""
