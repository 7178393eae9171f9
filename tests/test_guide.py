"""The guide runs: its code blocks, with nothing changed but their import lines.

The guide ("Models", `guide/models.ru.md` of the shared folder) is not part of this repository;
where it is absent, these tests are skipped. `RUNS` has a row for each block; one without a row
fails `test_every_block_is_run`.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from streamfold import (
    AzureChatOpenAI,
    BaseCallbackHandler,
    ChatAnthropic,
    ChatOpenAI,
    init_chat_model,
)
from streamfold.messages import AIMessage, AIMessageChunk
from streamfold.testing import EmbeddedProvider
from streamfold.tools import tool

SHARED = Path(os.environ.get("STREAMFOLD_SHARED") or Path(__file__).parents[2] / "shared")
GUIDE = SHARED / "guide" / "models.ru.md"

#: Where the guide imports from, and where we do.
MODULES: Final = {
    "langchain.chat_models": "streamfold.chat_models",
    "langchain.messages": "streamfold.messages",
    "langchain.tools": "streamfold.tools",
    "langchain_anthropic": "streamfold",
    "langchain_aws": "streamfold",
    "langchain_core.callbacks": "streamfold.callbacks",
    "langchain_core.rate_limiters": "streamfold.rate_limiters",
    "langchain_google_genai": "streamfold",
    "langchain_huggingface": "streamfold",
    "langchain_openai": "streamfold",
}

OPENAI: Final = "openai:gpt-4.1"
ANTHROPIC: Final = "anthropic:claude-sonnet-4-5-20250929"
EITHER: Final = (OPENAI, ANTHROPIC)
THINKING: Final[dict[str, dict[str, Any]]] = {
    OPENAI: {"reasoning_effort": "low"},
    ANTHROPIC: {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4096},
}


class Ran:
    """What a block left behind: `out` (what it printed), `value` (of its last expression, if it
    ends with one), and its variables as attributes."""

    def __init__(self, names: dict[str, Any], out: str, value: Any, provider: EmbeddedProvider):
        self.__dict__.update(names)
        self.out = out
        self.value = value
        self.provider = provider

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    @property
    def sent(self) -> dict[str, Any]:
        """The body of the last request."""
        body: dict[str, Any] = self.provider.requests[-1].json()
        return body

    @property
    def models(self) -> list[str]:
        """The models of all requests."""
        return [request.json()["model"] for request in self.provider.requests]


Check = Callable[[Ran], bool]
Given = Callable[[str], Mapping[str, Any]]


@tool
def get_weather(location: str) -> str:
    """Получить погоду в местоположении."""
    return f"Солнечно в {location}."


@tool
def tool_1(text: str) -> str:
    """A tool that the guide does not describe."""
    return text


def usual(model: str) -> Mapping[str, Any]:
    """The names that the prose takes for granted."""
    made = init_chat_model(model)
    return {
        "model": made,
        "model_with_tools": made.bind_tools([get_weather]),
        "get_weather": get_weather,
        "tool_1": tool_1,
    }


class Run(NamedTuple):
    """How a block is run.

    `piece`: some of its code, so that another edition of the guide is noticed.
    `check`: what must hold afterwards. `given`: the names that the prose takes for granted, made
    for a model's name. `models`: the models to run it with. `fill`: code for its placeholders,
    with URL for the provider's address.
    """

    piece: str
    check: Check
    given: Given = usual
    models: tuple[str, ...] = EITHER
    fill: Mapping[str, str] = {}


def nothing(model: str) -> Mapping[str, Any]:
    """The block brings all that it needs."""
    return {}


def factory(model: str) -> Mapping[str, Any]:
    return {"init_chat_model": init_chat_model}


def thinking(model: str) -> Mapping[str, Any]:
    return {"model": init_chat_model(model, **THINKING[model])}


def _one(check: Check, piece: str, given: Given = nothing, **fill: str) -> Run:
    """A block that names its own model."""
    return Run(piece, check, given, ("",), fill)


class Ended(BaseCallbackHandler):
    """A handler that keeps the messages that runs end with."""

    def __init__(self) -> None:
        self.ended: list[Any] = []

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.ended.append(response.generations[0][0].message)


#: How block 67 makes its model, for block 68.
FIRST: Final[dict[str, Any]] = {
    "temperature": 0,
    "configurable_fields": ("model", "model_provider", "temperature", "max_tokens"),
    "config_prefix": "first",
}


def _answers(ran: Ran) -> bool:
    """The block's model works."""
    return "попугаи" in ran.model.invoke("Почему попугаи говорят?").text


