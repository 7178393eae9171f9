"""Calling a model: every method, sync and async, in every place from which it may be called."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

import streamfold
from streamfold import AIMessage, AIMessageChunk, HumanMessage, Timeouts, init_chat_model
from streamfold.deltas import MessageEnd, TextDelta
from streamfold.errors import RequestTimeoutError, StreamfoldError
from streamfold.testing import Answer, Call, EmbeddedProvider, LoopbackServer, Reply

SRC = str(Path(streamfold.__file__).parents[1])
SAID = "Twelve tons of oats and a few words more, so that there is something to stream."
MODELS = {"openai": "openai:gpt-4.1", "anthropic": "anthropic:claude-sonnet-4-5"}
BOTH = pytest.mark.parametrize("dialect", ["openai", "anthropic"])
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def model_at(server: Any, dialect: str = "openai", **fields: Any) -> Any:
    url = server.url + ("/v1" if dialect == "openai" else "")
    name = fields.pop("name", MODELS[dialect])
    return init_chat_model(name, **{"base_url": url, "api_key": "any", **fields})


@pytest.fixture
def provider() -> Iterator[EmbeddedProvider]:
    with EmbeddedProvider() as running:
        yield running


@pytest.fixture
def scripted() -> Iterator[EmbeddedProvider]:
    """Says the same thing, 40 times."""
    with EmbeddedProvider(script=[SAID] * 40) as running:
        yield running


@pytest.fixture
def stalled() -> Iterator[LoopbackServer]:
    """Says three words and then nothing, for as long as the client stays."""
    words = [frame({"content": word}) for word in ("one ", "two ", "three")]
    headers = {"content-type": "text/event-stream"}
    reply = Reply(headers=headers, body=words, chunked=True, end="hang")
    with LoopbackServer(lambda request: reply) as running:
        yield running


def frame(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "1", "choices": [choice]}).encode() + b"\n\n"


async def closed(server: LoopbackServer, open: int = 0) -> None:
    await anyio.to_thread.run_sync(server.wait_for, lambda: server.open_connections == open, 0.5)


async def collect(source: Any, into: list[Any]) -> None:
    """Keeps what came before an error."""
    async for item in source:
        into.append(item)


def plain(message: AIMessage) -> dict[str, Any]:
    """A message without what differs from call to call."""
    data = message.to_dict()
    data.pop("id", None)
    data["response_metadata"] = {
        key: value
        for key, value in data.get("response_metadata", {}).items()
        if key in ("finish_reason", "stop_reason", "model_name", "model_provider")
    }
    return data


# ---- one answer, five ways -----------------------------------------------------------------------


@BOTH
@BACKENDS
@pytest.mark.parametrize("tools", [False, True])
def test_every_method_gives_the_same_message(
    provider: EmbeddedProvider, dialect: str, backend: str, tools: bool
) -> None:
    """`invoke`, the folded stream, the message stream and their async twins agree."""
    model = model_at(provider, dialect)
    if tools:
        parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
        function = {"name": "weather", "description": "The weather", "parameters": parameters}
        model = model.bind(tools=[{"type": "function", "function": function}])
    question = "What is the weather in Paris and in Rome?"

    async def main() -> list[AIMessage]:
        folded = AIMessageChunk()
        async for chunk in model.astream(question):
            folded = folded + chunk
        async with model.astream_message(question) as stream:
            message = await stream.message()
        return [await model.ainvoke(question), folded.to_message(), message]

    messages = anyio.run(main, backend=backend)
    messages.append(model.invoke(question))
    messages.append(sum(model.stream(question), AIMessageChunk()).to_message())
    model.close()
    assert all(type(message) is AIMessage for message in messages)
    first = messages[0]
    assert [plain(message) for message in messages] == [plain(first)] * 5
    assert first.finish_reason == ("tool_calls" if tools else "stop")
    assert bool(first.tool_calls) is tools
    assert first.usage_metadata


@pytest.mark.parametrize(
    "input",
    [
        "hi",
        HumanMessage("hi"),
        {"role": "user", "content": "hi"},
        ["hi"],
        [("user", "hi")],
        [HumanMessage("hi")],
        [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    ],
)
def test_every_shape_of_input(provider: EmbeddedProvider, input: Any) -> None:
    """However the question is put, the same is sent."""
    with model_at(provider) as model:
        model.invoke(input)
    assert provider.requests[0].json()["messages"] == [{"role": "user", "content": "hi"}]


def test_an_answer_is_the_next_input(scripted: EmbeddedProvider) -> None:
    """A message, or a folded chunk, goes back into the conversation as it is."""
    with model_at(scripted) as model:
        message = model.invoke("hi")
        chunk = sum(model.stream("hi"), AIMessageChunk())
        model.invoke([HumanMessage("hi"), message, HumanMessage("and?")])
        model.invoke([HumanMessage("hi"), chunk, HumanMessage("and?")])
    sent = [request.json()["messages"] for request in scripted.requests[2:]]
    assert sent[0] == sent[1]
    assert sent[0][1]["content"] == SAID


# ---- parameters of a call, and models made of models ---------------------------------------------


class TestParameters:
    def sent(self, provider: EmbeddedProvider) -> dict[str, Any]:
        body: dict[str, Any] = provider.requests[-1].json()
        return body

    def test_of_a_call(self, provider: EmbeddedProvider) -> None:
        """What a call says wins over the model, for this call."""
        with model_at(provider, temperature=0.5, stop=["x"]) as model:
            model.invoke("hi", temperature=0.1, max_tokens=7, stop=["y", "z"])
            body = self.sent(provider)
            assert (body["temperature"], body["stop"]) == (0.1, ["y", "z"])
            assert 7 in (body.get("max_tokens"), body.get("max_completion_tokens"))
            list(model.stream("hi", stop="w"))
            assert (self.sent(provider)["temperature"], self.sent(provider)["stop"]) == (0.5, ["w"])

    def test_bind(self, provider: EmbeddedProvider) -> None:
        """Bound parameters go to every call of the new model; a call still wins."""
        with model_at(provider, temperature=0.5) as model:
            bound = model.bind(temperature=0.2).bind(seed=3)
            bound.invoke("hi")
            assert (self.sent(provider)["temperature"], self.sent(provider)["seed"]) == (0.2, 3)
            bound.invoke("hi", temperature=0.9)
            assert (self.sent(provider)["temperature"], self.sent(provider)["seed"]) == (0.9, 3)
            model.invoke("hi")
            assert self.sent(provider)["temperature"] == 0.5
            assert "seed" not in self.sent(provider)
            assert bound is not model
            assert type(bound) is type(model)

    def test_model_copy(self, provider: EmbeddedProvider) -> None:
        """A copy has the new parameters; the old model keeps its own."""
        with model_at(provider, temperature=0.5) as model:
            copy = model.model_copy(update={"temperature": 0.3, "model": "gpt-4o"})
            copy.invoke("hi")
            assert (self.sent(provider)["temperature"], self.sent(provider)["model"]) == (
                0.3,
                "gpt-4o",
            )
            assert (model.model, copy.model) == ("gpt-4.1", "gpt-4o")
            model.invoke("hi")
            assert self.sent(provider)["temperature"] == 0.5
            assert provider.connections == 1  # copies share the connections

    def test_with_config(self, provider: EmbeddedProvider) -> None:
        """A configured model is a new one, too, and sends the same."""
        with model_at(provider) as model:
            configured = model.with_config({"tags": ["a"]}, run_name="mine")
            assert configured is not model
            assert configured.invoke("hi", {"tags": ["b"]}).text
            assert model.invoke("hi").text == configured.invoke("hi").text

    @pytest.mark.parametrize("how", ["call", "bind", "copy", "model"])
    def test_timeout(self, stalled: LoopbackServer, how: str) -> None:
        """The time limit may be given to the model, to a copy, by `bind` or by a call."""
        limits = Timeouts(idle=0.15)
        given: dict[str, Any] = {"timeout": limits}
        with model_at(stalled, **(given if how == "model" else {})) as model:
            if how == "bind":
                model = model.bind(**given)
            elif how == "copy":
                model = model.model_copy(update=given)
            begin = time.monotonic()
            with pytest.raises(RequestTimeoutError) as caught:
                list(model.stream("hi", **(given if how == "call" else {})))
            assert time.monotonic() - begin < 1
            assert caught.value.limit == "idle"
            assert caught.value.partial.text == "one two three"

    def test_retries(self, provider: EmbeddedProvider) -> None:
        """`max_retries` may be given to a call."""
        with model_at(provider, name="openai:overloaded") as model:
            with pytest.raises(StreamfoldError):
                model.invoke("hi", max_retries=0)
            assert len(provider.requests) == 1
            with pytest.raises(StreamfoldError):
                model.bind(max_retries=1).invoke("hi")
            assert len(provider.requests) == 3


# ---- the message stream --------------------------------------------------------------------------


@pytest.mark.anyio
class TestMessageStream:
    async def test_events(self, scripted: EmbeddedProvider) -> None:
        """Iterating gives typed events, the last of which says how it ended."""
        async with model_at(scripted).astream_message("hi") as stream:
            events = [event async for event in stream]
        assert "".join(e.text for e in events if isinstance(e, TextDelta)) == SAID
        assert [e.finish_reason for e in events if isinstance(e, MessageEnd)] == ["stop"]

    async def test_projections(self) -> None:
        """Text, reasoning and tool calls can be read each for itself, and all of them at once."""
        said = Answer("The text.", reasoning="The thought.", tool_calls=[Call("look", {"at": 1})])
        with EmbeddedProvider(script=[said]) as provider:
            seen: dict[str, list[Any]] = {"text": [], "reasoning": [], "tool_calls": []}
            async with model_at(provider).astream_message("hi") as stream:

                async def read(name: str) -> None:
                    seen[name].extend([piece async for piece in getattr(stream, name)])

                async with anyio.create_task_group() as group:
                    for name in seen:
                        group.start_soon(read, name)
                message = await stream.message()
                again = "".join([piece async for piece in stream.text])
        assert "".join(seen["text"]) == message.text == again == "The text."
        assert "".join(seen["reasoning"]) == "The thought."
        assert seen["tool_calls"] == message.tool_calls
        assert [call["args"] for call in message.tool_calls] == [{"at": 1}]
        assert len(provider.requests) == 1

    async def test_loops_go_on_where_they_were_left(self, scripted: EmbeddedProvider) -> None:
        """Each reader starts at the beginning; leaving a loop costs nothing."""
        async with model_at(scripted).astream_message("hi") as stream:
            async for first in stream.text:
                assert SAID.startswith(first)
                break
            reader = stream.text
            head = await anext(reader)
            assert head + "".join([piece async for piece in reader]) == SAID

    async def test_left_early(self, stalled: LoopbackServer) -> None:
        """Leaving the block closes the connection; what had arrived can still be asked for."""
        async with model_at(stalled).astream_message("hi") as stream:
            async for text in stream.text:
                if text == "three":
                    break
        await closed(stalled)
        message = await stream.message()
        assert (message.text, message.finish_reason) == ("one two three", "cancelled")

    async def test_cancel_while_others_wait(self, stalled: LoopbackServer) -> None:
        """`cancel` ends the stream at once, though readers wait for what never comes."""
        texts: list[str] = []
        messages: list[AIMessage] = []
        stream = model_at(stalled).astream_message("hi")

        async def read() -> None:
            texts.extend([text async for text in stream.text])

        async def wait() -> None:
            messages.append(await stream.message())

        with anyio.fail_after(2):
            async with stream, anyio.create_task_group() as group:
                group.start_soon(read)
                group.start_soon(wait)
                async for text in stream.text:
                    if text == "three":
                        break
                await anyio.wait_all_tasks_blocked()
                begin = time.monotonic()
                await stream.cancel()
                assert time.monotonic() - begin < 0.5
                await closed(stalled)
        assert "".join(texts) == "one two three"
        assert [m.finish_reason for m in messages] == ["cancelled"]
        assert messages[0].text == "one two three"
        await stream.cancel()

    @pytest.mark.parametrize("said", ["", "one two three"])
    async def test_cancel_needs_no_waiting(self, stalled: LoopbackServer, said: str) -> None:
        """`stream.cancel()` alone ends the answer; awaiting it is for those who need it closed."""
        async with model_at(stalled).astream_message("hi") as stream:
            texts, heard = aiter(stream.text), ""
            while heard != said:  # it may come in one read or in several
                heard += await anext(texts)
            with anyio.fail_after(2):
                stream.cancel()
                message = await stream.message()
        assert (message.text, message.finish_reason) == (said, "cancelled")

    async def test_a_reader_that_is_cancelled(self, stalled: LoopbackServer) -> None:
        """Readers are independent: one that gives up takes nothing from another that waits."""
        texts: list[str] = []
        async with model_at(stalled).astream_message("hi") as stream:

            async def read() -> None:
                texts.extend([text async for text in stream.text])

            async with anyio.create_task_group() as group:
                group.start_soon(read)
                with anyio.move_on_after(0.2) as scope:
                    await stream.message()
                assert scope.cancelled_caught
                assert texts == []
                await stream.cancel()
            message = await stream.message()
        assert "".join(texts) == message.text == "one two three"
        assert message.finish_reason == "cancelled"

    async def test_errors_reach_every_reader(self) -> None:
        """What breaks the stream is raised wherever it is read, with the partial message."""
        said = Answer("Half of it", error="server")
        with EmbeddedProvider(script=[said]) as provider:
            async with model_at(provider, max_retries=0).astream_message("hi") as stream:
                texts: list[str] = []
                with pytest.raises(StreamfoldError) as caught:
                    await collect(stream.text, texts)
                assert "".join(texts) == "Half of it"
                assert caught.value.partial.text == "Half of it"
                for read in (stream.message(), anext(stream.tool_calls)):
                    with pytest.raises(StreamfoldError) as again:
                        await read
                    assert again.value is caught.value

    async def test_without_a_block(self, scripted: EmbeddedProvider) -> None:
        """The message can be asked for without `async with`."""
        assert (await model_at(scripted).astream_message("hi").message()).text == SAID


# ---- closing -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_async_with(scripted: EmbeddedProvider) -> None:
    """Leaving the block closes the connections; the model can be used again."""
    async with model_at(scripted) as model:
        await model.ainvoke("hi")
        await closed(scripted, 1)
    await closed(scripted)
    await model.ainvoke("hi")
    await model.aclose()
    await closed(scripted)
    await model.aclose()


def test_with(scripted: EmbeddedProvider) -> None:
    """The same for the sync methods."""
    with model_at(scripted) as model:
        model.invoke("hi")
        assert scripted.open_connections == 1
    scripted.wait_closed()
    model.invoke("hi")
    model.close()
    scripted.wait_closed()


# ---- loops and threads ---------------------------------------------------------------------------


@BACKENDS
def test_one_model_in_one_loop_after_the_other(scripted: EmbeddedProvider, backend: str) -> None:
    """A model outlives the loops it is used in (catalogue L6)."""
    model = model_at(scripted)

    async def main() -> str:
        text: str = (await model.ainvoke("hi")).text
        return text + "".join([chunk.text async for chunk in model.astream("hi")])

    for _ in range(5):
        assert anyio.run(main, backend=backend) == SAID * 2
        scripted.wait_closed()
    assert scripted.connections == 5


def test_one_model_in_four_loops_at_once(scripted: EmbeddedProvider) -> None:
    """Loops share the model and no connection (catalogue L7)."""
    model = model_at(scripted)
    together = threading.Barrier(4, timeout=10)

    async def main() -> None:
        for _ in range(5):
            await anyio.to_thread.run_sync(together.wait)
            text = "".join([chunk.text async for chunk in model.astream("hi")])
            assert text == SAID

    def run(number: int) -> None:
        anyio.run(main, backend=("asyncio", "trio")[number % 2])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    assert (len(scripted.requests), scripted.connections) == (20, 4)
    scripted.wait_closed()


@pytest.mark.parametrize("mode", ["asyncio", "trio", "sync"])
def test_two_hundred_streams_on_one_connection(mode: str) -> None:
    """Streams in a row share a connection (catalogue L14)."""
    with EmbeddedProvider(script=["ok"] * 200) as provider:
        model = model_at(provider)

        async def main() -> None:
            for _ in range(200):
                assert "".join([chunk.text async for chunk in model.astream("hi")]) == "ok"

        if mode == "sync":
            for _ in range(200):
                assert "".join(chunk.text for chunk in model.stream("hi")) == "ok"
            model.close()
        else:
            anyio.run(main, backend=mode)
        assert (len(provider.requests), provider.connections) == (200, 1)


@BACKENDS
def test_sync_inside_a_running_loop(scripted: EmbeddedProvider, backend: str) -> None:
    """A notebook cell runs in a loop and may call the sync methods (catalogue L9)."""

    async def cell() -> None:
        with model_at(scripted) as model:
            assert model.invoke("hi").text == SAID
            assert "".join(chunk.text for chunk in model.stream("hi")) == SAID
            assert [message.text for message in model.batch(["hi", "ho"])] == [SAID] * 2

    anyio.run(cell, backend=backend)


def test_sync_in_many_threads(scripted: EmbeddedProvider) -> None:
    """Threads share the model; their streams do not mix."""
    together = threading.Barrier(10, timeout=10)
    with model_at(scripted) as model:

        def one(number: int) -> str:
            together.wait()
            if number % 2:
                return str(model.invoke("hi").text)
            return "".join(chunk.text for chunk in model.stream("hi"))

        with ThreadPoolExecutor(10) as pool:
            assert list(pool.map(one, range(10))) == [SAID] * 10


def test_sync_stream_left_early(stalled: LoopbackServer) -> None:
    """Breaking out of a sync stream closes the connection before the next line runs."""
    with model_at(stalled) as model:
        for chunk in model.stream("hi"):
            if chunk.text == "three":
                break
        stalled.wait_for(lambda: stalled.open_connections == 0, 0.5)
        assert stalled.abandoned == 1
        stream = model.stream("hi")
        next(stream)
        stream.close()
        stalled.wait_for(lambda: stalled.open_connections == 0, 0.5)


# ---- programs ------------------------------------------------------------------------------------


def python(
    code: str,
    server: LoopbackServer,
    *,
    interrupt: Callable[[], bool] | None = None,
    options: tuple[str, ...] = ("-W", "error"),
) -> tuple[str, str, int, float]:
    """Run a program that finds a `model` made for it. Its output, its errors, its exit code, and
    the seconds it took; or, with a Ctrl-C once `interrupt()` holds, until its next line of output.
    """
    prelude = f"""
        from streamfold import init_chat_model
        model = init_chat_model("gpt-4.1", base_url={server.url + "/v1"!r}, api_key="any")
    """
    process = subprocess.Popen(
        [sys.executable, *options, "-c", textwrap.dedent(prelude) + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": SRC},
    )
    begin = time.monotonic()
    if interrupt is not None:
        server.wait_for(interrupt, 15)
        assert process.stdout is not None
        process.stdout.readline()  # it says when it has come to the point
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.stdout.readline()
        seconds = time.monotonic() - begin
    out, err = process.communicate(timeout=20)
    if interrupt is None:
        seconds = time.monotonic() - begin
    return out, err, process.returncode, seconds


def test_a_script(scripted: EmbeddedProvider) -> None:
    """A plain program needs no loop and no closing, and ends without a word."""
    out, err, code, _ = python(
        """
        print(model.invoke("hi").text)
        print("".join(chunk.text for chunk in model.stream("hi")))
        print(len(model.batch(["hi"] * 3)))
        """,
        scripted,
    )
    assert out.splitlines() == [SAID, SAID, "3"]
    assert (err, code) == ("", 0)


@pytest.mark.parametrize("where", ["dropped", "kept", "left", "task"])
def test_a_program_that_ends_in_the_middle(stalled: LoopbackServer, where: str) -> None:
    """Ending with an open stream takes no time and says nothing (catalogue L12)."""
    programs = {
        "dropped": 'next(model.stream("hi"))',
        "kept": 'stream = model.stream("hi"); print(next(stream).text)',
        "left": """
            import asyncio
            async def main():
                async for chunk in model.astream("hi"):
                    break
            asyncio.run(main())
        """,
        "task": """
            import asyncio
            async def read():
                async for chunk in model.astream("hi"):
                    started.set()
            async def main():
                global started
                started = asyncio.Event()
                task = asyncio.create_task(read())
                await started.wait()
            asyncio.run(main())
        """,
    }
    _, err, code, seconds = python(programs[where], stalled)
    assert (err, code) == ("", 0)
    assert seconds < 5  # most of it is the start of Python
    stalled.wait_closed()


@pytest.mark.parametrize("method", ["invoke", "stream", "batch", "asyncio"])
def test_ctrl_c(stalled: LoopbackServer, method: str) -> None:
    """Ctrl-C in a stalled call: out at once, the connection closed, the model as good as new
    (catalogue L10)."""
    calls = {
        "invoke": 'model.invoke("hi")',
        "stream": 'for chunk in model.stream("hi"): pass',
        "batch": 'model.batch(["hi"])',
        "asyncio": 'import asyncio; asyncio.run(model.ainvoke("hi"))',
    }
    _, err, code, seconds = python(
        f"""
        import sys
        print("here we go", flush=True)
        try:
            {calls[method]}
        except KeyboardInterrupt:
            print("out", flush=True)
            sys.exit(7)
        """,
        stalled,
        interrupt=lambda: len(stalled.requests) == 1,
    )
    assert (err, code) == ("", 7)
    assert seconds < 0.5
    stalled.wait_for(lambda: stalled.open_connections == 0, 0.5)
    assert stalled.abandoned == 1


# Newer Pythons warn of a fork in a program that has threads.
FORKING = ("-W", "error", "-W", "ignore::DeprecationWarning")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork(scripted: EmbeddedProvider) -> None:
    """Children of a fork call for themselves; the parent's connection is its own (catalogue L8)."""
    out, err, code, _ = python(
        f"""
        import os
        said = {SAID!r}
        assert model.invoke("hi").text == said
        stream = model.stream("hi")
        text = next(stream).text
        children = []
        for _ in range(2):
            child = os.fork()
            if child == 0:
                good = model.invoke("hi").text == said
                good = good and "".join(chunk.text for chunk in model.stream("hi")) == said
                os._exit(0 if good else 1)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
        assert text + "".join(chunk.text for chunk in stream) == said
        assert model.invoke("hi").text == said
        print("well")
        """,
        scripted,
        options=FORKING,
    )
    assert (out.strip(), err, code) == ("well", "", 0)
    assert len(scripted.requests) == 7
    assert scripted.connections == 3  # one of the parent, one of each child


