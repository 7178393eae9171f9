"""Counts the work of this process: user instructions, or CPU time where the kernel refuses.

Instructions executed in user space repeat within one or two per cent on a busy machine, where CPU
time moves by 40 % and wall time means nothing. They do not see what the kernel does, so a table
shows CPU time next to them.

Open the counter first thing in a process: threads and child processes started later are counted
too (`inherit`), those already running are not. It counts from then on; take `read()` before and
after the measured region. A child process is complete in the figure once it has been waited for.
"""

import ctypes
import os
import platform
import resource
import struct
import sys
import time

INSTRUCTIONS = "instructions"
CPU = "cpu_us"

_SYSCALL = {"x86_64": 298, "aarch64": 241}  # perf_event_open
_TYPE_HARDWARE, _HW_INSTRUCTIONS = 0, 1
_INHERIT, _EXCLUDE_KERNEL, _EXCLUDE_HV = 1 << 1, 1 << 5, 1 << 6
_TIME_ENABLED, _TIME_RUNNING = 1, 2
_CLOSE_ON_EXEC = 8
_THIS_PROCESS, _ANY_CPU, _NO_GROUP = 0, -1, -1


class _Attr(ctypes.Structure):
    """`struct perf_event_attr` in its first, 64-byte version."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_events", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("bp_addr", ctypes.c_uint64),
    )


class Counter:
    """A running count; `unit` says of what, `why` why it is not of instructions."""

    def __init__(self) -> None:
        self.why = ""
        try:
            self._fd = _open()
            self._instructions()
        except OSError as error:
            self._fd = -1
            self.why = str(error)
        self.unit = CPU if self.why else INSTRUCTIONS

    def read(self) -> float:
        """Instructions, or microseconds of CPU, since some moment in the past."""
        return cpu_us() if self.why else self._instructions()

    def _instructions(self) -> float:
        count, enabled, running = struct.unpack("QQQ", os.read(self._fd, 24))
        if not running:
            raise OSError("the instruction counter does not run on this machine")
        # Less than 1 only where more counters are in use than the CPU has.
        return float(count * enabled / running)


def cpu_us() -> float:
    """CPU time of this process and of the children waited for, in microseconds."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() * 1e6 + (children.ru_utime + children.ru_stime) * 1e6


def describe(unit: str, why: str = "") -> str:
    """One line for the head of a report."""
    if unit == INSTRUCTIONS:
        return "counted: user instructions (perf_event_open)"
    return f"counted: CPU time, because instructions cannot be counted here ({why})"


def _open() -> int:
    number = _SYSCALL.get(platform.machine())
    if not sys.platform.startswith("linux") or number is None:
        raise OSError("not Linux on x86-64 or arm64")
    attr = _Attr(
        type=_TYPE_HARDWARE,
        size=ctypes.sizeof(_Attr),
        config=_HW_INSTRUCTIONS,
        read_format=_TIME_ENABLED | _TIME_RUNNING,
        flags=_INHERIT | _EXCLUDE_KERNEL | _EXCLUDE_HV,
    )
    libc = ctypes.CDLL(None, use_errno=True)
    where = (_THIS_PROCESS, _ANY_CPU, _NO_GROUP)
    descriptor: int = libc.syscall(number, ctypes.byref(attr), *where, _CLOSE_ON_EXEC)
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"perf_event_open: {os.strerror(code)}")
    return descriptor


if __name__ == "__main__":
    _counter = Counter()
    print(describe(_counter.unit, _counter.why))
