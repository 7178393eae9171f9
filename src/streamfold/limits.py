"""How long to wait and how much to take: `Timeouts` and `Limits`."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from .errors import ConfigurationError

__all__ = ["DEFAULT_LIMITS", "DEFAULT_TIMEOUTS", "Limits", "Timeouts"]

MIB: Final = 1024 * 1024


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Four time limits, in seconds; None means no limit.

    - `connect`: until the connection stands, TLS included;
    - `first_event`: from sending until the first content (for a call that is not streamed, until
      the whole answer);
    - `idle`: between two events with content; comments and pings do not count;
    - `total`: the whole call, retries and their pauses included.

    Raises ConfigurationError for anything that is not a positive number.
    """

    connect: float | None = 5.0
    first_event: float | None = 600.0
    idle: float | None = 300.0
    total: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None:
                _check_seconds(f"Timeouts.{name}", value)

    @classmethod
    def of(cls, value: float | Timeouts | None) -> Timeouts:
        """What `timeout=` means: a number bounds connect, first_event and idle alike."""
        if value is None:
            return DEFAULT_TIMEOUTS
        if isinstance(value, Timeouts):
            return value
        _check_seconds("timeout", value)
        seconds = float(value)
        return cls(connect=min(seconds, 5.0), first_event=seconds, idle=seconds)


def _check_seconds(name: str, value: Any) -> None:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or math.isnan(value) or value <= 0:
        raise ConfigurationError(
            f"{name} is {value!r}: expected seconds greater than 0, or None for no limit"
        )


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The most that is taken from a provider, in bytes (after decompression) and levels.

    Past one, the call ends with a `SizeLimitError` that carries the partial message.
    """

    event_bytes: int = 16 * MIB
    message_bytes: int = 256 * MIB
    error_body_bytes: int = 64 * 1024
    tool_args_bytes: int = 4 * MIB
    json_depth: int = 64

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigurationError(
                    f"Limits.{name} is {value!r}: expected an int of 1 or more"
                )


DEFAULT_TIMEOUTS: Final = Timeouts()
DEFAULT_LIMITS: Final = Limits()
