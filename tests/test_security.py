"""What must never happen, row by row of the reliability catalogue's security table."""

from __future__ import annotations

import ast
import copy
import gc
import gzip
import json
import logging
import pickle
import re
import ssl
import tomllib
import traceback
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import streamfold
from streamfold import AIMessage, HumanMessage, Limits
from streamfold.callbacks import BaseCallbackHandler
from streamfold.chat_models import init_chat_model
from streamfold.errors import (
    AuthenticationError,
    ConfigurationError,
    InvalidRequestError,
    RedirectRefusedError,
    SizeLimitError,
    StreamfoldError,
    UnknownParameterError,
)
from streamfold.messages import messages_from_dict, messages_to_dict
from streamfold.net.clients import proxy_from_environment, tls_context
from streamfold.testing import EmbeddedProvider, LoopbackServer, Reply, Request
from streamfold.tools import tool

KEY = "canary-7f3a-0123456789-key"
ROOT = Path(__file__).resolve().parents[1]
SRC = Path(streamfold.__file__).parent
HI = b'{"choices": [{"message": {"role": "assistant", "content": "hello"}}]}'

#: A model of each way to authorise and each dialect, by what it takes.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "openai": ("openai:gpt-4.1", "/v1", {}),
    "responses": ("openai:gpt-4.1", "/v1", {"use_responses_api": True}),
    "azure": ("azure_openai:gpt-4.1", "/openai/v1", {"api_version": "v1"}),
    "anthropic": ("anthropic:claude-sonnet-4-5", "", {}),
    "gemini": ("google_genai:gemini-2.5-flash", "/v1beta", {}),
    "bedrock": ("bedrock_converse:amazon.nova-lite-v1:0", "", {"region_name": "us-east-1"}),
    "ollama": ("ollama:llama3.2", "", {}),
    "cohere": ("cohere:command-a-03-2025", "", {}),
    "huggingface": ("huggingface:meta-llama/Llama-3.3-70B-Instruct", "/v1", {}),
}
each_model = pytest.mark.parametrize("name", MODELS)


def model_at(url: str, name: str = "openai", **fields: Any) -> Any:
    model, prefix, own = MODELS[name]
    given = {"api_key": KEY, "base_url": url + prefix, "max_retries": 0, **own, **fields}
    return init_chat_model(model, **given)


@pytest.fixture(scope="module", autouse=True)
def _no_model_stays() -> Iterator[None]:
    """Those in the tracebacks of errors would keep the connections of the sync methods."""
    yield
    gc.collect()


@pytest.fixture
def provider() -> Iterator[EmbeddedProvider]:
    with EmbeddedProvider(script=["hello"] * 20) as provider:
        yield provider


def texts_of(error: BaseException) -> Iterator[str]:
    """All text that comes of an error, its chain, its traceback and its pickle."""
    seen: BaseException | None = error
    while seen is not None:
        yield from (str(seen), repr(seen), repr(seen.args), repr(vars(seen)))
        seen = seen.__cause__ or seen.__context__
    yield "".join(traceback.format_exception(error))
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    yield from (repr(f.locals) for f in shown.stack if str(SRC) in f.filename)
    yield pickle.dumps(error).decode("latin-1")


def test_keys_are_in_no_text_of_a_model() -> None:
    """repr, str, format, vars at any depth, JSON, copies and pickles (row 1)."""
    made = [model_at("https://api.example", name) for name in MODELS]
    made.append(
        model_at(
            "https://api.example",
            default_headers={"X-Gateway-Token": KEY, "Cookie": KEY},
            proxy=f"http://me:{KEY}@proxy.example:1",
        )
    )
    made.append(
        init_chat_model(
            "bedrock_converse:amazon.nova-lite-v1:0",
            region_name="us-east-1",
            aws_access_key_id="AKIDEXAMPLE",
            aws_secret_access_key=KEY,
            aws_session_token=KEY,
        )
    )
    for model in made:
        for seen in (model, model.bind(temperature=0), copy.copy(model), copy.deepcopy(model)):
            texts = [
                repr(seen),
                str(seen),
                f"{seen}",
                f"{seen!r:>5}",
                json.dumps(seen, default=str),
            ]
            if "proxy" not in seen._params:  # the address of one is needed as it is
                texts.append(_deep(seen))
            assert not [text for text in texts if KEY in text]
        with pytest.raises(TypeError, match="pickle") as refused:
            pickle.dumps(model)
        assert KEY not in str(refused.value)


