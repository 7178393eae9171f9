"""Input that cannot be right: an error of our tree before any request, which names the value and
what was expected, with a suggestion where one is near."""

from __future__ import annotations

import math
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamfold import (
    AIMessage,
    ChatAnthropic,
    ChatOpenAI,
    HumanMessage,
    Limits,
    Timeouts,
    ToolMessage,
    azure_token_provider,
    init_chat_model,
)
from streamfold.cli import main
from streamfold.errors import (
    ConfigurationError,
    ConnectError,
    StreamfoldError,
    UnknownParameterError,
)
from streamfold.net import retry
from streamfold.testing import EmbeddedProvider

KEY = "canary-0123456789"
NAN, INF = math.nan, math.inf


@pytest.fixture
def provider() -> Iterator[EmbeddedProvider]:
    """A server that must see nothing at all."""
    with EmbeddedProvider() as running:
        yield running
        assert running.requests == []
        assert running.connections == 0


def refused(make: Callable[[], Any], *words: str) -> ConfigurationError:
    """`make()` is refused by an error of ours, whose text has all of `words`."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    error = caught.value
    assert isinstance(error, StreamfoldError)
    assert isinstance(error, ValueError)
    assert not error.retryable
    missing = [word for word in words if word not in str(error)]
    assert not missing, f"{missing} not in {error}"
    assert KEY not in str(error) + repr(error) + repr(vars(error))
    return error


# ---- making a model ------------------------------------------------------------------------------


def test_a_name_of_no_provider() -> None:
    """A model that no vendor's names fit is an error that says how to name the vendor."""
    refused(lambda: init_chat_model("unheard-of-1"), "'unheard-of-1'", "'provider:unheard-of-1'")


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("opnai", "openai"),
        ("anthropc", "anthropic"),
        ("OpenAi2", "openai"),
        ("google-genal", "google"),
    ],
)
def test_a_provider_that_nobody_knows(given: str, near: str) -> None:
    """The nearest vendor is suggested."""
    refused(lambda: init_chat_model("gpt-4.1", model_provider=given), repr(given), "did you mean")
    refused(lambda: init_chat_model("gpt-4.1", model_provider=given), near)


@pytest.mark.parametrize("model", ["", "  ", 7, ["gpt-4.1"], b"gpt-4.1"])
def test_what_is_no_model_name(model: Any) -> None:
    """A model's name is a str with something in it."""
    refused(lambda: init_chat_model(model, api_key=KEY), repr(model), "expected")


def test_a_provider_without_a_model() -> None:
    """The part after the colon is needed."""
    refused(lambda: init_chat_model("openai:", api_key=KEY), "'openai:'", "after the colon")


@pytest.mark.parametrize("made", [ChatOpenAI, ChatAnthropic])
def test_a_class_without_a_model(made: Any) -> None:
    """A named class still needs the model's name."""
    refused(lambda: made(api_key=KEY), "model is missing")


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("temprature", "temperature"),
        ("max_token", "max_tokens"),
        ("time_out", "timeout"),
        ("apikey", "api_key"),
        ("retries", "max_retries"),
        ("baseurl", "base_url"),
        ("Temperature", "temperature"),
    ],
)
@pytest.mark.parametrize("made", [ChatOpenAI, ChatAnthropic, init_chat_model])
def test_a_parameter_that_nobody_knows(made: Any, given: str, near: str) -> None:
    """The nearest parameter is suggested; it is a TypeError, too, as of any function."""
    name = "claude-sonnet-4-5" if made is ChatAnthropic else "gpt-4.1"
    error = refused(
        lambda: made(name, api_key=KEY, **{given: 1}), repr(given), f"did you mean {near!r}"
    )
    assert isinstance(error, UnknownParameterError)
    assert isinstance(error, TypeError)


def test_a_parameter_like_no_other() -> None:
    """Where nothing is near, the way round is named."""
    refused(lambda: ChatOpenAI("gpt-4.1", api_key=KEY, zyxwv=1), "'zyxwv'", "extra_body")


