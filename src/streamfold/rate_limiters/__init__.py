"""Rate limiters: how often a model may be asked. ``init_chat_model(..., rate_limiter=limiter)``.

`InMemoryRateLimiter` counts requests, `TokenRateLimiter` requests and tokens, `RedisRateLimiter`
the requests of several processes together. One limiter may be shared by models, threads, tasks and
event loops; `RateLimiter` says what a limiter of your own must have.
"""

from .limiters import InMemoryRateLimiter, RateLimiter, TokenRateLimiter
from .redis import RedisRateLimiter

__all__ = ["InMemoryRateLimiter", "RateLimiter", "RedisRateLimiter", "TokenRateLimiter"]