def _deep(value: Any, depth: int = 6) -> str:
    """The attributes of an object, theirs, and so on."""
    if depth == 0 or isinstance(value, str | bytes | int | float | type | None):
        return repr(value)
    if isinstance(value, dict):
        return "".join(_deep(key) + _deep(inner, depth - 1) for key, inner in value.items())
    if isinstance(value, list | tuple | set):
        return "".join(_deep(inner, depth - 1) for inner in value)
    return repr(value) + _deep(getattr(value, "__dict__", {}), depth - 1)


WAYS: dict[str, Any] = {
    "invoke": lambda model, config: model.invoke("hi", config),
    "stream": lambda model, config: list(model.stream("hi", config)),
    "events": lambda model, config: [_no_key(e) for e in model.stream_events("hi", config)],
}


def _no_key(event: Any) -> None:
    assert KEY not in repr(event)


@each_model
@pytest.mark.parametrize("way", WAYS)
def test_keys_are_in_no_error(name: str, way: str) -> None:
    """Neither the vendor's echo of it nor our own frames show it, nor what handlers and readers of
    events are told (row 2)."""
    told: list[str] = []

    class Handler(BaseCallbackHandler):
        def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
            told.extend(texts_of(error))
            told.append(repr(kwargs))

        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            told.append(repr((serialized, messages, kwargs)))

    def echo(request: Request) -> Reply:
        sent = " ".join(request.headers.values())
        assert KEY in sent
        body = json.dumps(
            {"error": {"message": f"wrong key: {sent}", "code": KEY}, "message": sent}
        )
        return Reply(status=401, headers={"x-request-id": KEY, "x-echo": KEY}, body=body.encode())

    with LoopbackServer(echo) as server, model_at(server.url, name) as model:
        with pytest.raises(AuthenticationError) as caught:
            WAYS[way](model, {"callbacks": [Handler()]})
        assert len(told) > 1
        assert not [text for text in (*told, *texts_of(caught.value)) if KEY in text]
        assert "***" in str(caught.value)


@each_model
def test_keys_are_in_no_pickle(name: str) -> None:
    """Errors are plain data, and the same when they come back (row 3)."""
    with LoopbackServer(lambda request: Reply(status=503, body=KEY.encode())) as server:
        with model_at(server.url, name) as model, pytest.raises(StreamfoldError) as caught:
            model.invoke("hi")
        pickled = pickle.dumps(caught.value)
        assert KEY.encode() not in pickled
        again = pickle.loads(pickled)
        assert (type(again), str(again)) == (type(caught.value), str(caught.value))
        assert vars(again).keys() == vars(caught.value).keys()
        assert not any(callable(value) for value in vars(again).values())


