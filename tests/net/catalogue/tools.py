"""Tool calls as servers write them. Damaged arguments are never a call that can be run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faults import Wire
from says import Dialect

from .base import ANTHROPIC, OPENAI, PIECEWISE, send_all, works

WEATHER = ("get_weather", {"city": "Zürich", "days": 3})
TIME = ("get_time", {"tz": "UTC"})
ARGS = '{"city": "Zürich", "days": 3}'
FRAGMENTS = ('{"city"', ': "Zü', "rich", '", "days"', ": 3}")

Check = Callable[[Any], None]


def calls(*wanted: tuple[str, dict[str, Any]]) -> Check:
    """These calls, all valid, each with an id of its own."""

    def check(message: Any) -> None:
        assert [(call["name"], call["args"]) for call in message.tool_calls] == list(wanted)
        assert message.invalid_tool_calls == []
        ids = [call["id"] for call in message.tool_calls]
        assert all(ids)
        assert len(set(ids)) == len(ids)

    return check


def invalid(args: str, name: str = "get_weather") -> Check:
    """One call that is not valid, with its raw text and why."""

    def check(message: Any) -> None:
        assert message.tool_calls == []
        (call,) = message.invalid_tool_calls
        assert (call["name"], call["args"]) == (name, args)
        assert call["error"]

    return check


def _called(name: str, check: Check, make: Callable[[Any], list[bytes]], **row: Any) -> None:
    """A row: an answer of the tool call frames that `make` gives."""

    async def act(wire: Wire, say: Dialect) -> None:
        ending = say.ending(row.get("reason", "tool_calls"))
        await send_all(wire, [*make(say), *ending, say.marker()])

    fields = {key: value for key, value in row.items() if key != "reason"}
    says = {"finish_reason": row.get("finish", "tool_calls")}
    fields.pop("finish", None)
    works(name, "", says=says, check=check, **{"dialects": OPENAI, **fields})(act)


def _call(say: Any, *pieces: Any) -> bytes:
    """A chunk of these entries of `tool_calls`."""
    return say.chunk({"tool_calls": list(pieces)})


def _piece(args: Any = None, name: str | None = None, **place: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": args}
    return {**place, "function": {k: v for k, v in function.items() if v is not None}}


_called(
    "tool-plain",
    calls(WEATHER),
    lambda say: [*say.tool_start(), *map(say.tool_delta, FRAGMENTS)],
    dialects=PIECEWISE,
)
_called(
    "tool-one-chunk",
    calls(WEATHER),
    lambda say: [_call(say, _piece(ARGS, "get_weather", index=0, id="call_1"))],
)
_called(
    "tool-parallel",
    calls(WEATHER, TIME),
    lambda say: [
        _call(
            say, _piece("", "get_weather", index=0, id="a"), _piece("", "get_time", index=1, id="b")
        ),
        _call(say, _piece('{"city": "Zü', index=0)),
        _call(say, _piece('{"tz"', index=1)),
        _call(say, _piece('rich", "days": 3}', index=0), _piece(': "UTC"}', index=1)),
    ],
)
_called(
    "tool-no-id",
    calls(WEATHER),
    lambda say: [
        _call(say, _piece("", "get_weather", index=0)),
        *map(say.tool_delta, FRAGMENTS),
    ],
)
_called(
    "tool-empty-id",
    calls(WEATHER),
    lambda say: [
        *say.tool_start(),
        *(_call(say, _piece(piece, "", index=0, id="")) for piece in FRAGMENTS),
    ],
)
_called(
    "tool-no-index",
    calls(WEATHER, TIME),
    lambda say: [
        _call(say, _piece(ARGS, "get_weather", id="a")),
        _call(say, _piece('{"tz": "UTC"}', "get_time", id="b")),
    ],
)
_called(
    "tool-no-index-fragments",
    calls(WEATHER),
    lambda say: [
        _call(say, _piece("", "get_weather", id="a")),
        *(_call(say, _piece(piece)) for piece in FRAGMENTS),
    ],
)
_called(
    "tool-same-index",
    calls(WEATHER, TIME),
    lambda say: [
        _call(say, _piece(ARGS, "get_weather", index=0, id="a")),
        _call(say, _piece('{"tz": "UTC"}', "get_time", index=0, id="b")),
    ],
)
_called(
    "tool-index-gap",
    calls(WEATHER, TIME),
    lambda say: [
        _call(say, _piece(ARGS, "get_weather", index=1, id="a")),
        _call(say, _piece('{"tz": "UTC"}', "get_time", index=5, id="b")),
    ],
)
_called(
    "tool-repeated-id",
    calls(WEATHER),
    lambda say: [_call(say, _piece(p, "get_weather", index=0, id="a")) for p in ("", *FRAGMENTS)],
)
_called(
    "tool-stop-reason",
    calls(WEATHER),
    lambda say: [*say.tool_start(), say.tool_delta(ARGS)],
    reason="stop",
    finish="stop",
    dialects=OPENAI + ANTHROPIC,
)
_called(
    "tool-odd-name",
    invalid(ARGS, "../rm\x07 -rf"),
    lambda say: [_call(say, _piece(ARGS, "../rm\x07 -rf", index=0, id="a"))],
)
_called(
    "tool-object-args",
    calls(WEATHER),
    lambda say: [_call(say, _piece(dict(WEATHER[1]), "get_weather", index=0, id="a"))],
)
_called(
    "tool-empty-args",
    calls(("get_weather", {})),
    lambda say: [*say.tool_start(), say.tool_delta("")],
    dialects=PIECEWISE,
)
for _name, _args in {
    "bad-json": '{"city": Zürich}',
    "nan-args": '{"city": "Zürich", "days": NaN}',
    "array-args": '["Zürich", 3]',
    "two-objects": ARGS + ARGS,
    "cut-args": ARGS[:-8],
}.items():
    _called(
        f"tool-{_name}",
        invalid(_args),
        lambda say, args=_args: [*say.tool_start(), say.tool_delta(args)],  # type: ignore[misc]
        dialects=PIECEWISE,
    )


def _blocks(name: str, check: Check, make: Callable[[Any], list[bytes]], stops: int = 0) -> None:
    """A row: an answer of Anthropic's `tool_use` blocks."""

    async def act(wire: Wire, say: Any) -> None:
        ended = [say.stop(index) for index in range(stops)]
        frames = [say.message_start(), *make(say), *ended, say.finish("tool_use"), say.marker()]
        await send_all(wire, frames)

    works(name, "", says={"finish_reason": "tool_calls"}, check=check, dialects=ANTHROPIC)(act)


_blocks(
    "block-plain",
    calls(WEATHER),
    lambda say: [
        say.tool(0, "toolu_1", "get_weather"),
        *(say.tool_delta(piece) for piece in ("", *FRAGMENTS, "")),
    ],
    1,
)
_blocks(
    "block-interleaved",
    calls(WEATHER, TIME),
    lambda say: [
        say.tool(0, "toolu_1", "get_weather"),
        say.tool(1, "toolu_2", "get_time"),
        say.tool_delta('{"city": "Zü', 0),
        say.tool_delta('{"tz"', 1),
        say.tool_delta('rich", "days": 3}', 0),
        say.tool_delta(': "UTC"}', 1),
    ],
    2,
)
_blocks(
    "block-empty-args", calls(("get_weather", {})), lambda say: [say.tool(0, "a", "get_weather")], 1
)
_blocks(
    "block-bad-json",
    invalid('{"city": Zürich}'),
    lambda say: [say.tool(0, "a", "get_weather"), say.tool_delta('{"city": Zürich}')],
    1,
)