def test_the_same_parameter_twice() -> None:
    """A parameter and its other name, with different values, cannot both be meant."""
    refused(
        lambda: ChatOpenAI("gpt-4.1", api_key=KEY, timeout=1, request_timeout=2),
        "timeout",
        "request_timeout",
    )


@pytest.mark.parametrize(
    ("model", "variable"),
    [
        ("openai:gpt-4.1", "OPENAI_API_KEY"),
        ("anthropic:claude-sonnet-4-5", "ANTHROPIC_API_KEY"),
        ("groq:llama", "GROQ_API_KEY"),
        ("mistralai:mistral-large", "MISTRAL_API_KEY"),
        ("deepseek:deepseek-chat", "DEEPSEEK_API_KEY"),
    ],
)
def test_a_key_that_is_missing(model: str, variable: str) -> None:
    """The variable that should hold it is named, and the parameter."""

    def make_and_call() -> None:
        init_chat_model(model).invoke("hi")

    refused(make_and_call, variable, "api_key")


AZURE = {"azure_endpoint": "https://x.openai.azure.com", "api_version": "v1", "api_key": KEY}
BEDROCK = {"region_name": "us-east-1"}

#: Provider, what it is given, and what the error names: the parameter and the variable.
PARTS: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("azure_openai", AZURE | {"azure_endpoint": None}, ("azure_endpoint", "AZURE_OPENAI_ENDPOINT")),
    ("azure_openai", AZURE | {"api_version": None}, ("api_version", "OPENAI_API_VERSION", "'v1'")),
    ("azure_openai", AZURE | {"api_key": None}, ("api_key", "AZURE_OPENAI_API_KEY", "azure_ad")),
    ("azure_openai", AZURE | {"azure_endpoint": "x.openai.azure.com"}, ("azure_endpoint", "https")),
    ("azure_anthropic", {"api_key": KEY}, ("azure_resource", "ANTHROPIC_FOUNDRY_RESOURCE")),
    ("azure_anthropic", {"azure_resource": "x"}, ("api_key", "ANTHROPIC_FOUNDRY_API_KEY")),
    ("google_vertexai", {}, ("project", "GOOGLE_CLOUD_PROJECT")),
    ("google_anthropic_vertex", {}, ("project", "GOOGLE_CLOUD_PROJECT")),
    ("google_genai", {}, ("api_key", "GOOGLE_API_KEY", "GEMINI_API_KEY")),
    ("bedrock", {"api_key": KEY}, ("region_name", "AWS_REGION", "AWS_DEFAULT_REGION")),
    ("bedrock_converse", {}, ("region_name", "AWS_REGION", "AWS_DEFAULT_REGION")),
    ("bedrock", BEDROCK, ("AWS_ACCESS_KEY_ID", "AWS_BEARER_TOKEN_BEDROCK", "api_key")),
    ("bedrock", BEDROCK | {"aws_access_key_id": "A"}, ("aws_secret_access_key",)),
    ("cohere", {}, ("api_key", "CO_API_KEY")),
    ("huggingface", {}, ("api_key", "HUGGINGFACEHUB_API_TOKEN", "HF_TOKEN")),
]


@pytest.fixture
def nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without credentials of any cloud."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "OPENAI_", "GOOGLE_", "GCLOUD_", "HF_", "HUGGING")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


@pytest.mark.usefixtures("nothing_around")
@pytest.mark.parametrize(
    ("provider", "given", "words"),
    [pytest.param(*row, id=f"{row[0]}-{row[2][0]}-{n}") for n, row in enumerate(PARTS)],
)
def test_a_part_that_is_missing(
    provider: str, given: dict[str, Any], words: tuple[str, ...]
) -> None:
    """Endpoint, API version, region, project, credentials: before any request."""
    refused(lambda: init_chat_model("m", model_provider=provider, **given).invoke("hi"), *words)