def _joined(ran: Ran) -> str:
    """What `print(text, end="|")` said."""
    return ran.out.replace("|", "")


def _forced(ran: Ran) -> list[str]:
    """The tools that the block's model calls, whatever it is asked."""
    return [call["name"] for call in ran.model_with_tools.invoke("Привет").tool_calls]


def _details(ran: Ran) -> Any:
    """What the block's model makes of a film."""
    return ran.model_with_structure.invoke("Предоставьте детали о фильме Inception")


def _is_inception(film: Mapping[str, Any]) -> bool:
    """All fields are there, with values of their types."""
    types = {name: type(value) for name, value in film.items()}
    return film["title"] == "Inception" and types == {
        "title": str,
        "year": int,
        "director": str,
        "rating": float,
    }


def _is_usage_of_both(usage: Mapping[str, Any]) -> bool:
    """A row for each model that answered, under the name it answered with."""
    return usage.keys() == {"gpt-4o-mini-2024-07-18", "claude-haiku-4-5-20251001"} and all(
        row["input_tokens"] + row["output_tokens"] == row["total_tokens"] for row in usage.values()
    )


#: The guide writes "..." for the address of a resource.
AZURE: Final = ("AZURE_OPENAI_DEPLOYMENT_NAME",)
HERE: Final = {
    """os.environ["AZURE_OPENAI_ENDPOINT"] = "..."
""": """os.environ["AZURE_OPENAI_ENDPOINT"] = "URL"
"""
}

FEATHERS: Final = "Почему у попугаев красочные перья?"

