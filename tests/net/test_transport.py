"""One call over the network: what is sent, how it is left, what it never leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from faults import Act, FaultServer, Wire
from says import DIALECTS, HALF, PIECES, WHOLE, Dialect, half, whole

from streamfold import Timeouts, init_chat_model
from streamfold.errors import (
    ConfigurationError,
    OverloadedError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from streamfold.net import retry

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("transport")]

SAY = DIALECTS["openai"]
KEY = "canary-0123456789"


async def fine(wire: Wire, say: Dialect) -> None:
    await wire.answer(say)


async def stalled(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts(half(say))
    await wire.hang()


async def endless(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts(half(say))
    while True:
        await wire.part(say.delta("."))
        await wire.pause(0.01)


async def silent(wire: Wire, say: Dialect) -> None:
    await wire.hang()


async def busy(wire: Wire, say: Dialect) -> None:
    await wire.reply(503, say.failure("server_error"))


@contextlib.contextmanager
def serving(act: Act, say: Dialect = SAY) -> Iterator[FaultServer]:
    with FaultServer(act, say) as server:
        yield server


def model_at(server: FaultServer, **fields: Any) -> Any:
    return init_chat_model(server.say.model, **{"api_key": KEY, "base_url": server.url, **fields})


async def soon(server: FaultServer, open: int = 0, seconds: float = 0.5) -> None:
    """Wait until so many connections are open, as the server sees it."""
    await anyio.to_thread.run_sync(server.wait_open, open, seconds)


async def no_more_tasks(than: int) -> None:
    """What was told to end gets a few turns of the loop for it."""
    for _ in range(50):
        if tasks() <= than:
            return
        await anyio.lowlevel.checkpoint()
    assert tasks() <= than


def tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        import trio

        return trio.lowlevel.current_statistics().tasks_living


# ---- the request ---------------------------------------------------------------------------------


class TestRequest:
    @pytest.mark.parametrize("dialect", ["openai", "anthropic"])
    async def test_what_is_sent(self, dialect: str) -> None:
        """One POST of JSON to the dialect's path, with the key in the dialect's header alone."""
        with serving(fine, DIALECTS[dialect]) as server:
            async for _ in model_at(server).astream("hi"):
                pass
            (asked,) = server.requests
        paths = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
        keys = {"openai": ("authorization", f"Bearer {KEY}"), "anthropic": ("x-api-key", KEY)}
        assert (asked.method, asked.path) == ("POST", paths[dialect])
        assert asked.headers["content-type"] == "application/json"
        assert asked.headers["accept"] == "text/event-stream"
        assert asked.headers["accept-encoding"] == "identity"
        assert [item for item in asked.headers.items() if KEY in item[1]] == [keys[dialect]]
        assert asked.json()["stream"] is True

    async def test_headers_and_query_of_the_caller(self) -> None:
        """They go along with every request, and none of ours is sent twice for their sake."""
        headers = {"X-Team": "blue", "ACCEPT": "everything", "Authorization": "Bearer other"}
        with serving(fine) as server:
            model = model_at(server, default_headers=headers, default_query={"v": "1 2"})
            await model.ainvoke("hi")
            (asked,) = server.requests
        assert asked.headers["x-team"] == "blue"
        assert asked.headers["accept"] == "everything"
        assert asked.headers["authorization"] == f"Bearer {KEY}"
        assert asked.path in ("/v1/chat/completions?v=1%202", "/v1/chat/completions?v=1+2")

    @pytest.mark.parametrize(
        "headers",
        [{"x-a": f"{KEY}\r\nx-b: 1"}, {"x-a": f"é{KEY}"}, {"x a": "1"}, {"": "1"}, {"x-a": "\0"}],
    )
    async def test_headers_that_cannot_be_sent(self, headers: dict[str, str]) -> None:
        """They are an error when the model is made, which does not show the value."""
        with serving(fine) as server:
            with pytest.raises(ConfigurationError, match="default_headers") as caught:
                model_at(server, default_headers=headers)
            assert KEY not in str(caught.value)
            assert server.requests == []

    async def test_keys_in_headers_are_secrets_too(self) -> None:
        """A key that the caller sends in a header of his own is in no repr and no error."""

        async def act(wire: Wire, say: Dialect) -> None:
            await wire.reply(400, wire.request.headers["x-gateway-key"].encode())

        with serving(act) as server:
            model = model_at(server, default_headers={"X-Gateway-Key": "canary-of-the-gateway"})
            assert "canary-of" not in repr(model)
            with pytest.raises(Exception, match=r"\*\*\*") as caught:
                await model.ainvoke("hi")
        assert "canary-of" not in str(caught.value) + repr(vars(caught.value))

    @pytest.mark.usefixtures("quick_retries")
    async def test_one_idempotency_key_for_each_call(self) -> None:
        """All attempts of a call have the same, another call has another; the caller's own wins."""

        async def act(wire: Wire, say: Dialect) -> None:
            await (busy if wire.number % 2 else fine)(wire, say)

        with serving(act) as server:
            model = model_at(server)
            for _ in range(2):
                await model.ainvoke("hi")
            await model_at(server, default_headers={"Idempotency-Key": "mine"}).ainvoke("hi")
            keys = [asked.headers["idempotency-key"] for asked in server.requests]
        assert keys[0] == keys[1] != keys[2] == keys[3]
        assert keys[4:] == ["mine", "mine"]
        assert len(keys[0]) > 30

    @pytest.mark.usefixtures("quick_retries")
    async def test_a_host_that_fails_every_call_is_not_asked_three_times_as_often(self) -> None:
        """Retries to a host share a budget: once it is used up, a call is one request."""
        with serving(busy) as server:
            model = model_at(server)
            asked = []
            for _ in range(20):
                before = len(server.requests)
                with pytest.raises(OverloadedError):
                    await model.with_config(tags=["x"]).ainvoke("hi")
                asked.append(len(server.requests) - before)
        assert asked == [3] * 17 + [2, 1, 1]

    @pytest.mark.usefixtures("quick_retries")
    async def test_a_fresh_token_for_each_attempt(self) -> None:
        """A callable key is asked again before a retry; a token may have run out meanwhile."""
        tokens = iter(["token-one", "token-two"])

        async def act(wire: Wire, say: Dialect) -> None:
            await (busy if wire.number == 1 else fine)(wire, say)

        with serving(act) as server:
            model = model_at(server, api_key=lambda: next(tokens))
            assert (await model.ainvoke("hi")).text == WHOLE
            sent = [asked.headers["authorization"] for asked in server.requests]
        assert sent == ["Bearer token-one", "Bearer token-two"]

    async def test_a_key_that_fails(self) -> None:
        """What a callable key raises is the caller's own error, before any request."""

        async def broken() -> str:
            raise LookupError("the vault is closed")

        with serving(fine) as server:
            with pytest.raises(LookupError, match="vault"):
                await model_at(server, api_key=broken).ainvoke("hi")
            assert server.requests == []

    @pytest.mark.parametrize("waiting_for", ["token", "limiter"])
    async def test_the_total_covers_what_comes_before_the_request(self, waiting_for: str) -> None:
        """A token or a rate limiter that takes too long runs into the deadline of the call."""

        async def never() -> str:
            await anyio.sleep_forever()
            return ""

        class Limiter:
            async def aacquire(self, *, blocking: bool = True) -> bool:
                return bool(await never())

            def acquire(self, *, blocking: bool = True) -> bool:
                raise AssertionError("the sync method is for sync callers")

        slow = {"api_key": never} if waiting_for == "token" else {"rate_limiter": Limiter()}
        with serving(fine) as server:
            model = model_at(server, timeout=Timeouts(total=0.2), **slow)
            begin = time.monotonic()
            with pytest.raises(RequestTimeoutError) as caught:
                await model.ainvoke("hi")
            assert 0.2 <= time.monotonic() - begin < 0.5
            assert caught.value.limit == "total"
            assert server.connections == 0


