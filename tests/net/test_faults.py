"""Every fault of the catalogue in every dialect that it applies to: what comes of it.

The rows are in `catalogue/`; what is judged of every one of them is in `trial.py`.
"""

from __future__ import annotations

import contextlib
import gc
import socket
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from catalogue import FAULTS, Fault
from catalogue.base import MIB, SMALL
from catalogue.connections import FORGED
from catalogue.whole import WHOLE_ROWS
from faults import FaultServer, Wire
from says import DIALECTS, WHOLE, Dialect
from trial import KEY, Outcome, in_loop, no_key_in, timed, trial

from streamfold import Timeouts, init_chat_model
from streamfold.errors import (
    AuthenticationError,
    ConnectError,
    ProviderError,
    RedirectRefusedError,
    RequestTimeoutError,
)

ONCE = {"max_retries": 0}

OURS = ("asyncio", "trio", "sync", "asyncio-aiohttp")
MODES = (*OURS, "asyncio-own", "trio-own")
#: Where a caller's own client takes another way through our code.
OWN = (
    "body-unbounded cut-mid-stream endless finish-then-hang gzip gzip-corrupt http-400-stall ok "
    "redirect-not-a-url stall-before-head stall-mid-stream"
).split()


def is_daily(place: int, fault: Fault, dialect: str, mode: str) -> bool:
    """Whether it always runs: each fault in each dialect once, in modes that take turns; what is
    slow in every third dialect. All else is the matrix."""
    if mode == "asyncio-aiohttp":  # a third of the faults, in dialects that take turns
        in_turn = dialect == fault.dialects[place % len(fault.dialects)]
        return in_turn and place % 3 == 0 and not fault.slow
    if mode.endswith("-own"):
        return dialect == "openai" and fault.name in OWN
    turn = place + fault.dialects.index(dialect)
    if not fault.slow:
        return mode == MODES[turn % 3]
    return (turn % 3 == 0 or len(fault.dialects) == 1) and mode == MODES[turn // 3 % 3]


def rows() -> Iterator[Any]:
    """(fault, dialect, mode) of all rows in all modes."""
    for place, fault in enumerate(FAULTS.values()):
        for dialect in fault.dialects:
            for mode in MODES if fault.any_client else OURS:
                marks = [] if is_daily(place, fault, dialect, mode) else [pytest.mark.matrix]
                name = f"{fault.name}-{dialect}-{mode}"
                yield pytest.param(fault, dialect, mode, marks=marks, id=name)


# A deadline may end a caller's own client while it sends: what it leaves half way is httpx's.
@pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning")
@pytest.mark.usefixtures("quick_retries", "short_grace")
@pytest.mark.parametrize(("fault", "dialect", "mode"), list(rows()))
def test_fault(fault: Fault, dialect: str, mode: str, every_log: pytest.LogCaptureFixture) -> None:
    """Each fault ends as its row says, with what had arrived, and leaves nothing behind."""
    trial(fault, dialect, mode, every_log)


# ---- what a row cannot say -----------------------------------------------------------------------

BACKENDS = pytest.mark.parametrize("mode", ["asyncio", "trio", "sync"])
BOTH = pytest.mark.parametrize("dialect", ["openai", "anthropic"])


@BOTH
@BACKENDS
@pytest.mark.usefixtures("transport")
def test_an_echoed_key_is_nowhere(
    dialect: str, mode: str, every_log: pytest.LogCaptureFixture
) -> None:
    """A 401 that quotes the key in its body and in headers gives it away in no text at all."""

    async def act(wire: Wire, say: Dialect) -> None:
        sent = wire.request.headers.get("authorization") or wire.request.headers["x-api-key"]
        body = say.failure("authentication_error", f"Incorrect API key provided: {sent}. Go away.")
        echo = {"x-echo": sent, "x-request-id": f"req-{KEY}", "www-authenticate": f"Key {KEY}"}
        await wire.reply(401, body, echo)

    fault = Fault(name="", act=act, error=AuthenticationError, text=None, requests=1)
    _, (outcome,) = trial(fault, dialect, mode, every_log)
    assert isinstance(outcome.error, ProviderError)
    assert "Incorrect API key provided: " in str(outcome.error)
    assert outcome.error.request_id == "req-***"
    assert outcome.error.body is not None
    assert "Go away" in outcome.error.body


@BOTH
@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize("shape", ["in-band", "json-200", "text", "html", "redirect", "not-json"])
def test_an_echoed_key_is_nowhere_else_either(
    shape: str, dialect: str, every_log: pytest.LogCaptureFixture
) -> None:
    """Whatever part of an answer quotes the key, no error shows it."""

    async def act(wire: Wire, say: Dialect) -> None:
        if shape == "in-band":
            await wire.head()
            await wire.part(say.error("authentication_error", f"bad key {KEY}"))
        elif shape == "json-200":
            await wire.reply(200, say.failure("authentication_error", f"bad key {KEY}"))
        elif shape == "text":
            await wire.reply(400, f"bad key {KEY}".encode(), kind="text/plain")
        elif shape == "html":
            await wire.reply(200, f"<html>bad key {KEY}</html>".encode(), kind="text/html")
        elif shape == "redirect":
            await wire.reply(302, b"", {"location": f"http://{KEY}.example/{KEY}"})
        else:
            await wire.head()
            await wire.part(f"data: bad key {KEY}\n\n".encode())

    with FaultServer(act, DIALECTS[dialect]) as server:
        fault = Fault(name="", act=act, error=None, text=None, requests=1, model=ONCE)
        (outcome,) = anyio.run(in_loop, fault, server)
        assert outcome.error is not None
        no_key_in([outcome], every_log, with_locals=False)  # they hold the page itself


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize("mode", ["asyncio", "trio", "sync", "asyncio-own"])
def test_a_redirect_reaches_nobody(mode: str, every_log: pytest.LogCaptureFixture) -> None:
    """Neither key nor prompt goes to another origin, and the error names its host."""

    async def never(wire: Wire, say: Dialect) -> None:
        raise AssertionError("a stranger was asked")

    with FaultServer(never, DIALECTS["openai"]) as stranger:

        async def act(wire: Wire, say: Dialect) -> None:
            location = stranger.origin.replace("127.0.0.1", "localhost") + "/v1/chat/completions"
            await wire.reply(307, b"", {"location": location}, kind="")

        fault = Fault(name="", act=act, error=RedirectRefusedError, text=None, requests=1)
        _, (outcome,) = trial(fault, "openai", mode, every_log)
        assert "localhost" in str(outcome.error)
        assert stranger.connections == 0


@BACKENDS
@pytest.mark.usefixtures("transport")
def test_bytes_that_come_between_calls_answer_nothing(mode: str) -> None:
    """What a server sends on an idle connection is not the answer of the next call."""
    say = DIALECTS["openai"]
    forged = say.whole().replace(WHOLE.encode(), b"FORGED")

    async def act(wire: Wire, say: Dialect) -> None:
        await wire.answer(say)
        if wire.number == 1:
            await wire.shown("first call is over")
            await wire.send(FORGED % (len(forged), forged))
            wire.server.add(forgeries=1)
            await wire.hang()

    with FaultServer(act, say) as server:
        model = init_chat_model(say.model, api_key=KEY, base_url=server.url)

        def between() -> None:
            server.show("first call is over")
            server.wait_for(lambda: server.forgeries == 1)

        async def main() -> list[Any]:
            first = await model.ainvoke("hi")
            await anyio.to_thread.run_sync(between)
            return [first, await model.ainvoke("hi")]

        if mode == "sync":
            messages = [model.invoke("hi")]
            between()
            messages.append(model.invoke("hi"))
            model.close()
        else:
            messages = anyio.run(main, backend=mode)
        assert [message.text for message in messages] == [WHOLE, WHOLE]
        assert server.connections == 2


@pytest.mark.usefixtures("quick_retries")
@BACKENDS
@pytest.mark.usefixtures("transport")
def test_nobody_listens(mode: str) -> None:
    """A refused connection is a ConnectError, after the usual three attempts."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        outcome = call_url(url, mode)
    assert type(outcome.error) is ConnectError
    assert outcome.error.retryable
    assert outcome.seconds >= 0.1  # two pauses


@pytest.mark.usefixtures("quick_retries")
@BACKENDS
@pytest.mark.usefixtures("transport")
def test_no_such_host(mode: str) -> None:
    """A name that does not resolve is a ConnectError."""
    outcome = call_url("https://nobody.invalid/v1", mode, timeout=Timeouts(connect=2.0))
    assert type(outcome.error) is ConnectError


@BACKENDS
@pytest.mark.usefixtures("transport")
def test_connecting_takes_too_long(mode: str) -> None:
    """A connection that does not come about within `connect` seconds is a time-out of that name."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # the queue is full: further ones wait for an answer
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        outcome = call_url(url, mode, timeout=Timeouts(connect=0.2), **ONCE)
    assert isinstance(outcome.error, RequestTimeoutError)
    assert (outcome.error.limit, outcome.error.seconds) == ("connect", 0.2)
    assert 0.2 <= outcome.seconds < 0.6


def call_url(url: str, mode: str, **fields: Any) -> Outcome:
    """One call of a model at `url`."""
    model = init_chat_model("openai:gpt-4.1", api_key=KEY, base_url=url, **fields)
    outcome = Outcome()

    async def main() -> None:
        with timed(outcome):
            outcome.message = await model.ainvoke("hi")

    if mode == "sync":
        with timed(outcome):
            outcome.message = model.invoke("hi")
        model.close()
    else:
        anyio.run(main, backend=mode)
    return outcome


# ---- answers that are not streamed ---------------------------------------------------------------


@pytest.mark.usefixtures("quick_retries")
@BOTH
@BACKENDS
@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize("name", list(WHOLE_ROWS))
def test_fault_of_a_whole_answer(
    name: str, mode: str, dialect: str, every_log: pytest.LogCaptureFixture
) -> None:
    """`invoke` reports the faults of an answer that comes in one piece as `stream` does."""
    act, error, requests = WHOLE_ROWS[name]
    retries = {"max_retries": requests - 1} if name == "drip" else {}
    say = DIALECTS[dialect]
    with FaultServer(act, say) as server:
        timeout = Timeouts(first_event=0.25 if name == "drip" else 5.0)
        given: Any = {"api_key": KEY, "base_url": server.url, "limits": SMALL, "timeout": timeout}
        model = init_chat_model(say.model, **given, **retries)
        outcome = Outcome()

        async def main() -> None:
            with anyio.fail_after(10), timed(outcome):
                outcome.message = await model.ainvoke("hi")
            await anyio.to_thread.run_sync(gc.collect)

        if mode == "sync":
            with timed(outcome):
                outcome.message = model.invoke("hi")
            model.close()
        else:
            anyio.run(main, backend=mode)
        server.wait_open(0)
        assert type(outcome.error) is (error or type(None))
        if error is None:
            assert outcome.message.text == WHOLE
        assert len(server.requests) == requests
        assert server.bytes_sent < 16 * MIB
        no_key_in([outcome], every_log)