RUNS: Final[dict[int, Run]] = {
    # Initialisation
    1: _one(lambda ran: isinstance(ran.model, ChatOpenAI) and _answers(ran), "init_chat_model("),
    2: _one(lambda ran: isinstance(ran.model, ChatOpenAI) and _answers(ran), "ChatOpenAI("),
    4: _one(lambda ran: isinstance(ran.model, ChatAnthropic) and _answers(ran), "init_chat_model("),
    5: _one(lambda ran: isinstance(ran.model, ChatAnthropic) and _answers(ran), "ChatAnthropic("),
    7: _one(lambda ran: isinstance(ran.model, AzureChatOpenAI) and _answers(ran), *AZURE, **HERE),
    8: _one(lambda ran: isinstance(ran.model, AzureChatOpenAI) and _answers(ran), *AZURE, **HERE),
    10: _one(_answers, "google_genai:"),
    11: _one(_answers, "ChatGoogleGenerativeAI("),
    13: _one(_answers, '"bedrock_converse"'),
    14: _one(_answers, "ChatBedrock("),
    16: _one(_answers, '"huggingface"'),
    17: _one(
        lambda ran: (
            _answers(ran) and (ran.sent["max_tokens"], ran.sent["temperature"]) == (1024, 0.7)
        ),
        "HuggingFaceEndpoint(",
    ),
    18: Run("response = model.invoke(", lambda ran: "попугаи" in ran.response.text),
    19: _one(
        lambda ran: (
            _answers(ran) and (ran.sent["max_tokens"], ran.sent["temperature"]) == (1000, 0.7)
        ),
        "timeout=30",
        factory,
    ),
    # Invoke
    20: Run(
        "print(response)", lambda ran: FEATHERS in ran.out and ran.out.startswith("AIMessage(")
    ),
    21: Run('{"role": "system"', lambda ran: "building applications" in ran.response.text),
    22: Run("SystemMessage(", lambda ran: "building applications" in ran.response.text),
    # Stream
    23: Run('end="|"', lambda ran: FEATHERS in _joined(ran) and ran.out.count("|") > 10),
    24: Run(
        '"tool_call_chunk"',
        lambda ran: "Рассуждение:" in ran.out and "небо" in ran.out and ran.chunk.content == "",
        thinking,
    ),
    25: Run(
        "full + chunk",
        lambda ran: (
            isinstance(ran.full, AIMessageChunk)
            and ran.full.content_blocks == [{"type": "text", "text": ran.full.text}]
            and ran.out.splitlines()[-1] == str(ran.full.content_blocks)
        ),
    ),
    26: Run(
        "astream_events",
        lambda ran: ran.out.startswith("Ввод: Привет\nТокен: ") and "Полное сообщение: " in ran.out,
    ),
    # Batch
    28: Run(
        "model.batch(",
        lambda ran: [FEATHERS in r.text for r in ran.responses] == [True, False, False],
    ),
    29: Run("batch_as_completed", lambda ran: _indexes(ran.out) == {0, 1, 2}),
    30: Run(
        "max_concurrency",
        lambda ran: (
            [message.text for message in ran.value]
            == [ran.model.invoke(text).text for text in ran.list_of_inputs]
            and ran.provider.connections <= 5
        ),
        lambda model: {
            "model": init_chat_model(model),
            "list_of_inputs": [f"Сколько будет {n} + {n}?" for n in range(12)],
        },
    ),
    # Tools
    32: Run(
        "@tool",
        lambda ran: ran.out == "Инструмент: get_weather\nАргументы: {'location': 'Бостоне'}\n",
    ),
    33: Run("get_weather.invoke(tool_call)", lambda ran: "Солнечно в Бостоне." in ran.out),
    34: Run('tool_choice="any"', lambda ran: _forced(ran) == ["tool_1"]),
    35: Run('tool_choice="tool_1"', lambda ran: _forced(ran) == ["tool_1"]),
    36: Run(
        "Бостоне и Токио",
        lambda ran: (
            [message.content for message in ran.results]
            == ["Солнечно в Бостоне.", "Солнечно в Токио."]
        ),
    ),
    37: Run(
        "parallel_tool_calls=False",
        lambda ran: len(ran.value.invoke("Какая погода в Бостоне и Токио?").tool_calls) == 1,
    ),
    38: Run(
        "chunk.tool_call_chunks",
        lambda ran: (
            ran.out.count("Инструмент: get_weather") == ran.out.count("ID: ") == 2
            and ran.out.count("Аргументы: ") > 4
        ),
    ),
    39: Run(
        "gathered + chunk",
        lambda ran: "'args': {'location': 'Бостоне'}" in ran.out.splitlines()[-1],
    ),
    # Structured output
    40: Run("class Movie(", lambda ran: _is_inception(vars(ran.response))),
    41: Run("class MovieDict(", lambda ran: _is_inception(ran.response)),
    42: Run('method="json_schema"', lambda ran: _is_inception(ran.response)),
    43: Run(
        "include_raw=True",
        lambda ran: (
            ran.value["parsed"].title == "Inception"
            and isinstance(ran.value["raw"], AIMessage)
            and ran.value["parsing_error"] is None
        ),
    ),
    44: Run(
        "cast: list[Actor]",
        lambda ran: isinstance(_details(ran).cast[0], ran.Actor),
    ),
    45: Run(
        "class MovieDetails(TypedDict)",
        lambda ran: "role" in _details(ran)["cast"][0],
    ),
    # Profiles
    46: Run("model.profile", lambda ran: isinstance(ran.value, dict)),
    47: _one(
        lambda ran: ran.model.profile == ran.custom_profile,
        "custom_profile = {",
        factory,
        **{'"..."': '"gpt-4.1"'},
    ),
    48: Run(
        "model.model_copy(",
        lambda ran: ran.value.profile["key"] == "value" and "key" not in ran.model.profile,
    ),
    # What is in an answer
    52: Run("Создать картинку", lambda ran: ast.literal_eval(ran.out)[0]["type"] == "text"),
    53: Run(
        "chunk.content_blocks",
        lambda ran: "[{'type': 'reasoning'" in ran.out and "\nперья" in ran.out.replace(" ", ""),
        thinking,
    ),
    54: Run('step["reasoning"]', lambda ran: "Пользователь пишет" in ran.out, thinking),
    # What runs at the provider
    55: _one(
        lambda ran: (
            [block["type"] for block in ran.value]
            == ["server_tool_call", "server_tool_result", "text"]
            and ran.provider.requests[-1].path == "/v1/responses"
        ),
        '"web_search"',
    ),
    # Limits and addresses
    57: _one(
        lambda ran: isinstance(ran.model, ChatOpenAI) and callable(ran.rate_limiter.acquire),
        "InMemoryRateLimiter(",
        factory,
    ),
    58: _one(
        lambda ran: _answers(ran) and ran.sent["model"] == "MODEL_NAME",
        'base_url="BASE_URL"',
        factory,
        **{'"BASE_URL"': '"URL/v1"'},
    ),
    59: _one(lambda ran: isinstance(ran.model, ChatOpenAI), "openai_proxy="),
    60: _one(
        lambda ran: "logprob" in ran.out and ran.response.response_metadata["logprobs"]["content"],
        ".bind(logprobs=True)",
        factory,
    ),
    # Usage
    61: _one(lambda ran: _is_usage_of_both(ran.value), "UsageMetadataCallbackHandler"),
    63: _one(
        lambda ran: _is_usage_of_both(ast.literal_eval(ran.out)), "get_usage_metadata_callback"
    ),
    # What a call is told besides its input
    65: Run(
        '"callbacks": [my_callback_handler]',
        lambda ran: ran.my_callback_handler.ended == [ran.response],
        lambda model: {"model": init_chat_model(model), "my_callback_handler": Ended()},
    ),
    66: _one(
        lambda ran: ran.models == ["gpt-5-nano", "claude-sonnet-4-5-20250929"],
        "configurable_model.invoke(",
    ),
    67: _one(lambda ran: ran.models == ["gpt-4.1-mini"], 'config_prefix="first"', factory),
    68: _one(
        lambda ran: (
            ran.models == ["claude-sonnet-4-5-20250929"]
            and (ran.sent["temperature"], ran.sent["max_tokens"]) == (0.5, 100)
        ),
        '"first_max_tokens": 100',
        lambda model: {"first_model": init_chat_model("gpt-4.1-mini", **FIRST)},
    ),
    # The guide's own indentation is wrong here.
    69: _one(
        lambda ran: (
            ran.models == ["gpt-4.1-mini"] and ran.value[0]["args"] == {"location": "Лос-Анджелес"}
        ),
        "class GetPopulation(",
        factory,
        **{"        location": "    location"},
    ),
    71: _one(
        lambda ran: (
            ran.models == ["claude-sonnet-4-5-20250929"] and ran.value[0]["name"] == "get_weather"
        ),
        ").tool_calls",
        lambda model: {"model_with_tools": init_chat_model().bind_tools([get_weather])},
    ),
}