# ---- connections ---------------------------------------------------------------------------------


async def test_one_connection_for_a_thousand_words() -> None:
    """Streams one after the other share a connection, also after a pause."""
    with serving(fine) as server:
        model = model_at(server)
        for _ in range(5):
            async for _ in model.astream("hi"):
                pass
            await anyio.sleep(0.06)  # longer than the drain of an answer waits
        assert len(server.requests) == 5
        assert server.connections == 1


async def test_as_many_connections_as_streams_at_once() -> None:
    """Streams at once have a connection each; afterwards they are all reused."""
    together = 0

    async def act(wire: Wire, say: Dialect) -> None:
        nonlocal together
        await wire.head()
        together += 1
        while together < 20:
            await wire.pause(0.005)
        await wire.parts(whole(say))
        await wire.end()

    with serving(act) as server:
        model = model_at(server)
        for _ in range(2):
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(model.ainvoke, "hi")
        assert server.connections == 20
        assert len(server.requests) == 40


# ---- leaving early -------------------------------------------------------------------------------


class TestLeaving:
    @pytest.mark.parametrize(
        ("act", "arrived"),
        [(silent, 0), (stalled, 400), (endless, 400)],
        ids=["before-head", "mid-stream", "while-it-flows"],
    )
    @pytest.mark.parametrize("method", ["ainvoke", "astream"])
    async def test_cancel(self, act: Act, arrived: int, method: str) -> None:
        """A cancelled call closes its connection at once, wherever it waits."""
        with serving(act) as server:
            model, before = model_at(server), tasks()

            async def call() -> None:
                if method == "ainvoke":
                    await model.ainvoke("hi")
                else:
                    async for _ in model.astream("hi"):
                        pass

            def under_way() -> bool:
                return len(server.requests) == 1 and server.bytes_sent >= arrived

            async with anyio.create_task_group() as group:
                group.start_soon(call)
                await anyio.to_thread.run_sync(server.wait_for, under_way)
                group.cancel_scope.cancel()
            await soon(server)
            assert len(server.left) == 1
            await no_more_tasks(before)

    async def test_cancel_in_the_pause_before_a_retry(self, monkeypatch: Any) -> None:
        """A call that waits for its next attempt is left at once, and makes none."""
        monkeypatch.setattr(retry, "_SHORTEST", 30.0)
        monkeypatch.setattr(retry, "_LONGEST", 30.0)
        with serving(busy) as server:
            model = model_at(server)
            async with anyio.create_task_group() as group:
                group.start_soon(model.ainvoke, "hi")
                await anyio.to_thread.run_sync(server.wait_for, lambda: server.bytes_sent > 0)
                await soon(server, 1)
                group.cancel_scope.cancel()
            assert len(server.requests) == 1

    async def test_a_deadline_of_the_caller(self) -> None:
        """A cancel scope with a deadline, around the whole of it, is obeyed."""
        with serving(stalled) as server:
            texts = []
            with anyio.move_on_after(0.2) as scope:
                async for chunk in model_at(server).astream("hi"):
                    texts.append(chunk.text)
            assert scope.cancelled_caught
            assert "".join(texts) == HALF
            await soon(server)

    @pytest.mark.parametrize("kept", [False, True])
    async def test_break(self, kept: bool) -> None:
        """Breaking out of the loop closes the connection, also of a stream kept in a variable."""
        with serving(endless) as server, no_trio_warning():
            model, before = model_at(server), tasks()
            streams = []

            def stream() -> Any:
                made = model.astream("hi")
                if kept:
                    streams.append(made)
                return made

            async for _ in stream():
                break
            await soon(server)
            await no_more_tasks(before)
            for made in streams:
                with pytest.raises(StreamInterruptedError, match="left in the middle"):
                    await anext(made)
                with pytest.raises(StreamInterruptedError, match="left in the middle"):
                    async for _ in made:
                        pass
                await made.aclose()

    async def test_an_error_in_the_loop(self) -> None:
        """An exception of the consumer closes the connection too."""
        with serving(endless) as server, no_trio_warning():
            model = model_at(server)

            async def consume() -> None:
                async for _ in model.astream("hi"):
                    raise LookupError("enough")

            with pytest.raises(LookupError, match="enough"):
                await consume()
            gc.collect()  # the traceback held the loop
            await soon(server)

    async def test_aclose(self) -> None:
        """`aclose` closes the connection before it returns; nothing more comes."""
        with serving(endless) as server:
            stream = model_at(server).astream("hi")
            first = await anext(stream)
            assert first.text == PIECES[0]
            await stream.aclose()
            await soon(server)
            assert [chunk async for chunk in stream] == []
            await stream.aclose()

    async def test_async_with(self) -> None:
        """As a context manager the stream is closed at the end of the block, and not before."""
        with serving(endless) as server:
            async with model_at(server).astream("hi") as stream:
                texts = []
                for _ in range(2):
                    async for chunk in stream:
                        texts.append(chunk.text)
                        break
                assert texts == [*PIECES[:2]]
                assert server.open_connections == 1
            await soon(server)
            assert [chunk async for chunk in stream] == []

    async def test_peeking(self) -> None:
        """The first chunk may be taken by hand, and the rest in a loop."""
        with serving(fine) as server:
            stream = model_at(server).astream("hi")
            first = await anext(stream)
            text = first.text + "".join([chunk.text async for chunk in stream])
            assert text == WHOLE
            assert [chunk async for chunk in stream] == []
            with pytest.raises(StopAsyncIteration):
                await anext(stream)

    async def test_dropped(self) -> None:
        """A stream that is forgotten half way is closed when it is collected."""
        with serving(endless) as server, no_trio_warning():
            stream = model_at(server).astream("hi")
            await anext(stream)
            with pytest.warns(ResourceWarning, match="never closed"):
                del stream
            await soon(server)

    async def test_never_begun(self) -> None:
        """A stream that nobody reads asks for nothing."""
        with serving(endless) as server:
            stream = model_at(server).astream("hi")
            del stream
            await model_at(server).astream("hi").aclose()
            assert server.connections == 0

    async def test_a_consumer_that_will_not_go(self) -> None:
        """A generator around ours that yields while it is closed does not keep it open."""
        with serving(endless) as server, no_trio_warning():
            model = model_at(server)

            async def consumer() -> AsyncIterator[str]:
                try:
                    async for chunk in model.astream("hi"):
                        yield chunk.text
                finally:
                    yield "one more thing"

            wrapped: Any = consumer()
            await anext(wrapped)
            with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
                await wrapped.aclose()
            del wrapped
            gc.collect()
            await soon(server)

    async def test_many_times(self) -> None:
        """Streams left at once, again and again, leave the model as good as new (catalogue L3)."""
        with serving(endless) as server:
            model, before = model_at(server), tasks()
            for _ in range(5):
                async with anyio.create_task_group() as group:
                    for _ in range(10):
                        group.start_soon(read_three, model, group.cancel_scope)
                await soon(server, seconds=1.0)
            await no_more_tasks(before)
            assert len(server.requests) == 50

    async def test_twenty_refusals_at_once(self) -> None:
        """Answers that nobody reads to the end of a stream keep no task (catalogue L5)."""
        with serving(busy) as server:
            model, before = model_at(server, max_retries=0), tasks()

            async def call() -> None:
                with pytest.raises(OverloadedError):
                    await model.ainvoke("hi")

            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(call)
            await no_more_tasks(before)
            await model.aclose()
            await soon(server)


