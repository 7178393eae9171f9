"""What the requests of a call are measured by: the model's limiter, and budgets.

Each request is a turn: estimated and waited for before it is sent, counted while its answer
arrives, and put right when it is over, however it ends.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from .budget import Budget, Charge
from .chunks import AIMessageChunk, TextChunk, fold_events
from .deltas import MessageEnd, ReasoningDelta, TextDelta, ToolCallDelta, UsageReport
from .errors import (
    BudgetExceededError,
    ConfigurationError,
    ConnectError,
    ProviderError,
    RateLimitError,
    StreamfoldError,
)
from .history import count_tokens_approximately
from .net.retry import MAX_SERVER_PAUSE, backoff
from .usage import UsageMetadata, make_usage
from .wire.request import ChatRequest

__all__ = ["CallMeter"]

_CHARACTERS: Final = 4  # that are taken for a token
#: After these nothing was used, if nothing had come: no request was sent, or it was turned down.
_UNUSED: Final = (ConfigurationError, BudgetExceededError, ProviderError, ConnectError)

#: US dollars for a message, or for usage; None if not known.
Price = Callable[[Any], float | None]


class CallMeter:
    """Makes the turns of one call. `limiter` is a `RateLimiter` or None; `price` is asked only
    where there are `budgets`, of which one may be limited in money: raises ConfigurationError if
    the model's prices are not known then.
    """

    def __init__(
        self, limiter: Any, budgets: Sequence[Budget], request: ChatRequest, price: Price
    ) -> None:
        self.limiter = limiter
        self.budgets = budgets
        self.price = price
        self.reserve = getattr(limiter, "reserve", None)
        self.settle = getattr(limiter, "settle", None)
        self.observe = getattr(limiter, "observe", None)
        self.counts = bool(budgets) or self.settle is not None
        self.max_tokens = request.max_tokens
        self._streams = request.stream
        self.input_tokens = 0
        if budgets or self.reserve is not None:
            self.input_tokens = _input_tokens(request)
        if any(budget.max_cost is not None for budget in budgets):
            self._check_prices(request.model)

    async def turn(self) -> _Turn:
        """Wait for the turn of a request. Raises BudgetExceededError if no budget is left, and
        RateLimitError if the limiter refuses."""
        charges = self._charges()
        try:
            reservation = await self._wait()
        except BaseException:
            for charge in charges:
                charge.close(0, 0.0)
            raise
        return _Turn(self, charges, reservation)

    def cost(self, usage: UsageMetadata) -> float | None:
        """What `usage` costs; details that have no price of their own count as any other token."""
        cost = self.price(usage)
        if cost is None:
            cost = self.price(make_usage(usage.get("input_tokens"), usage.get("output_tokens")))
        return cost

    def _charges(self) -> list[Charge]:
        # What cannot be stopped on the way must be there beforehand.
        answer = 0 if self._streams else self.max_tokens or 0
        usage = make_usage(self.input_tokens, answer)
        charges: list[Charge] = []
        try:
            for budget in self.budgets:
                cost = None if budget.max_cost is None else self.cost(usage)
                charges.append(Charge(budget, usage.get("total_tokens", 0), cost))
        except BudgetExceededError:
            for charge in charges:
                charge.close(0, 0.0)
            raise
        return charges

    async def _wait(self) -> Any:
        if self.reserve is not None:
            return await self.reserve(self.input_tokens, self.max_tokens)
        if self.limiter is not None and await self.limiter.aacquire(blocking=True) is False:
            raise RateLimitError("the model's rate_limiter refuses the request")
        return None

    def _check_prices(self, model: str) -> None:
        if self.cost(make_usage(1, 1)) is None:
            raise ConfigurationError(
                f"a budget has max_cost, but the prices of {model!r} are not known: give "
                "profile={'input_price': ..., 'output_price': ...}, in US dollars per million "
                "tokens"
            )


class _Turn:
    """One request."""

    def __init__(self, meter: CallMeter, charges: Sequence[Charge], reservation: Any) -> None:
        self._meter = meter
        self._charges = charges
        self._reservation = reservation
        self._tally = _Tally(meter.input_tokens)
        self._prices = any(budget.max_cost is not None for budget in meter.budgets)

    def answered(self, headers: Mapping[str, str]) -> None:
        if self._meter.observe is not None:
            self._meter.observe(headers)

    def heard(self, batch: Sequence[AIMessageChunk]) -> None:
        if self._meter.counts:
            self._tally.add(batch)

    def check(self) -> None:
        if not self._charges:
            return
        usage = self._tally.usage(whole=False)
        cost = self._meter.cost(usage) if self._prices else None
        for charge in self._charges:
            charge.set(usage.get("total_tokens", 0), cost)
        for charge in self._charges:
            charge.check()

    async def refused(self, error: StreamfoldError) -> None:
        """After 429, all who share the limiter pause: as long as the vendor asks, else a moment."""
        back_off = getattr(self._meter.limiter, "back_off", None)
        if back_off is None or not isinstance(error, RateLimitError):
            return
        asked = error.retry_after
        if asked is None and error.retryable:
            asked = backoff(0)
        if asked is not None and asked <= MAX_SERVER_PAUSE:
            done = back_off(asked)
            if inspect.isawaitable(done):
                await done

    def over(self, error: StreamfoldError | None, *, whole: bool) -> None:
        if not self._meter.counts:
            return
        if isinstance(error, _UNUSED) and not self._tally.chunks:
            self._close(0, 0.0)
        else:
            usage = self._tally.usage(whole=whole)
            self._close(usage.get("total_tokens", 0), self._final_cost(usage))

    def _close(self, tokens: int, cost: float | None) -> None:
        for charge in self._charges:
            charge.close(tokens, cost)
        if self._meter.settle is not None:
            self._meter.settle(self._reservation, tokens)

    def _final_cost(self, usage: UsageMetadata) -> float | None:
        """By the message, which names the model and service tier that answered; where they have no
        price, by its tokens alone."""
        if not self._charges:
            return None
        events = [event for chunk in self._tally.chunks for event in chunk.events]
        message = fold_events([*events, UsageReport(usage, mode="final")]).to_message()
        cost = self._meter.price(message)
        return self._meter.cost(usage) if cost is None else cost


class _Tally:
    """What an answer has used so far: as reported, and as estimated where that says less."""

    def __init__(self, input_tokens: int) -> None:
        self._input = input_tokens
        self._characters = 0
        self._reports = fold_events(())
        self._ended = False
        self.chunks: list[AIMessageChunk] = []

    def add(self, batch: Sequence[AIMessageChunk]) -> None:
        self.chunks.extend(batch)
        for chunk in batch:
            if chunk.__class__ is TextChunk:
                self._characters += len(chunk.text)
                continue
            reports = []
            for event in chunk.events:
                if isinstance(event, TextDelta | ReasoningDelta):
                    self._characters += len(event.text)
                elif isinstance(event, ToolCallDelta):
                    self._characters += len(event.args)
                elif isinstance(event, UsageReport):
                    reports.append(event)
                elif isinstance(event, MessageEnd):
                    self._ended = True
            if reports:
                self._reports = self._reports + fold_events(reports)

    def usage(self, *, whole: bool) -> UsageMetadata:
        """`whole`: the answer has come to its end, so what was reported is right."""
        reported = self._reports.usage_metadata
        if (whole or self._ended) and reported is not None:
            return reported
        output = math.ceil(self._characters / _CHARACTERS)
        if reported is None:
            return make_usage(self._input, output)
        into, out = reported.get("input_tokens", 0), reported.get("output_tokens", 0)
        return {**reported, **make_usage(into or self._input, max(out, output))}


def _input_tokens(request: ChatRequest) -> int:
    """The tokens of messages, tools and schema, estimated."""
    told = [part for part in (request.tools, request.response_format) if part]
    characters = len(msgspec.json.encode(told, enc_hook=str)) if told else 0
    messages = count_tokens_approximately(request.messages)
    return messages + math.ceil(characters / _CHARACTERS)