#: Python in name only: what a call returns.
SHOWN: Final = {56, 62, 64}


# ---- reading and running -------------------------------------------------------------------------


class Block(NamedTuple):
    """A fenced block of the guide, without its indentation."""

    number: int
    language: str
    code: str


def blocks() -> list[Block]:
    """All blocks of the guide, numbered from 0; none where there is no guide."""
    if not GUIDE.exists():
        return []
    fence = re.compile(r"^[ ]*```(\w*)[^\n]*\n(.*?)^[ ]*```", re.MULTILINE | re.DOTALL)
    found = fence.findall(GUIDE.read_text(encoding="utf-8"))
    return [Block(n, lang, textwrap.dedent(code)) for n, (lang, code) in enumerate(found)]


BLOCKS: Final = blocks()

#: What a reader of the guide has set, and what its blocks set themselves.
VARIABLES: Final = {
    "OPENAI_BASE_URL": "URL/v1",
    "OPENAI_API_KEY": "any",
    "OPENAI_API_VERSION": "any",
    "ANTHROPIC_BASE_URL": "URL",
    "ANTHROPIC_API_KEY": "any",
    "AZURE_OPENAI_ENDPOINT": "URL",
    "AZURE_OPENAI_API_KEY": "any",
    "AZURE_OPENAI_DEPLOYMENT_NAME": "gpt-4.1",
    "GOOGLE_GEMINI_BASE_URL": "URL/v1beta",
    "GOOGLE_API_KEY": "any",
    "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "URL",
    "AWS_BEARER_TOKEN_BEDROCK": "any",
    "AWS_REGION": "us-east-1",
    "HF_INFERENCE_BASE_URL": "URL/v1",
    "HUGGINGFACEHUB_API_TOKEN": "any",
}