async def read_three(model: Any, scope: anyio.CancelScope) -> None:
    seen = 0
    async for _ in model.astream("hi"):
        seen += 1
        if seen == 3:
            scope.cancel()


@contextlib.contextmanager
def no_trio_warning() -> Iterator[None]:
    """trio warns of every generator that is left to the garbage collector, even if all is well."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Async generator .* was garbage collected")
        yield
        gc.collect()


# ---- torture: cancelled at every step ------------------------------------------------------------


async def cancelled_after(steps: int, call: Callable[[], Any]) -> None:
    """Run `call` for so many turns of the loop, then cancel it."""
    async with anyio.create_task_group() as group:

        async def run() -> None:
            await call()
            group.cancel_scope.cancel()

        group.start_soon(run)
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()


STEPS = [
    pytest.param(range(0, 60, 4), id="some"),
    pytest.param(range(400), id="all", marks=pytest.mark.matrix),
]


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("method", ["ainvoke", "astream", "astream_message"])
@pytest.mark.parametrize(
    "act", [fine, busy, stalled], ids=["answered", "refused-and-retried", "stalled"]
)
@pytest.mark.parametrize("steps", STEPS)
async def test_torture(act: Act, method: str, steps: range) -> None:
    """Cancelled after any number of steps, a call leaves no task, and no connection but idle ones
    that serve the next."""
    with serving(act) as server:
        model, before = model_at(server), tasks()

        async def call() -> None:
            if method == "ainvoke":
                await model.ainvoke("hi")
            elif method == "astream":
                async for _ in model.astream("hi"):
                    pass
            else:
                async with model.astream_message("hi") as stream:
                    await stream.message()

        for count in steps:
            with contextlib.suppress(OverloadedError, BaseExceptionGroup):
                await cancelled_after(count, call)
            await no_more_tasks(before)
        await model.aclose()
        await soon(server, seconds=1.0)
    gc.collect()