@each_model
def test_keys_and_messages_are_in_no_log(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Down to DEBUG, ours and the HTTP stack's: no key, no header of the caller's, neither prompt
    nor answer (row 4)."""
    caplog.set_level(logging.DEBUG)
    hidden = {"prompt": "the-prompt-nobody-logs", "header": "the-header-nobody-logs"}
    with EmbeddedProvider(script=["the-answer-nobody-logs"] * 2) as provider:
        with model_at(provider.url, name, default_headers={"x-team": hidden["header"]}) as model:
            model.invoke(hidden["prompt"])
            list(model.stream(hidden["prompt"]))
        assert hidden["header"] in provider.requests[0].headers["x-team"]
    assert caplog.records
    for text in (KEY, "the-answer-nobody-logs", *hidden.values()):
        assert text not in caplog.text


@each_model
def test_keys_are_in_no_url(name: str, provider: EmbeddedProvider) -> None:
    """A key travels in a header, and is refused in an address (row 5)."""
    with model_at(provider.url, name) as model:
        model.invoke("hi")
        list(model.stream("hi"))
        for request in provider.requests:
            assert KEY not in request.path + repr(request.query)
            assert KEY in repr(request.headers)
        for query in ({"key": KEY}, {"api_key": KEY}, {"access_token": KEY}, {"API-Key": KEY}):
            with pytest.raises(ConfigurationError, match="default_query") as caught:
                model_at(provider.url, name, default_query=query)
            assert KEY not in str(caught.value)
    for url in (f"https://api.example/?key={KEY}", f"https://me:{KEY}@api.example", "http://a/#b"):
        with pytest.raises(ConfigurationError, match="base_url") as caught:
            init_chat_model(MODELS[name][0], api_key=KEY, base_url=url, **MODELS[name][2])
        assert KEY not in str(caught.value)


@each_model
@pytest.mark.parametrize("bad", ["\n", "\r\nx-evil: 1", " ", "\t", "é", "\0", "\x7f", "\u2028"])
def test_keys_that_no_header_can_carry(name: str, bad: str, provider: EmbeddedProvider) -> None:
    """They are an error when the model is made, without the key in it, and nothing is sent
    (row 6)."""
    for key in (KEY + bad, bad + KEY, KEY[:9] + bad + KEY[9:]):
        with pytest.raises(ConfigurationError, match="api_key") as caught:
            model_at(provider.url, name, api_key=key)
        assert KEY[:9] not in str(caught.value)
        with pytest.raises(ConfigurationError, match="default_headers") as caught:
            model_at(provider.url, name, default_headers={"x-team": KEY[:9] + bad + KEY[9:] + "é"})
        assert KEY[:9] not in str(caught.value)
    assert provider.requests == []


@pytest.mark.parametrize(
    "text", ["../../evil", "a/b?c=d#e", "a\r\nb", "%2e%2e/x", "a b", "é", ".."]
)
def test_names_stay_in_their_segment_of_the_path(text: str) -> None:
    """Whatever a model, deployment or project is called, it names no other path, query or host
    (row 7)."""
    seen: list[str] = []

    def handler(request: Request) -> Reply:
        seen.append(request.path)
        return Reply(status=400, body=b"{}")

    names = {"gemini": "google_genai", "bedrock": "bedrock_converse"}
    with LoopbackServer(handler) as server:
        for name, provider in names.items():
            own = MODELS[name][2]
            model = init_chat_model(
                text, model_provider=provider, api_key=KEY, base_url=server.url, **own
            )
            if (name, text) == ("bedrock", ".."):
                with pytest.raises(ConfigurationError, match="model"):
                    model.invoke("hi")
                continue
            with pytest.raises(InvalidRequestError):
                model.invoke("hi")
            start, end = {
                "gemini": ("/models/", ":generateContent"),
                "bedrock": ("/model/", "/converse"),
            }[name]
            assert seen[-1] == start + text + end  # decoded: it was one segment
            model.close()
    _names_of_hosts(text)


def _names_of_hosts(text: str) -> None:
    """Names that become a part of an address."""
    for params in (
        {
            "azure_endpoint": "https://a.example",
            "azure_deployment": text,
            "api_version": "2024-10-21",
        },
        {"azure_endpoint": "https://a.example", "azure_deployment": "x", "api_version": text},
    ):
        try:
            model = init_chat_model("azure_openai:gpt-4.1", api_key=KEY, **params)
        except ConfigurationError:
            continue
        address = model._address("openai_chat")
        assert re.fullmatch(r"https://a\.example/openai/deployments/[^/?#]+", address.base_url)
        assert not address.base_url.endswith("/..")
    for model, param in (
        ("google_vertexai:gemini-2.5-flash", "location"),
        ("google_anthropic_vertex:claude-sonnet-4-5", "location"),
        ("azure_anthropic:claude-sonnet-4-5", "azure_resource"),
        ("bedrock_converse:amazon.nova-lite-v1:0", "region_name"),
    ):
        fields = {"project": "p"} if "vertex" in model else {}
        with pytest.raises(ConfigurationError, match=param.partition("_")[0]):
            init_chat_model(model, api_key=KEY, **{param: text}, **fields)
    for given in ({"x\r\ny": "1"}, {"x": "1\r\ny: 2"}, {"x": "\0"}, {"": "1"}, {"x:": "1"}):
        with pytest.raises(ConfigurationError, match="default_headers"):
            model_at("https://a.example", default_headers=given)


@each_model
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_refused(name: str, status: int) -> None:
    """Neither key nor prompt goes anywhere else; the error names the host (row 8)."""
    with LoopbackServer(lambda request: Reply()) as stranger:
        where = stranger.url.replace("127.0.0.1", "localhost")
        reply = Reply(status=status, headers={"location": where})
        with LoopbackServer(lambda _: reply) as server, model_at(server.url, name) as model:
            for call in (model.invoke, lambda text: list(model.stream(text))):
                with pytest.raises(RedirectRefusedError, match="localhost"):
                    call("hi")
        assert stranger.connections == 0


def test_a_forged_answer_answers_nothing() -> None:
    """What follows an answer on its connection is not the answer of the next request (row 9)."""
    length = str(len(HI))
    forged = f"HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n".encode()
    forged += HI.replace(b"hello", b"FORGE")
    headers = {"content-type": "application/json", "content-length": length}
    reply = Reply(headers=headers, body=HI + forged)
    with LoopbackServer(lambda request: reply) as server:
        with model_at(server.url) as model:
            assert [model.invoke("hi").text for _ in range(3)] == ["hello"] * 3
        assert len(server.requests) == 3


def test_the_environment_gives_a_proxy_and_nothing_else(
    provider: EmbeddedProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Proxy variables are honoured, passwords for hosts (netrc) are not; what proxy was given is
    shown, without its password (row 10)."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login me password {KEY}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with init_chat_model("ollama:llama3.2", base_url=provider.url) as model:
        model.invoke("hi")
    assert "authorization" not in provider.requests[0].headers
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    assert proxy_from_environment("https://api.example/v1") == "http://proxy.example:3128"
    assert proxy_from_environment("https://inside.example/v1") is None
    assert proxy_from_environment("http://api.example/v1") is None
    shown = repr(model_at("https://a.example", proxy=f"http://me:{KEY}@proxy.example:1"))
    assert "proxy.example:1" in shown
    assert KEY not in shown


def test_tls_checks_certificates() -> None:
    """The system's authorities, TLS 1.2 at least, and no switch to turn that off (row 11)."""
    context = tls_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    for name in ("verify", "verify_ssl", "ssl_verify", "insecure"):
        with pytest.raises(UnknownParameterError):
            model_at("https://a.example", **{name: False})


@each_model
def test_plain_http_warns(name: str) -> None:
    """To another machine than this one, and only then (row 12)."""
    for host in ("api.example", "127.example.com", "10.0.0.1", "localhost.example", "0.0.0.0"):
        with pytest.warns(UserWarning, match="plain http"):
            model_at(f"http://{host}", name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for host in ("localhost:1", "127.0.0.1:1", "127.0.0.2", "[::1]:1"):
            model_at(f"http://{host}", name)
        model_at("https://api.example", name)


@pytest.mark.parametrize("name", ["openai", "responses", "anthropic"])
def test_media_addresses_are_passed_on(name: str, provider: EmbeddedProvider) -> None:
    """Nobody looks at them here (row 13). Where they are fetched on request, `net/test_fetch.py`
    says from where they are not."""
    with LoopbackServer(lambda request: Reply()) as stranger:
        url = stranger.url + "/image.png"
        with model_at(provider.url, name) as model:
            model.invoke([HumanMessage([{"type": "image", "url": url}])])
        assert url in provider.requests[0].body.decode()
        assert stranger.connections == 0


def test_a_key_goes_to_its_own_address_only(provider: EmbeddedProvider) -> None:
    """Address and key belong together: no call changes one of them (row 14)."""
    with LoopbackServer(lambda request: Reply()) as stranger:
        model = model_at(provider.url)
        for field in ("base_url", "proxy", "http_client", "default_headers", "api_key"):
            value: Any = {"x": "y"} if field == "default_headers" else stranger.url
            for call in (model.invoke, model.stream, model.bind):
                with pytest.raises(ConfigurationError, match=field):
                    call(**{field: value}) if call == model.bind else call("hi", **{field: value})
        chosen = init_chat_model(
            "openai:gpt-4.1",
            configurable_fields=("temperature",),
            api_key=KEY,
            base_url=provider.url,
        )
        chosen.invoke("hi", {"configurable": {"base_url": stranger.url}})  # it is not its to say
        assert len(provider.requests) == 1
        assert stranger.connections == 0


@tool
def transfer(amount: int = 100, to: str = "me") -> str:
    """Move money; every argument has a default, so half an answer would do harm."""
    raise AssertionError("it ran")


DAMAGED = [
    '{"amount": 5, "to": "Bo',
    '{"amount": five}',
    '{"amount": 5}{"amount": 6}',
    '{"amount": NaN}',
    '[{"amount": 5}]',
    "null",
    '"text"',
    '{"amount": 5} and more',
]


@pytest.mark.parametrize("args", DAMAGED)
@pytest.mark.parametrize("streamed", [False, True])
def test_damaged_arguments_are_never_run(args: str, streamed: bool) -> None:
    """One strict JSON object, or a call that is invalid; what the schema refuses is refused before
    the tool runs (row 15)."""
    call = {"index": 0, "id": "1", "function": {"name": "transfer", "arguments": args}}
    delta = {"role": "assistant", "tool_calls": [call]}
    part = "delta" if streamed else "message"
    choice = {"index": 0, part: delta, "finish_reason": "tool_calls"}
    body = json.dumps({"choices": [choice]}).encode()
    kind = "text/event-stream" if streamed else "application/json"
    body = b"data: " + body + b"\n\n" if streamed else body
    reply = Reply(headers={"content-type": kind}, body=body)
    with LoopbackServer(lambda _: reply) as server, model_at(server.url) as model:
        bound = model.bind_tools([transfer])
        message = sum(bound.stream("hi")) if streamed else bound.invoke("hi")
    assert message.tool_calls == []
    (invalid,) = message.invalid_tool_calls
    assert (invalid["args"], bool(invalid["error"])) == (args, True)
    with pytest.raises(StreamfoldError):
        transfer.invoke({"amount": "five", "to": "Bob"})


def test_history_makes_messages_and_nothing_else() -> None:
    """Plain JSON in, messages out: no type names, templates or environment (row 16). Nothing of the
    package unpickles or evaluates."""
    evil = {"lc": 1, "type": "constructor", "id": ["os", "system"], "kwargs": {"command": "id"}}
    secret = {"lc": 1, "type": "secret", "id": ["HOME"]}
    for data in (evil, secret, {"type": "__reduce__"}, {"type": "os.system", "data": {}}, {}):
        with pytest.raises(StreamfoldError):
            messages_from_dict([data])
    kept = messages_to_dict([AIMessage("hi", response_metadata={"x": evil, "y": secret})])
    (again,) = messages_from_dict(json.loads(json.dumps(kept)))
    assert type(again) is AIMessage
    assert again.response_metadata == {"x": evil, "y": secret}
    modules, calls = {"pickle", "marshal", "shelve", "dill", "yaml"}, {"eval", "exec", "compile"}
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not modules & {name.partition(".")[0] for name in imported}, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in calls, path


@cache
def _bomb() -> bytes:
    """16 MiB, packed."""
    return gzip.compress(b" " * (16 << 20))


@each_model
@pytest.mark.parametrize("status", [200, 400])
def test_packed_answers_are_bounded(name: str, status: int) -> None:
    """Nobody asks for them; one that comes packed all the same counts as what it unpacks to
    (row 17)."""
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    reply = Reply(status=status, headers=headers, body=_bomb())
    expected = SizeLimitError if status == 200 else InvalidRequestError
    with LoopbackServer(lambda _: reply) as server:
        model = model_at(server.url, name, limits=Limits(message_bytes=1 << 20))
        with model, pytest.raises(expected) as caught:
            model.invoke("hi")
        assert server.requests[0].headers["accept-encoding"] == "identity"
    assert len(str(caught.value)) < 1000


def _stream(*deltas: dict[str, Any]) -> Reply:
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    return Reply(headers={"content-type": "text/event-stream"}, body=body + b"data: [DONE]\n\n")


def _nested(levels: int) -> Any:
    return [_nested(levels - 1)] if levels else []


@pytest.mark.parametrize(
    ("limits", "reply"),
    [
        (Limits(event_bytes=1000), _stream({"content": "x" * 2000})),
        (Limits(message_bytes=1000), _stream(*[{"content": "x" * 300}] * 5)),
        (
            Limits(tool_args_bytes=1000),
            _stream(
                {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "x" * 2000}}]}
            ),
        ),
        (Limits(json_depth=20), _stream({"content": "hi"}, {"content": "x", "x": _nested(30)})),
    ],
)
def test_every_limit_has_its_error(limits: Limits, reply: Reply) -> None:
    """Past a limit of what is kept, the call ends with an error that names it (row 18)."""
    (name,) = [n for n in limits.__struct_fields__ if getattr(limits, n) != getattr(Limits(), n)]
    with LoopbackServer(lambda _: reply) as server:
        model = model_at(server.url, limits=limits)
        with model, pytest.raises(SizeLimitError, match=f"Limits.{name}"):
            list(model.stream("hi"))


