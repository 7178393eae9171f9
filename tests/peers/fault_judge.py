"""Whether a client was right in a fault: the same rule for all.

Right is the whole message where it can be had, and where it cannot an error of the client's own
hierarchy. Never right are: an answer that is silently short or another one, an exception of some
other package, a call that takes longer than 7 s or reads on past 64 MiB of an endless answer, more
requests than two retries explain, a retry that comes before the server asked for it, the key in any
text (str, repr, args, traceback, log). Whether the text so far can be had from the error, and
whether the pickled error holds the key, is counted beside it.

What is expected is the row of the catalogue, read with these allowances, so that nobody is measured
by what is our policy only:

- Of an error nothing counts but its hierarchy. It may come after any number of attempts up to
  three, where the row allows more than one.
- Who has the whole answer is right, also where an error is expected. `MAY_FAIL`: an error of
  one's own is right, too. `MORE_REQUESTS`: so are retries, or redirects that are followed.
- `NOT_CHECKED`: the text counts, what else the row checks does not.
- Reuse of connections, how long a pause lasts beyond what the server asked for, headers that are
  sent, and the words of errors are not judged. Nor are finish reasons in Responses, which has none.
- Arguments that a client hands out as text are read here, strictly, and missing ids of calls are
  made up: both are the caller's to do.
- `LEFT_OUT`, for all: rows about what only streamfold can be told, about speed, or open to doubt.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from catalogue import FAULTS, Fault
from catalogue.base import SMALL
from catalogue.whole import WHOLE_ROWS
from faults import Wire
from says import WHOLE, Dialect

from streamfold.errors import AuthenticationError, RedirectRefusedError

__all__ = ["ENOUGH", "LEFT_OUT", "STRANGER", "Attempt", "Verdict", "judge", "rows"]

ENOUGH = 64 << 20  # bytes: who has read these will read for ever
ATTEMPTS = 3
#: The host whose credentials are none of the server's business; the same server listens there.
STRANGER = "localhost"

LEFT_OUT = {
    "endless": "a total limit",
    "total-covers-retries": "a total limit",
    "retry-after-past-the-deadline": "a total limit",
    "retry-after-61": "the longest pause that is waited for: ours is 60 s",
    "many-deltas": "what chunks cost, which the benchmark says",
    "event-10-mib": "how fast the machine is, where half a second is the limit",
    "two-spaces": "whether a blank before [DONE] belongs to it: nobody says",
}
MAY_FAIL = frozenset(
    """big-int done-missing done-without-finish error-before-content-once error-first-once
    finish-then-cut finish-then-drip finish-then-hang gzip-empty-pieces
    gzip-json-whole-200 index-as-string json-whole-200 json-whole-200-no-type
    junk-after-length lone-surrogate nan no-type no-type-comments-first not-an-object nul-raw
    retry-after-inf retry-after-overflow tool-object-args two-framings whole-no-type
    whole-streamed-all-the-same wrong-type""".split()
)
_FOLLOWED = ATTEMPTS * 21  # httpx follows 20
MORE_REQUESTS = {
    "ended-twice": ATTEMPTS,
    "http-429-quota": ATTEMPTS,
    "retry-after-huge": ATTEMPTS,
    **{name: _FOLLOWED for name in FAULTS if name.startswith("redirect-")},
    "redirect-other-origin": _FOLLOWED,
}
NOT_CHECKED = frozenset({"reasoning", "tool-odd-name"})
#: One name for what vendors call differently.
FINISH = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length"}

# ---- the rows ------------------------------------------------------------------------------------


async def _echo(wire: Wire, say: Dialect) -> None:
    """A 401 that quotes the key in its body and in a header."""
    sent = wire.request.headers.get("authorization") or wire.request.headers["x-api-key"]
    body = say.failure("authentication_error", f"Incorrect API key provided: {sent}.")
    await wire.reply(401, body, {"x-echo": sent})


async def _redirect(wire: Wire, say: Dialect) -> None:
    """A 307 to another origin, where nothing is found."""
    if wire.request.headers["host"].startswith(STRANGER):
        await wire.reply(404, say.failure("not_found_error"))
        return
    target = wire.server.origin.replace("127.0.0.1", STRANGER) + wire.request.path
    await wire.reply(307, b"", {"location": target}, kind="")


def rows(mode: str) -> list[Fault]:
    """What is judged in a mode: the catalogue for streams, that of whole answers for these."""
    if mode.endswith("whole"):
        return [_whole_row(name) for name in WHOLE_ROWS]
    more: dict[str, Any] = {"text": None, "requests": 1}
    echo = Fault(name="http-401-echo", act=_echo, error=AuthenticationError, **more)
    away = Fault(name="redirect-other-origin", act=_redirect, error=RedirectRefusedError, **more)
    return [*(row for name, row in FAULTS.items() if name not in LEFT_OUT), echo, away]


def _whole_row(name: str) -> Fault:
    act, error, requests = WHOLE_ROWS[name]
    came: dict[str, Any] = {"text": None}
    if error is None:
        came = {"text": WHOLE, "says": {"finish_reason": "stop"}}
    fixed: dict[str, Any] = {"requests": requests, "model": {"limits": SMALL}}
    return Fault(name=f"whole-{name}", act=act, error=error, **came, **fixed)


# ---- the rule ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What came of a row: `calls` as fault_process.py tells them, and what the server saw. `pause`:
    seconds between the first two requests; `leaked`: the key was sent to a stranger."""

    calls: list[dict[str, Any]]
    requests: int
    hung: bool = False
    pause: float | None = None
    leaked: bool = False