EXTRAS: list[tuple[str, str, Callable[[], Any]]] = [
    ("bedrock", "botocore", lambda: init_chat_model("m", model_provider="bedrock", **BEDROCK)),
    (
        "azure",
        "azure.identity",
        lambda: init_chat_model(
            "m",
            model_provider="azure_openai",
            azure_ad_token_provider=azure_token_provider(),
            **(AZURE | {"api_key": None}),
        ),
    ),
    (
        "google",
        "google.auth.transport.requests",
        lambda: init_chat_model("m", model_provider="google_vertexai", project="p"),
    ),
]


@pytest.mark.usefixtures("nothing_around")
@pytest.mark.parametrize(("extra", "module", "make"), EXTRAS, ids=[row[0] for row in EXTRAS])
def test_a_package_that_is_missing(
    extra: str, module: str, make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that installs it is in the text."""
    for name in [*sys.modules, module]:
        if name == module or name.startswith(f"{module}."):
            monkeypatch.setitem(sys.modules, name, None)
    refused(lambda: make().invoke("hi"), f'pip install "streamfold[{extra}]"')


LOCAL = [
    ("ollama:llama3.2", "OLLAMA_HOST", "ollama serve"),
    ("vllm:m", "VLLM_BASE_URL", "vllm serve"),
    ("lmstudio:m", "LMSTUDIO_BASE_URL", "lms server start"),
    ("llama_cpp:m", "LLAMA_CPP_BASE_URL", "llama-server -m"),
]


@pytest.mark.parametrize(("model", "variable", "start"), LOCAL)
def test_a_local_server_that_does_not_run(
    model: str,
    variable: str,
    start: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`streamfold ask` says in one paragraph where it looked and how to start what is not there."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv(variable, url)
    monkeypatch.setattr(retry, "_LONGEST", 0.06)
    assert main(["ask", "-m", model, "hi"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    for word in (url, start):
        assert word in err
    with pytest.raises(ConnectError, match=start):
        init_chat_model(model, max_retries=0).invoke("hi")


BAD_KEYS = [
    (f"{KEY}\n", "line end"),
    (f"{KEY}\r\n", "line end"),
    (f" {KEY}", "blank"),
    (f"{KEY[:6]} {KEY[6:]}", "blank at position 6"),
    (f"{KEY}\t", "tab"),
    (f"{KEY}é", "not ASCII"),
    (f"“{KEY}”", "not ASCII"),
    (f"{KEY}\0", "control"),
    ("", "empty"),
]


@pytest.mark.parametrize(("key", "says"), BAD_KEYS)
@pytest.mark.parametrize("given", ["parameter", "variable", "alias"])
def test_a_key_that_no_header_can_carry(
    provider: EmbeddedProvider, monkeypatch: Any, key: str, says: str, given: str
) -> None:
    """The error says what is wrong with it, and never shows it."""
    fields: dict[str, Any] = {"base_url": provider.url + "/v1"}
    if given == "parameter":
        fields["api_key"] = key
    elif given == "alias":
        fields["openai_api_key"] = key
    elif "\0" in key or not key:
        pytest.skip("no variable can hold it")
    else:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    where = "OPENAI_API_KEY" if given == "variable" else "api_key"
    refused(lambda: ChatOpenAI("gpt-4.1", **fields).invoke("hi"), where, says)


@pytest.mark.parametrize("key", [7, b"bytes", ["list"], 1.5, True])
def test_what_is_no_key(key: Any) -> None:
    """A key is a str, or a callable that gives one."""
    refused(lambda: ChatOpenAI("gpt-4.1", api_key=key), "api_key", type(key).__name__)


NUMBERS: list[tuple[str, Any, str]] = [
    *(("temperature", value, "number") for value in (-0.1, NAN, INF, -INF, "hot", True, [1])),
    ("temperature", 2.5, "from 0 to 2"),
    *(("top_p", value, "from 0 to 1") for value in (-1, 1.1, NAN)),
    *(("max_tokens", value, "int of 1 or more") for value in (0, -5, 1.5, "7", True, NAN)),
    *(("max_retries", value, "int of 0 or more") for value in (-1, 1.5, "2", True, NAN)),
    *(("timeout", value, "seconds") for value in (0, -1, NAN, -INF, "30", True, [1])),
    ("seed", "x", "int"),
    ("stop", 7, "str"),
    ("stop", [7], "str"),
    ("stop", "", "not empty"),
    ("stop", ["a", ""], "not empty"),
    ("model_kwargs", [1], "dict"),
    ("default_headers", "x: y", "dict"),
    ("extra_body", "x", "dict"),
    ("limits", {"event_bytes": 1}, "Limits"),
    ("profile", "good", "dict"),
    ("proxy", 7, "URL"),
    ("reasoning_effort", 3, "str"),
    ("tools", {"type": "function"}, "list"),
    ("stream_usage", "yes", "bool"),
]


@pytest.mark.parametrize(("name", "value", "expected"), NUMBERS)
def test_values_that_a_parameter_cannot_have(name: str, value: Any, expected: str) -> None:
    """Parameter, value and what was expected are in the text."""
    words = (name, expected) if isinstance(value, dict | list) else (name, repr(value), expected)
    refused(lambda: ChatOpenAI("gpt-4.1", api_key=KEY, **{name: value}), *words)
    refused(lambda: ChatAnthropic("claude-sonnet-4-5", api_key=KEY, **{name: value}), *words)
    model = ChatOpenAI("gpt-4.1", api_key=KEY)
    refused(lambda: model.model_copy(update={name: value}), *words)


@pytest.mark.parametrize("name", ["connect", "first_event", "idle", "total"])
@pytest.mark.parametrize("value", [0, -1, -0.5, NAN, -INF, "30", True])
def test_time_limits_that_cannot_be(name: str, value: Any) -> None:
    """Each of the four is a number of seconds above 0, or None."""
    fields: dict[str, Any] = {name: value}
    refused(lambda: Timeouts(**fields), f"Timeouts.{name}", repr(value), "expected seconds")


@pytest.mark.parametrize(
    "name", ["event_bytes", "message_bytes", "error_body_bytes", "tool_args_bytes", "json_depth"]
)
@pytest.mark.parametrize("value", [0, -1, 1.5, NAN, INF, "1", None, True])
def test_size_limits_that_cannot_be(name: str, value: Any) -> None:
    """Each is a whole number of 1 or more."""
    fields: dict[str, Any] = {name: value}
    refused(lambda: Limits(**fields), f"Limits.{name}", repr(value), "int of 1 or more")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "   ",
        "api.example.com",
        "api.example.com/v1",
        "//api.example.com",
        "ftp://api.example.com",
        "file:///etc/hostname",
        "http://",
        "https:///v1",
        "http://[::1",
        "http://host:port/v1",
        "http://host:99999/v1",
        "http://ho st/v1",
        "http://host/\0",
        "https://user:canary-0123456789@api.example.com/v1",
    ],
)
@pytest.mark.parametrize("given", ["parameter", "variable"])
def test_addresses_that_are_none(monkeypatch: Any, url: str, given: str) -> None:
    """A base URL is http or https with a host, and no key in it."""
    if given == "variable":
        if "\0" in url or not url.strip():
            pytest.skip("no variable can hold it, or it counts as not set")
        monkeypatch.setenv("OPENAI_BASE_URL", url)

        def make() -> None:
            ChatOpenAI("gpt-4.1", api_key="any").invoke("hi")

        refused(make, "OPENAI_BASE_URL")
    else:
        refused(lambda: ChatOpenAI("gpt-4.1", api_key="any", base_url=url).invoke("hi"), "base_url")


@pytest.mark.parametrize("url", [7, b"http://host", ["http://host"]])
def test_an_address_of_the_wrong_type(url: Any) -> None:
    """A base URL is a str."""
    refused(lambda: ChatOpenAI("gpt-4.1", api_key=KEY, base_url=url), "base_url", repr(url))


@pytest.mark.parametrize("proxy", ["proxy", "p:1:2", "ftp://proxy", "http://", "http://[::1"])
def test_proxies_that_are_none(provider: EmbeddedProvider, proxy: str) -> None:
    """What is no proxy's address is an error, and no request goes past it."""
    given: dict[str, Any] = {"base_url": provider.url + "/v1", "proxy": proxy}
    refused(lambda: ChatOpenAI("gpt-4.1", api_key=KEY, **given), "proxy", "expected http://")


def test_a_proxy_of_the_environment_that_is_none(
    provider: EmbeddedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same of a variable, when it is used; a password in it is not shown."""
    for proxy in (f"ftp://me:{KEY}@proxy", f"http://me:{KEY}@[::1", f"socks9://me:{KEY}@proxy:1"):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", "")
        refused(lambda: models_at(provider)[0].invoke("hi"), "proxy")


def test_plain_http_to_somewhere_warns() -> None:
    """Over plain http to another machine, everybody on the way reads the key."""
    with pytest.warns(UserWarning, match=r"plain http to api\.example\.com"):
        ChatOpenAI("gpt-4.1", api_key=KEY, base_url="http://api.example.com/v1")


# ---- calling it ----------------------------------------------------------------------------------

CALL = {"id": "call_1", "name": "look", "args": {}}
CALLED = AIMessage("", tool_calls=[CALL])

INPUTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "empty list": ([], ("empty list", "at least one message")),
    "empty tuple": ((), ("empty", "at least one message")),
    "none": (None, ("NoneType", "expected")),
    "number": (7, ("int", "7", "expected")),
    "bytes": (b"hi", ("bytes", "expected")),
    "set": ({"hi"}, ("set", "expected")),
    "generator": ((m for m in ["hi"]), ("generator", "expected")),
    "number in the list": (["hi", 7], ("int", "7", "expected")),
    "none in the list": ([None], ("NoneType", "expected")),
    "a pair that is no list": (("user", "hi"), ("('user', 'hi')", "pair", "list")),
    "three in a pair": ([("user", "hi", "there")], ("3", "pair")),
    "one in a pair": ([("user",)], ("1", "pair")),
    "role of a pair": ([("usr", "hi")], ("'usr'", "unknown", "did you mean 'user'")),
    "role": ([{"role": "asistant", "content": "hi"}], ("'asistant'", "did you mean 'assistant'")),
    "role in capitals": ([{"role": "USER", "content": "hi"}], ("'USER'", "did you mean 'user'")),
    "role like no other": ([{"role": "zyx", "content": "hi"}], ("'zyx'", "expected one of")),
    "no role": ([{"content": "hi"}], ("role", "expected")),
    "role none": ([{"role": None, "content": "hi"}], ("role", "expected")),
    "role number": ([{"role": 7, "content": "hi"}], ("role", "expected")),
    "no content": ([{"role": "user"}], ("content", "expected")),
    "misspelt content": (
        [{"role": "user", "contents": "hi"}],
        ("no content", "expected", "'contents'"),
    ),
    "content none": ([{"role": "user", "content": None}], ("None", "expected a str")),
    "content number": ([{"role": "user", "content": 7}], ("int", "7", "expected a str")),
    "content dict": ([{"role": "user", "content": {"text": "hi"}}], ("dict", "expected a str")),
    "content bytes": ([{"role": "user", "content": b"hi"}], ("bytes", "expected a str")),
    "part number": ([{"role": "user", "content": ["hi", 7]}], ("int", "7", "expected")),
    "part none": ([{"role": "user", "content": [None]}], ("NoneType", "expected")),
    "part without type": ([{"role": "user", "content": [{"foo": 1}]}], ("{'foo': 1}", "no type")),
    "unknown part": (
        [{"role": "user", "content": [{"type": "txt", "text": "hi"}]}],
        ("'txt'", "did you mean 'text'"),
    ),
    "image without data": (
        [{"role": "user", "content": [{"type": "image"}]}],
        ("image", "expects", "base64"),
    ),
    "result of no call": (
        ["hi", CALLED, ToolMessage("found", tool_call_id="call_2")],
        ("'call_2'", "did you mean 'call_1'"),
    ),
    "result before its call": (
        [ToolMessage("found", tool_call_id="call_1"), CALLED],
        ("'call_1'", "earlier message"),
    ),
    "result as a dict": (
        [{"role": "tool", "tool_call_id": "x", "content": "found"}],
        ("'x'", "earlier message"),
    ),
    "result without an id": ([{"role": "tool", "content": "found"}], ("tool_call_id", "expected")),
    "result with a number": (
        [CALLED, {"role": "tool", "tool_call_id": 1, "content": "found"}],
        ("tool_call_id", "1", "expected"),
    ),
    "status of a result": (
        [CALLED, {"role": "tool", "tool_call_id": "call_1", "content": "x", "status": "fine"}],
        ("'fine'", "'success' or 'error'"),
    ),
    "function of no call": (
        [{"role": "function", "name": "look", "content": "x"}],
        ("'look'", "earlier"),
    ),
    "calls that are no list": (
        [{"role": "assistant", "content": "", "tool_calls": {"name": "look"}}],
        ("tool_calls", "expected a list"),
    ),
    "a call without a name": (
        [{"role": "assistant", "content": "", "tool_calls": [{"id": "call_1"}]}],
        ("call_1", "expected"),
    ),
    "half a surrogate pair": ("hi \ud83d", ("surrogate", "expected")),
    "an argument that is no number": (
        [
            {"role": "user", "content": "hi"},
            AIMessage("", tool_calls=[{"id": "call_1", "name": "look", "args": {"x": [NAN]}}]),
            {"role": "tool", "tool_call_id": "call_1", "content": "x"},
        ],
        ("x[0] is nan", "expected a finite number"),
    ),
    "content that is no JSON": (
        [{"role": "user", "content": [{"type": "text", "text": "a", "extras": {"x": object()}}]}],
        ("object", "JSON"),
    ),
}

PARAMETERS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"temprature": 1}, ("'temprature'", "did you mean 'temperature'")),
    ({"zyxwv": 1}, ("'zyxwv'", "extra_body")),
    ({"temperature": -1}, ("temperature", "-1", "expected a number")),
    ({"temperature": NAN}, ("temperature", "nan", "expected a number")),
    ({"max_tokens": 0}, ("max_tokens", "0", "int of 1 or more")),
    ({"timeout": -1}, ("timeout", "-1", "expected seconds")),
    ({"timeout": NAN}, ("timeout", "nan", "expected seconds")),
    ({"max_retries": -1}, ("max_retries", "-1", "int of 0 or more")),
    ({"stop": [1]}, ("stop", "[1]", "str")),
    ({"api_key": KEY}, ("'api_key'", "belongs to the model")),
    ({"base_url": "http://elsewhere"}, ("'base_url'", "belongs to the model")),
]

CONFIGS: list[tuple[Any, tuple[str, ...]]] = [
    ({"tag": ["a"]}, ("'tag'", "did you mean 'tags'")),
    ({"max_concurency": 3}, ("'max_concurency'", "did you mean 'max_concurrency'")),
    ({"zyx": 3}, ("'zyx'", "expected", "run_name")),
    ({3: 3}, ("3", "expected")),
    ({"max_concurrency": 0}, ("max_concurrency", "0", "int of 1 or more")),
    ({"max_concurrency": -1}, ("max_concurrency", "-1", "int of 1 or more")),
    ({"max_concurrency": 1.5}, ("max_concurrency", "1.5", "int of 1 or more")),
    ({"recursion_limit": 0}, ("recursion_limit", "0", "int of 1 or more")),
    ({"tags": "blue"}, ("tags", "'blue'", "list")),
    ({"tags": 7}, ("tags", "7", "list")),
    ({"metadata": ["a"]}, ("metadata", "dict")),
    ({"configurable": "x"}, ("configurable", "dict")),
    ({"run_id": "not-a-uuid"}, ("run_id", "not-a-uuid")),
    (7, ("int", "7", "expected a dict")),
    ("fast", ("str", "fast", "expected a dict")),
]


async def _drain(stream: Any) -> None:
    async for _ in stream:
        pass


async def _message(stream: Any) -> None:
    await stream.message()


WAYS: dict[str, Callable[..., Any]] = {
    "invoke": lambda model, *args, **kwargs: model.invoke(*args, **kwargs),
    "stream": lambda model, *args, **kwargs: list(model.stream(*args, **kwargs)),
    "ainvoke": lambda model, *args, **kwargs: anyio.run(lambda: model.ainvoke(*args, **kwargs)),
    "astream": lambda model, *args, **kwargs: anyio.run(
        lambda: _drain(model.astream(*args, **kwargs))
    ),
    "astream_message": lambda model, *args, **kwargs: anyio.run(
        lambda: _message(model.astream_message(*args, **kwargs))
    ),
    "astream_events": lambda model, *args, **kwargs: anyio.run(
        lambda: _drain(model.astream_events(*args, **kwargs))
    ),
    "batch": lambda model, input, *args, **kwargs: model.batch([input], *args, **kwargs),
    "batch_as_completed": lambda model, input, *args, **kwargs: list(
        model.batch_as_completed([input], *args, **kwargs)
    ),
}
EVERY_WAY = pytest.mark.parametrize("way", list(WAYS))


def models_at(provider: EmbeddedProvider) -> list[Any]:
    return [
        ChatOpenAI("gpt-4.1", api_key=KEY, base_url=provider.url + "/v1"),
        ChatAnthropic("claude-sonnet-4-5", api_key=KEY, base_url=provider.url),
    ]


@EVERY_WAY
@pytest.mark.parametrize("name", [name for name in INPUTS if name != "generator"])
def test_input(provider: EmbeddedProvider, name: str, way: str) -> None:
    """What is no conversation is refused by every method of every dialect."""
    input, words = INPUTS[name]
    for model in models_at(provider):
        refused(lambda model=model: WAYS[way](model, input), *words)


def test_input_that_can_be_read_once(provider: EmbeddedProvider) -> None:
    """A generator is no list of messages: a retry could not read it again."""
    input, words = INPUTS["generator"]
    for model in models_at(provider):
        refused(lambda model=model: model.invoke(input), *words)


@EVERY_WAY
@pytest.mark.parametrize(("given", "words"), PARAMETERS)
def test_parameter_of_a_call(
    provider: EmbeddedProvider, given: dict[str, Any], words: tuple[str, ...], way: str
) -> None:
    """A parameter that a call cannot have is refused by every method."""
    for model in models_at(provider):
        refused(lambda model=model: WAYS[way](model, "hi", **given), *words)


@pytest.mark.parametrize(("given", "words"), PARAMETERS)
def test_parameter_to_bind(
    provider: EmbeddedProvider, given: dict[str, Any], words: tuple[str, ...]
) -> None:
    """What no call can have cannot be bound either."""
    for model in models_at(provider):
        refused(lambda model=model: model.bind(**given), *words)


@EVERY_WAY
@pytest.mark.parametrize(("config", "words"), CONFIGS)
def test_config(provider: EmbeddedProvider, config: Any, words: tuple[str, ...], way: str) -> None:
    """A configuration that cannot be right is refused by every method."""
    for model in models_at(provider):
        refused(lambda model=model: WAYS[way](model, "hi", config), *words)


@pytest.mark.parametrize(("config", "words"), CONFIGS)
def test_config_of_a_model(provider: EmbeddedProvider, config: Any, words: tuple[str, ...]) -> None:
    """And by `with_config`."""
    for model in models_at(provider):
        refused(lambda model=model: model.with_config(config), *words)


def test_messages_made_by_hand() -> None:
    """A message cannot be made of what is no content."""
    refused(lambda: HumanMessage(7), "HumanMessage.content", "7", "expected a str")
    refused(lambda: HumanMessage([7]), "HumanMessage.content", "7", "expected a str or a dict")
    refused(lambda: ToolMessage("x", tool_call_id=""), "tool_call_id", "empty")


def test_a_tool_choice_that_is_no_tool(provider: EmbeddedProvider) -> None:
    """The name of a tool that is not bound is refused, with the nearest that is."""

    def get_weather(city: str) -> str:
        """The weather of a city."""
        return city

    for model in models_at(provider):
        refused(
            lambda model=model: model.bind_tools([get_weather], tool_choice="getweather"),
            "'getweather'",
            "did you mean 'get_weather'",
        )
