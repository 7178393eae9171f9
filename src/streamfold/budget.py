"""`Budget`: how many tokens, and how much money, calls may use together."""

from __future__ import annotations

import math
import threading
from contextvars import ContextVar
from typing import Any, Final, Literal, NamedTuple

from .errors import BudgetExceededError, ConfigurationError

__all__ = ["Budget", "Charge", "Remaining", "budgets_here"]

_here: ContextVar[tuple[Budget, ...]] = ContextVar("streamfold_budgets", default=())


class Remaining(NamedTuple):
    """What is left of a budget, never below 0; None where there is no limit."""

    tokens: int | None
    cost: float | None


#: Sums of prices are off in their last digits: ten times $0.5 may be a trifle more than $5.
_ROUNDING: Final = 1 + 1e-9


class Budget:
    """At most `max_tokens` tokens (input and output) and `max_cost` US dollars, one of them or
    both, for all calls that have this budget: calls of several models, in several threads.

    Give it to a model (``init_chat_model(..., budget=budget)``), to one call in place of the
    model's (``model.invoke("hi", budget=budget)``), or, on top of those, to everything that is
    called in a block, however deep inside (``with budget: ...``).

    It is checked before every request, retries and fallbacks included, by an estimate of the input
    (and, if the answer is not streamed, of `max_tokens`), and while the answer arrives, for which
    answers are streamed under the hood. Once it is passed, the call ends with a
    BudgetExceededError that has what had arrived as `partial`, and no other request is made. So
    the most that can be used beyond it is what arrives in one read, and errors of the estimate:
    four characters are a token until the provider reports.

    Costs are by the models' profiles: with `max_cost`, a model without prices is a
    ConfigurationError before its first request.
    """

    def __init__(self, *, max_tokens: int | None = None, max_cost: float | None = None) -> None:
        if max_tokens is None and max_cost is None:
            raise ConfigurationError("give max_tokens, max_cost, or both")
        for name, value, kind in (("max_tokens", max_tokens, int), ("max_cost", max_cost, float)):
            if value is not None and not _is_limit(value, kind):
                expected = "an int of 1 or more" if kind is int else "US dollars, more than 0"
                raise ConfigurationError(f"{name} is {value!r}: expected {expected}")
        self.max_tokens = max_tokens
        self.max_cost = max_cost
        self._lock = threading.Lock()
        self._tokens = 0
        self._cost = 0.0
        self._cost_known = True

    @property
    def tokens(self) -> int:
        """Tokens used so far; calls under way are in it by estimate."""
        return self._tokens

    @property
    def cost(self) -> float | None:
        """US dollars used so far; None if the price of something is not known."""
        return max(self._cost, 0.0) if self._cost_known else None

    @property
    def remaining(self) -> Remaining:
        """What is left."""
        with self._lock:
            tokens = None if self.max_tokens is None else max(self.max_tokens - self._tokens, 0)
            cost = None if self.max_cost is None else max(self.max_cost - self._cost, 0.0)
            return Remaining(tokens, cost)

    def __enter__(self) -> Budget:
        _here.set((*_here.get(), self))
        return self

    def __exit__(self, *exc_info: object) -> None:
        budgets = list(_here.get())
        budgets.reverse()
        budgets.remove(self)
        _here.set(tuple(reversed(budgets)))

    def __repr__(self) -> str:
        return (
            f"Budget(max_tokens={self.max_tokens}, max_cost={self.max_cost}, "
            f"tokens={self.tokens}, cost={self.cost})"
        )

    def _exceeded(self, tokens: int, cost: float) -> Literal["max_tokens", "max_cost"] | None:
        if self.max_tokens is not None and tokens > self.max_tokens:
            return "max_tokens"
        if self.max_cost is not None and cost > self.max_cost * _ROUNDING:
            return "max_cost"
        return None

    def _error(self, limit: Literal["max_tokens", "max_cost"], text: str) -> BudgetExceededError:
        return BudgetExceededError(
            text, limit=limit, maximum=getattr(self, limit), tokens=self._tokens, cost=self._cost
        )


class Charge:
    """The share of one request in a budget. It begins with an estimate.

    Raises BudgetExceededError if that is more than what is left.
    """

    def __init__(self, budget: Budget, tokens: int, cost: float | None) -> None:
        self._budget = budget
        self._tokens = 0
        self._cost = 0.0
        with budget._lock:
            limit = budget._exceeded(budget._tokens + tokens, budget._cost + (cost or 0.0))
            if limit is not None:
                raise budget._error(limit, _too_much(budget, limit, tokens, cost or 0.0))
            self._add(tokens, cost or 0.0)

    def set(self, tokens: int, cost: float | None) -> None:
        """What the request has used up to now."""
        with self._budget._lock:
            self._add(tokens - self._tokens, (cost or 0.0) - self._cost)

    def close(self, tokens: int, cost: float | None) -> None:
        """What the request has used in all; a cost of None is one that nobody knows."""
        self.set(tokens, cost)
        if cost is None:
            self._budget._cost_known = False

    def check(self) -> None:
        """Raise BudgetExceededError if the budget is passed, by whatever request."""
        budget = self._budget
        with budget._lock:
            limit = budget._exceeded(budget._tokens, budget._cost)
            if limit is not None:
                raise budget._error(limit, _passed(budget, limit))

    def _add(self, tokens: int, cost: float) -> None:
        self._tokens += tokens
        self._cost += cost
        self._budget._tokens += tokens
        self._budget._cost += cost


def budgets_here(own: Budget | None) -> tuple[Budget, ...]:
    """The budgets that a call made here has: its own and those of the blocks around it."""
    around = _here.get()
    if own is None and not around:
        return ()
    found = around if own is None else (*around, own)
    return tuple({id(budget): budget for budget in found}.values())


def _is_limit(value: Any, kind: type) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        return False
    return bool(0 < value < math.inf)


def _too_much(budget: Budget, limit: str, tokens: int, cost: float) -> str:
    if limit == "max_tokens":
        return (
            f"the budget of {budget.max_tokens} tokens does not allow this request: "
            f"{budget._tokens} are used, and it needs at least about {tokens}"
        )
    return (
        f"the budget of ${budget.max_cost:g} does not allow this request: "
        f"${budget._cost:.6g} is used, and it costs at least about ${cost:.6g}"
    )


def _passed(budget: Budget, limit: str) -> str:
    if limit == "max_tokens":
        return f"the budget of {budget.max_tokens} tokens is used up: about {budget._tokens}"
    return f"the budget of ${budget.max_cost:g} is used up: about ${budget._cost:.6g}"