@dataclass(frozen=True)
class Verdict:
    """`kind` is one of right, silent loss, hang, foreign, other. `kept`: whether the text so far
    could be had from the error; None where no error followed a text."""

    kind: str
    why: str = ""
    key_in_text: bool = False
    key_in_pickle: bool = False
    kept: bool | None = None

    @property
    def right(self) -> bool:
        return self.kind == "right"


def judge(fault: Fault, dialect: str, attempt: Attempt) -> Verdict:
    errors = [call["error"] for call in attempt.calls if call["error"]]
    broken = [call for call in attempt.calls if call["error"] and call["text"]]
    found = _first_wrong(fault, dialect, attempt)
    in_text = attempt.leaked or any(
        call["key_in_log"] or (call["error"] or {}).get("key_in_text") for call in attempt.calls
    )
    if found.right and in_text:
        found = Verdict("other", "the key is in a text, or was sent to a stranger")
    return replace(
        found,
        key_in_text=in_text,
        key_in_pickle=any(error["key_in_pickle"] for error in errors),
        kept=all(call["error"]["kept"] for call in broken) if broken else None,
    )


def _first_wrong(fault: Fault, dialect: str, attempt: Attempt) -> Verdict:
    if attempt.hung:
        return Verdict("hang")
    for call in attempt.calls:
        found = _of_call(fault, dialect, call)
        if not found.right:
            return found
    failed = any(call["error"] for call in attempt.calls)
    least, most = _requests(fault, failed)
    if not least <= attempt.requests <= most:
        return Verdict("other", f"{attempt.requests} requests, expected {least} to {most}")
    if fault.pause and attempt.pause is not None and attempt.pause < fault.pause[0] - 0.02:
        return Verdict("other", f"again after {attempt.pause:.2f} s, asked for {fault.pause[0]}")
    return Verdict("right")


def _requests(fault: Fault, failed: bool) -> tuple[int, int]:
    least, most = fault.requests if isinstance(fault.requests, tuple) else (fault.requests,) * 2
    if failed:
        least, most = 1, 1 if most == 1 else max(most, ATTEMPTS)
    return least, MORE_REQUESTS.get(fault.name, most)


def _of_call(fault: Fault, dialect: str, call: dict[str, Any]) -> Verdict:
    error = call["error"]
    if error and not error["own"]:
        return Verdict("foreign", error["type"])
    if error and fault.error is None:
        had = "finish-then" not in fault.name or call["text"] == fault.text
        if fault.name in MAY_FAIL and had:
            return Verdict("right", error["type"])
        return Verdict("other", f"{error['type']} for an answer that can be had")
    if error:
        return Verdict("right", error["type"])
    if fault.error is not None:
        whole = call["text"] == WHOLE
        return Verdict("right" if whole else "silent loss", "no error")
    return _of_message(fault, dialect, call)


def _of_message(fault: Fault, dialect: str, call: dict[str, Any]) -> Verdict:
    wanted, text = fault.text or "", call["text"]
    if text != wanted:
        short = len(text) < len(wanted)
        return Verdict("silent loss" if short else "other", f"text {text[:60]!r}")
    reason = fault.says.get("finish_reason")
    finish = FINISH.get(call["finish"], call["finish"])
    if "finish_reason" in fault.says and dialect != "responses" and finish != reason:
        return Verdict("other", f"finish reason {finish!r}, expected {reason!r}")
    if fault.check is not None and fault.name not in NOT_CHECKED:
        message = _message(call)
        try:
            fault.check(message)
        except (AssertionError, ValueError, TypeError):
            return Verdict("other", f"{vars(message)}")
    return Verdict("right")


def _message(call: dict[str, Any]) -> SimpleNamespace:
    """What a call said, in the form that the checks of the catalogue read."""
    calls: list[dict[str, Any]] = []
    invalid: list[dict[str, Any]] = []
    for number, made in enumerate(call["calls"]):
        args = _arguments(made["args"])
        entry = {"name": made["name"], "args": args, "id": made["id"] or f"made-up-{number}"}
        (calls if isinstance(args, dict) else invalid).append(entry)
    invalid += call["invalid"]
    return SimpleNamespace(
        text=call["text"],
        tool_calls=calls,
        invalid_tool_calls=[{**entry, "error": entry.get("error") or "said"} for entry in invalid],
        usage_metadata=call["usage"],
    )


def _arguments(args: Any) -> dict[str, Any] | str:
    """One strict JSON object, or the text of what is none. Nothing at all is no arguments."""
    if isinstance(args, dict):
        return args
    if not isinstance(args, str):
        return json.dumps(args, ensure_ascii=False)
    try:
        value = json.loads(args or "{}", parse_constant=_refused)
    except ValueError:
        return args
    return value if isinstance(value, dict) else args


def _refused(constant: str) -> Any:
    raise ValueError(f"JSON has no {constant}")