def test_the_http_stack_is_new_enough() -> None:
    """h11 before 0.16 could be made to read a request of somebody else (CVE-2025-43859); the other
    bounds are those of the catalogue (row 19)."""
    for name, least in {"h11": (0, 16), "httpcore": (1, 0, 9), "httpx": (0, 28)}.items():
        assert tuple(int(part) for part in version(name).split(".")[:3]) >= least, name


def test_what_a_wheel_brings() -> None:
    """Few dependencies, each with a lower bound; nothing that runs when Python starts (row 20)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = project["dependencies"]
    assert len(needed) <= 6
    assert all(">=" in one for one in needed)
    assert not [path for path in SRC.rglob("*") if path.suffix in (".pth", ".so", ".pkl", ".exe")]
    assert "sitecustomize" not in {path.stem for path in SRC.rglob("*.py")}
    assert set(project["scripts"]) == {"streamfold"}


def test_servers_are_for_this_machine_only(provider: EmbeddedProvider) -> None:
    """What listens does so on the loopback interface, whatever it is told (row 21)."""
    assert provider.url.startswith("http://127.0.0.1:")
    with pytest.raises(TypeError):
        LoopbackServer(lambda request: Reply(), host="0.0.0.0")  # type: ignore[call-arg]
    for path in (SRC / "testing").rglob("*.py"):
        assert "0.0.0.0" not in path.read_text(encoding="utf-8")


@each_model
@pytest.mark.parametrize("size", [499, 500, 501, 50_000])
def test_error_text_is_bounded(name: str, size: int) -> None:
    """At most 500 characters of what the vendor wrote, without keys of anybody (row 22)."""
    prompt = "my prompt, quoted back " * (size // 20)
    text = (f"sk-proj-{'a' * 30} " + prompt)[:size]
    body = json.dumps({"error": {"message": text}, "message": text}).encode()
    with LoopbackServer(lambda _: Reply(status=400, body=body)) as server:
        model = model_at(server.url, name)
        with model, pytest.raises(InvalidRequestError) as caught:
            model.invoke("hi")
    assert len(str(caught.value)) <= 500 + 80
    assert "sk-proj" not in repr(vars(caught.value)) + str(caught.value)
    assert len(caught.value.body or "") <= Limits().error_body_bytes
