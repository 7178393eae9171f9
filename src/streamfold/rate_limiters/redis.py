"""One limit for several processes, kept in Redis.

A script in the server, by the server's clock, gives everybody who asks the time of a turn; they
sleep until then and ask no more than once again, which is when they hear of a pause that a provider
has asked for in the meantime. The client is redis-py's sync one, in a thread of each event loop:
so it serves asyncio and trio alike, and asks in the order in which it was asked.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from ..errors import ConfigurationError, ConnectError
from ..net.retry import backoff
from .limiters import check_bucket, check_positive

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["RedisRateLimiter"]

T = TypeVar("T")

log = logging.getLogger("streamfold")

_MICRO: Final = 1_000_000
_GRACE: Final = 0.1  # seconds: whoever comes later than this for a turn gets another one
_KEPT: Final = 60_000  # milliseconds that keys are kept after they have come to mean nothing
_ANSWER_SECONDS: Final = 5.0  # that the server has for each command, where we make the client
_SILENT_SECONDS: Final = 1.0  # that a server which did not answer is taken to be gone
_THREAD: RunVar[anyio.CapacityLimiter] = RunVar("streamfold_redis_thread")

#: All times are whole microseconds of the server's clock. A turn is the time that it is due at.
_TURN: Final = """
local interval, burst, blocking = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local waited, grace, kept = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local state = redis.call('HMGET', KEYS[1], 'full_at', 'held_until')
local full_at = math.max(tonumber(state[1]) or now, now)
local held_until = tonumber(state[2]) or 0

if waited > 0 and held_until <= now and now - waited <= grace then
    return {math.max(waited - now, 0), waited}
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. string.format('%.0f', now))
local freed = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
local turn = tonumber(freed) or math.max(full_at + interval - burst, now, held_until)
if not blocking and turn > now then
    return {turn - now, 0}
end
if freed then
    redis.call('ZREM', KEYS[2], freed)
else
    full_at = full_at + interval
    redis.call('HSET', KEYS[1], 'full_at', string.format('%.0f', full_at))
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', (full_at - now) / 1000 + kept))
end
return {turn - now, turn}
"""
_GIVE: Final = """
redis.call('ZADD', KEYS[2], ARGV[1], ARGV[1])
redis.call('PEXPIREAT', KEYS[2], string.format('%.0f', tonumber(ARGV[1]) / 1000 + ARGV[2]))
"""
_HOLD: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local state = redis.call('HMGET', KEYS[1], 'full_at', 'held_until')
local until_ = math.max(tonumber(state[2]) or 0, now + ARGV[1])
local full_at = math.max(tonumber(state[1]) or 0, until_ + ARGV[2] - ARGV[3])
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'full_at', string.format('%.0f', full_at),
           'held_until', string.format('%.0f', until_))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', (full_at - now) / 1000 + ARGV[4]))
"""