pytestmark = pytest.mark.skipif(not BLOCKS, reason=f"there is no guide at {GUIDE}")


def translated(code: str) -> str:
    """The code with our modules in its import lines; nothing else is touched."""
    return re.sub(r"^([ ]*from[ ]+)(langchain[\w.]*)", _ours, code, flags=re.MULTILINE)


def _ours(line: re.Match[str]) -> str:
    return line[1] + MODULES[line[2]]


def run(code: str, names: dict[str, Any]) -> Any:
    """Run `code` as a notebook cell: it may await, and its last expression is its value."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    names["__name__"] = "__main__"
    _execute(_compiled(tree, "exec"), names)
    if not isinstance(last, ast.Expr):
        return None
    return _execute(_compiled(ast.Expression(last.value), "eval"), names)


def _compiled(tree: ast.Module | ast.Expression, mode: str) -> CodeType:
    """Without this file's `from __future__` imports, which blocks know nothing of."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return compile(tree, GUIDE.name, mode, flags, dont_inherit=True)


def _execute(code: CodeType, names: dict[str, Any]) -> Any:
    if not code.co_flags & inspect.CO_COROUTINE:
        return eval(code, names)

    async def awaited() -> Any:
        return await eval(code, names)

    return asyncio.run(awaited())


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedProvider]:
    """All vendors at once; their variables lead to it, and are as they were afterwards."""
    with EmbeddedProvider() as provider:
        for name, value in VARIABLES.items():
            monkeypatch.setenv(name, value.replace("URL", provider.url))
        yield provider


def _cases() -> Iterator[Any]:
    for number, row in RUNS.items():
        for model in row.models:
            yield pytest.param(number, model, id=f"{number}-{model.partition(':')[0]}".rstrip("-"))


@pytest.mark.parametrize(("number", "model"), list(_cases()))
def test_block(
    number: int, model: str, provider: EmbeddedProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    """The block runs and leaves behind what the guide says."""
    row, code = RUNS[number], translated(BLOCKS[number].code)
    assert row.piece in code
    for placeholder, value in row.fill.items():
        assert placeholder in code
        code = code.replace(placeholder, value.replace("URL", provider.url))
    if "pydantic" in code:
        pytest.importorskip("pydantic")
    names = dict(row.given(model))
    value = run(code, names)
    out = capsys.readouterr().out
    assert row.check(Ran(names, out, value, provider)), out


def test_every_block_is_run() -> None:
    """Each Python block has a row; no row is left over."""
    # Two blocks without a language show output.
    assert {block.number for block in BLOCKS if block.language == "python"} == RUNS.keys() | SHOWN


def test_every_import_has_a_home() -> None:
    """No block imports from a module that the table does not know."""
    for block in BLOCKS:
        assert "from langchain" not in translated(block.code)


def _indexes(printed: str) -> set[int]:
    """The indexes of printed ``(index, message)`` pairs."""
    return {int(line[1]) for line in printed.splitlines()}