def test_multiprocessing(scripted: EmbeddedProvider) -> None:
    """A pool of forked workers can call a model that the parent has used."""
    out, err, code, _ = python(
        """
        import multiprocessing

        def ask(number):
            return model.invoke("hi").text

        model.invoke("hi")
        with multiprocessing.get_context("fork").Pool(3) as pool:
            print(len(pool.map(ask, range(6))))
        """,
        scripted,
        options=FORKING,
    )
    assert (out.strip(), err, code) == ("6", "", 0)


def test_asyncio_debug_mode(scripted: EmbeddedProvider) -> None:
    """asyncio's own checks find nothing: no slow callback, no call from another thread."""
    out, err, code, _ = python(
        """
        import asyncio, logging
        logging.basicConfig(level=logging.WARNING)

        async def main():
            async with model:
                await model.ainvoke("hi")
                async for chunk in model.astream("hi"):
                    break
                return len(await model.abatch(["hi"] * 5))

        print(asyncio.run(main(), debug=True))
        print(model.invoke("hi").text != "")
        """,
        scripted,
        options=("-X", "dev", "-W", "error"),
    )
    # The first call imports the HTTP stack, which takes a while and is said to.
    lines = [line for line in err.splitlines() if "Executing <" not in line]
    assert (out.split(), lines, code) == (["5", "True"], [], 0)