class RedisRateLimiter:
    """At most `requests_per_second` on average, and `max_bucket_size` at once after a rest, by all
    processes together that use the same server, `prefix` and `name` (and the same figures).

    `redis` is a URL (``redis://host:6379/0``) or a `redis.Redis` of your own. First come, first
    served; a turn that somebody gives up while waiting goes to whoever comes next.

    `when_gone`: what to do when the server does not answer: "raise" a ConnectError, or "wait" until
    it is back (within the time limits of the call). Raises ConfigurationError for figures that
    cannot be, without the package (``pip install "streamfold[redis]"``), and for a server that
    refuses the commands.
    """

    def __init__(
        self,
        redis: str | Redis,
        *,
        name: str = "default",
        requests_per_second: float = 1,
        max_bucket_size: float = 1,
        when_gone: Literal["raise", "wait"] = "raise",
        prefix: str = "streamfold:limiter:",
    ) -> None:
        rate = check_positive("requests_per_second", requests_per_second)
        size = check_bucket("max_bucket_size", max_bucket_size)
        if when_gone not in ("raise", "wait"):
            raise ConfigurationError(f"when_gone is {when_gone!r}: expected 'raise' or 'wait'")
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"name is {name!r}: expected a str that is not empty")
        self._client: Any = _client(redis)
        self._waits = when_gone == "wait"
        self._silent_until = -math.inf
        self._interval = math.ceil(_MICRO / rate)  # rounded up: never faster than the rate
        self._burst = int(size * self._interval)
        key = f"{prefix}{{{name}}}"  # the braces keep both keys on one node of a cluster
        self._keys = [key, f"{key}:freed"]
        self._scripts = {s: self._client.register_script(s) for s in (_TURN, _GIVE, _HOLD)}

    def acquire(self, *, blocking: bool = True) -> bool:
        """Wait in this thread for the turn of one request; False at once if not `blocking`."""
        if not blocking:
            return _Visit(self).ask_now()
        visit = _Visit(self)
        try:
            while (pause := visit.ask()) is not None:
                time.sleep(pause)
        except BaseException:
            visit.leave()
            raise
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        """The same in a task. Whoever is cancelled gives the turn back."""
        visit = _Visit(self)
        if not blocking:
            return await _in_thread(visit.ask_now)
        try:
            while (pause := await _in_thread(visit.ask)) is not None:  # noqa: ASYNC110
                await anyio.sleep(pause)
        except BaseException:
            visit.left = True
            if visit.turn:
                with anyio.move_on_after(1, shield=True):
                    await _in_thread(visit.leave)
            raise
        return True

    async def back_off(self, seconds: float) -> None:
        """Nobody's turn, in any process, comes before `seconds` have passed; without Redis, a word
        in the log."""
        args = (math.ceil(seconds * _MICRO), self._burst, self._interval, _KEPT)
        try:
            await _in_thread(lambda: self._call(_HOLD, *args))
        except (ConnectError, ConfigurationError) as error:  # the call has an error of its own
            log.warning("others are not told of a pause of %g s: %s", seconds, error)

    def _call(self, script: str, *args: Any) -> Any:
        """What a script returns. Raises ConnectError if there is no answer."""
        from redis import exceptions

        if time.monotonic() < self._silent_until:  # many wait for this thread: not each so long
            raise self._gone("no answer to others")
        try:
            return self._scripts[script](keys=self._keys, args=args)
        except exceptions.AuthenticationError as error:
            raise ConfigurationError(f"Redis at {self._place} refuses the login: {error}") from None
        except exceptions.TimeoutError:
            self._silent_until = time.monotonic() + _SILENT_SECONDS
            raise self._gone("no answer in time") from None
        except (exceptions.ConnectionError, exceptions.ReadOnlyError) as error:
            raise self._gone(type(error).__name__) from None
        except exceptions.RedisError as error:
            raise ConfigurationError(f"Redis at {self._place} refuses: {error}") from None

    def _gone(self, why: str) -> ConnectError:
        return ConnectError(
            f"the rate limiter has no answer from Redis at {self._place} ({why})", retryable=True
        )

    @property
    def _place(self) -> str:
        """Where the server is, without the password."""
        pool = getattr(self._client, "connection_pool", None)
        options = getattr(pool, "connection_kwargs", {})
        return str(options.get("path") or f"{options.get('host')}:{options.get('port')}")

    def __repr__(self) -> str:
        return f"RedisRateLimiter({self._place!r}, {self._keys[0]!r})"


class _Visit:
    """One request for a turn, from asking to having it."""

    def __init__(self, limiter: RedisRateLimiter) -> None:
        self._limiter = limiter
        self._failures = 0
        self.turn = 0  # the one that is waited for
        self.left = False

    def ask_now(self) -> bool:
        """Whether a turn was there."""
        wait, _ = self._turn(blocking=False)
        return bool(wait == 0)

    def ask(self) -> float | None:
        """Seconds to sleep before asking again; None with a turn that has come."""
        try:
            wait, self.turn = self._turn(blocking=True)
        except ConnectError as error:
            if not self._limiter._waits:
                raise
            if not self._failures:
                log.warning("%s: waiting until it is back", error)
            self._failures += 1
            return backoff(self._failures)
        if self.left:  # while the server was asked
            self.leave()
        return wait / _MICRO if wait > 0 else None

    def leave(self) -> None:
        """Give a turn back that is still to come."""
        if self.turn:
            with suppress(ConnectError, ConfigurationError):
                self._limiter._call(_GIVE, self.turn, _KEPT)

    def _turn(self, *, blocking: bool) -> tuple[int, int]:
        limiter = self._limiter
        told = (int(blocking), self.turn, int(_GRACE * _MICRO), _KEPT)
        wait, turn = limiter._call(_TURN, limiter._interval, limiter._burst, *told)
        return wait, turn


async def _in_thread(function: Callable[[], T]) -> T:
    """In a thread of our own: the loop's other threads may all be waiting for this one."""
    try:
        thread = _THREAD.get()
    except LookupError:
        thread = anyio.CapacityLimiter(1)
        _THREAD.set(thread)
    return await anyio.to_thread.run_sync(function, limiter=thread, abandon_on_cancel=True)


def _client(given: Any) -> Any:
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise ConfigurationError(
            'RedisRateLimiter needs the package redis: pip install "streamfold[redis]"'
        ) from None
    if isinstance(given, redis.Redis | redis.RedisCluster):
        return given
    if not isinstance(given, str):
        raise ConfigurationError(
            f"redis is {type(given).__name__}: expected a URL or a redis.Redis (not the async one)"
        )
    try:
        return redis.Redis.from_url(
            given,
            socket_timeout=_ANSWER_SECONDS,
            socket_connect_timeout=_ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 1),  # for a connection that was closed while it was idle
        )
    except ValueError as error:  # the URL may hold a password, so it is not shown
        raise ConfigurationError(f"redis is not the URL of a server: {error}") from None
