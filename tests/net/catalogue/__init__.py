"""Every way in which a connection or an answer is known to break, and what comes of it.

A fault is a row: what the server does (`act`), and what the caller must see. Rows are named as in
the fault catalogue (research/reliability.md), whose groups are the modules here.
"""

from . import (
    compression,
    connections,
    frames,
    framing,
    in_stream,
    payload,
    size,
    status,
    tools,
    truncation,
    waiting,
)
from .base import FAULTS, Fault

__all__ = [
    "FAULTS",
    "Fault",
    "compression",
    "connections",
    "frames",
    "framing",
    "in_stream",
    "payload",
    "size",
    "status",
    "tools",
    "truncation",
    "waiting",
]
