"""Every limit of the wire in one place, free of imports so that short commands can read it."""

from __future__ import annotations

from typing import Final

MAX_OPENING_FRAME: Final = 4 * 1024
"""Bytes of a frame's body before the handshake is done."""
MAX_FRAME: Final = 1024 * 1024
"""Bytes of a frame's body afterwards."""
MAX_CHUNK: Final = 256 * 1024
"""Bytes of content in one chunk: BodyChunk, BlobPiece, FileContents, Upload, LogRead."""
MAX_ITEMS: Final = 131_072
"""Elements of one array or map in a frame."""
MAX_CONTAINERS: Final = 50_000
"""Arrays and maps in one frame, all together: 1 MiB of empty lists would else become 70 MiB."""
MAX_DOCUMENT: Final = 32 * 1024 * 1024
"""Bytes of an uploaded document."""
MAX_DOCUMENT_ITEMS: Final = 4_194_304
MAX_DOCUMENT_CONTAINERS: Final = 1_500_000
MAX_HELD_PER_OWNER: Final = 4 * MAX_DOCUMENT
"""Bytes of blobs one submitter may have lying here."""
MAX_QUEUED: Final = 2 * MAX_DOCUMENT
"""Bytes waiting to be sent to one peer; beyond, it is a slow reader and is cut. A job's body goes to a node at once."""
MAX_QUEUED_REPLIES: Final = 16 * MAX_FRAME
"""As MAX_QUEUED, to a person."""
MAX_AHEAD: Final = MAX_FRAME
"""While more waits for a person nothing further of it is read: it is to take its answers first."""

MAX_TLS_HANDSHAKE: Final = 64 * 1024
"""Bytes that a peer may send before its TLS handshake is done: two certificates need less than four thousand."""

CONNECT_S: Final = 10.0
"""For a name to be resolved and a TCP connection to be made."""
HANDSHAKE_S: Final = 5.0
"""For a peer's TLS handshake, and again for its greeting."""
QUEUE_S: Final = 20.0
"""For a connection to wait until it is its turn for that."""
WELCOME_S: Final = 30.0
"""So long the side that opens waits for each of the two: where a thousand come at once it may be a while."""
ENROLL_S: Final = 30.0
"""For a certificate to be signed: the coordinator has to make it durable first."""
FRAME_S: Final = 10.0
"""From the first byte of a frame to its last."""
SEND_S: Final = 30.0
"""For one write to be taken by the peer."""
GOODBYE_S: Final = 2.0
"""For the last frames to leave before a connection is closed regardless."""
MAX_UNGREETED: Final = 128
"""Connections that have not finished their handshake, at one gate; one address has a quarter of them at most."""
MAX_QUEUE: Final = 4096
"""Connections that wait for such a place, for `QUEUE_S` at most."""
CHANCE_S: Final = 1.0
"""So long nobody loses his place, however many wait."""
