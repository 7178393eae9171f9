"""The vendors: which model names are whose, where each is asked and with what, and what LangChain's
users call its parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from streamfold import (
    AzureChatOpenAI,
    ChatAnthropic,
    ChatBedrock,
    ChatGoogleGenerativeAI,
    ChatHuggingFace,
    ChatOllama,
    ChatOpenAI,
    HuggingFaceEndpoint,
    Timeouts,
    Vendor,
    init_chat_model,
    register_provider,
    vendors,
)
from streamfold.errors import ConfigurationError
from streamfold.testing import EmbeddedProvider
from streamfold.vendors import infer_provider, vendor, vendor_names


@pytest.fixture
def provider() -> Iterator[EmbeddedProvider]:
    with EmbeddedProvider() as running:
        yield running


def sent(provider: EmbeddedProvider) -> dict[str, Any]:
    """The body of the last request."""
    body: dict[str, Any] = json.loads(provider.requests[-1].body)
    return body


# ---- whose model it is ---------------------------------------------------------------------------

NAMES = {
    "openai": "gpt-4.1 GPT-4o gpt-5-nano o1 o3-mini o4-mini chatgpt-4o codex-mini text-davinci-003",
    "anthropic": "claude-sonnet-4-5 Claude-3",
    "google_genai": "gemini-2.5-flash-lite models/gemini-3-pro",
    "cohere": "command-r command-a-03-2025",
    "fireworks": "accounts/fireworks/models/x",
    "bedrock_converse": "amazon.nova-lite-v1:0 anthropic.claude-v2 meta.llama3 us.anthropic.claude "
    "eu.amazon.nova-pro-v1:0 apac.amazon.nova global.anthropic.claude us.deepseek.r1-v1:0 "
    "mistral.mistral-large-2402-v1:0 arn:aws:bedrock:us-east-1:1:inference-profile/x",
    "mistralai": "mistral-large-latest mixtral-8x7b",
    "deepseek": "deepseek-chat",
    "xai": "grok-4",
    "perplexity": "sonar-pro",
    "upstage": "solar-pro",
}


@pytest.mark.parametrize(
    ("name", "whose"), [(name, whose) for whose, names in NAMES.items() for name in names.split()]
)
def test_whose_a_model_is(name: str, whose: str) -> None:
    assert infer_provider(name) == whose


@pytest.mark.parametrize("name", ["llama3", "qwen3", "kimi-k2", "o5-nano-x", "unheard-of"])
def test_names_that_are_nobodys(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be told"):
        infer_provider(name)


@pytest.mark.parametrize("prefix", ["azure_openai", "azure-openai", "Azure-OpenAI"])
def test_a_prefix_in_any_spelling(prefix: str) -> None:
    model = init_chat_model(
        f"{prefix}:gpt-4.1", azure_endpoint="https://x", api_version="v1", api_key="k"
    )
    assert isinstance(model, AzureChatOpenAI)
    assert model.model == "gpt-4.1"


def test_the_rest_of_a_name_may_have_colons() -> None:
    assert init_chat_model("ollama:llama3:8b").model == "llama3:8b"
    assert init_chat_model("llama3:8b", model_provider="ollama").model == "llama3:8b"


# ---- where it is asked, and with what ------------------------------------------------------------

LIKE_OPENAI = [
    name for name in vendor_names() if vendor(name).address in ("plain", "openai", "huggingface")
]


@pytest.mark.parametrize("name", LIKE_OPENAI)
def test_key_and_address_from_the_environment(
    name: str, provider: EmbeddedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first variable that is set counts; the key goes in the header that the vendor reads."""
    row = vendor(name)
    for variable in row.key_env:
        monkeypatch.setenv(variable, "the-key")
    path = {"openai_chat": "/v1", "gemini": "/v1beta"}.get(row.dialect, "")
    monkeypatch.setenv(row.base_url_env[0], provider.url + path)
    with init_chat_model("m", model_provider=name) as model:
        assert model.invoke("hi").text
    headers = provider.requests[-1].headers
    header = {"bearer": "authorization"}.get(row.auth, row.auth)
    assert headers[header].endswith("the-key")


def test_whose_account_is_billed(
    provider: EmbeddedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenAI's organisation and project, by parameter, LangChain's name for it, or variable."""
    at = {"base_url": provider.url + "/v1", "api_key": "k"}
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-around")
    for given in ({"organization": "org-1"}, {"openai_organization": "org-1"}):
        ChatOpenAI("gpt-4.1", **at, **given).invoke("hi")
        headers = provider.requests[-1].headers
        assert headers["openai-organization"] == "org-1"
        assert headers["openai-project"] == "proj-around"
    monkeypatch.setenv("OPENAI_ORG_ID", "org-around")
    ChatOpenAI("gpt-4.1", **at, default_headers={"OpenAI-Project": "own"}).invoke("hi")
    headers = provider.requests[-1].headers
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-around", "own")


# ---- what LangChain calls it ---------------------------------------------------------------------

OPENAI = (ChatOpenAI, {"api_key": "k"}, "/v1")
ANTHROPIC = (ChatAnthropic, {"api_key": "k"}, "")
GEMINI = (ChatGoogleGenerativeAI, {"api_key": "k"}, "/v1beta")
BEDROCK = (ChatBedrock, {"api_key": "k", "region_name": "us-east-1"}, "")
OLLAMA = (ChatOllama, {}, "")

#: Class, what it is given, and the part of the request body that this becomes.
GIVEN: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    (OPENAI, {"max_tokens": 5}, {"max_completion_tokens": 5}),
    (OPENAI, {"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
    (OPENAI, {"stop_sequences": ["x"]}, {"stop": ["x"]}),
    (OPENAI, {"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
    (OPENAI, {"prompt_cache_key": "p"}, {"prompt_cache_key": "p"}),
    (OPENAI, {"model_kwargs": {"logit_bias": {"1": 2}}}, {"logit_bias": {"1": 2}}),
    (OPENAI, {"reasoning": {"effort": "low"}}, {"reasoning": {"effort": "low"}}),
    (OPENAI, {"verbosity": "low", "use_responses_api": True}, {"text": {"verbosity": "low"}}),
    (ANTHROPIC, {"max_tokens_to_sample": 5}, {"max_tokens": 5}),
    (ANTHROPIC, {"effort": "low"}, {"output_config": {"effort": "low"}}),
    (
        ANTHROPIC,
        {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 4000},
        {"thinking": {"type": "enabled", "budget_tokens": 2000}},
    ),
    (GEMINI, {"max_output_tokens": 5}, {"generationConfig": {"maxOutputTokens": 5}}),
    (
        GEMINI,
        {"thinking_budget": 7, "include_thoughts": True},
        {"generationConfig": {"thinkingConfig": {"thinkingBudget": 7, "includeThoughts": True}}},
    ),
    (GEMINI, {"cached_content": "cachedContents/x"}, {"cachedContent": "cachedContents/x"}),
    (BEDROCK, {"max_tokens": 5}, {"inferenceConfig": {"maxTokens": 5}}),
    (BEDROCK, {"stop_sequences": ["x"]}, {"inferenceConfig": {"stopSequences": ["x"]}}),
    (
        BEDROCK,
        {"additional_model_request_fields": {"top_k": 3}},
        {"additionalModelRequestFields": {"top_k": 3}},
    ),
    (OLLAMA, {"num_predict": -1}, {"options": {"num_predict": -1}}),
    (OLLAMA, {"max_tokens": 5}, {"options": {"num_predict": 5}}),
    (OLLAMA, {"reasoning": True}, {"think": True}),
    (OLLAMA, {"num_ctx": 100, "keep_alive": "5m"}, {"options": {"num_ctx": 100}}),
]


@pytest.mark.parametrize(
    ("how", "given", "becomes"),
    [pytest.param(*row, id=f"{row[0][0].__name__}-{'-'.join(row[1])}") for row in GIVEN],
)
@pytest.mark.parametrize("per_call", [False, True], ids=["model", "call"])
def test_a_parameter_becomes_a_field(
    how: Any, given: dict[str, Any], becomes: dict[str, Any], per_call: bool, provider: Any
) -> None:
    """Given to the class or to a call."""
    make, fields, path = how
    name = "m" if make is not ChatAnthropic else "claude-opus-4-6"
    at = {"base_url": provider.url + path, **fields}
    if per_call:
        if "model_kwargs" in given:
            pytest.skip("it belongs to the model")
        make(name, **at).invoke("hi", **given)
    else:
        make(name, **at, **given).invoke("hi")
    body = sent(provider)
    assert {key: body.get(key) for key in becomes} == becomes


def test_the_api_that_a_call_of_openai_needs(provider: EmbeddedProvider) -> None:
    """Chat Completions, unless a tool or a parameter is only in the other; as told, if told."""
    model = ChatOpenAI("gpt-4.1", api_key="k", base_url=provider.url + "/v1")
    search = [{"type": "web_search"}]
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (model, {}, "chat/completions"),
        (model, {"reasoning": {"effort": "low"}}, "responses"),
        (model, {"previous_response_id": "resp_1"}, "responses"),
        (model.bind(tools=search), {}, "responses"),
        (model.bind_tools(search), {}, "responses"),
        (model, {"use_responses_api": True}, "responses"),
        (model.bind(use_responses_api=False), {"prompt_cache_key": "x"}, "chat/completions"),
    ]
    for asked, given, path in cases:
        asked.invoke("hi", **given)
        assert provider.requests[-1].path == f"/v1/{path}"


def test_limits_by_langchains_names(provider: EmbeddedProvider) -> None:
    at = {"base_url": provider.url + "/v1", "api_key": "k"}
    model = ChatOpenAI("m", **at, request_timeout=30, stream_chunk_timeout=7)
    assert model._settings.timeouts == Timeouts(first_event=30.0, idle=7)
    with pytest.raises(ConfigurationError, match="stream_chunk_timeout is -1"):
        ChatOpenAI("m", **at, stream_chunk_timeout=-1)


@pytest.mark.anyio
async def test_the_async_client_by_langchains_name(provider: EmbeddedProvider) -> None:
    seen: list[Any] = []

    async def hook(request: httpx.Request) -> None:
        seen.append(request)

    async with httpx.AsyncClient(event_hooks={"request": [hook]}) as client:
        at = {"base_url": provider.url + "/v1", "api_key": "k"}
        await ChatOpenAI("m", **at, http_async_client=client).ainvoke("hi")
    assert len(seen) == 1


def test_what_is_no_client() -> None:
    """A sync client, and what is none at all."""
    with (
        httpx.Client() as client,
        pytest.raises(ConfigurationError, match=r"http_client is a sync client \(Client\)"),
    ):
        ChatOpenAI("m", api_key="k", http_client=client)
    with pytest.raises(ConfigurationError, match="http_client is 'x': expected an httpx"):
        ChatOpenAI("m", api_key="k", http_client="x")


def test_the_form_of_content() -> None:
    """There is one: asking for it changes nothing, asking for another is an error."""
    for version in ("v1", "responses/v1"):
        ChatOpenAI("m", api_key="k", output_version=version)
    with pytest.raises(ConfigurationError, match="output_version is 'v0'"):
        ChatOpenAI("m", api_key="k", output_version="v0")


def test_tokens_by_ones_own_tokenizer() -> None:
    model = ChatOpenAI("m", api_key="k", custom_get_token_ids=str.split)
    assert model.get_num_tokens("one two three") == 3


def test_a_model_of_hugging_face(provider: EmbeddedProvider) -> None:
    """As its users write it; the provider that answers is a part of the model's name."""
    at = {"huggingfacehub_api_token": "k", "base_url": provider.url + "/v1"}
    fields = {"task": "text-generation", "max_new_tokens": 9, "do_sample": False, **at}
    for named, expected in ((None, "org/m"), ("auto", "org/m"), ("nebius", "org/m:nebius")):
        llm = HuggingFaceEndpoint(repo_id="org/m", provider=named, **fields)
        ChatHuggingFace(llm=llm).invoke("hi")
        body = sent(provider)
        assert (body["model"], body["max_tokens"]) == (expected, 9)
        assert not body.keys() & {"task", "do_sample", "provider"}


def test_what_is_no_model_of_hugging_face() -> None:
    """It shows which model it is; what is neither a model nor an endpoint is refused."""
    assert repr(HuggingFaceEndpoint("org/m", provider="nebius")) == (
        "HuggingFaceEndpoint('org/m:nebius')"
    )
    assert repr(HuggingFaceEndpoint(endpoint_url="https://e.example")) == (
        "HuggingFaceEndpoint('tgi')"
    )
    with pytest.raises(ConfigurationError, match="needs a repo_id or an endpoint_url"):
        HuggingFaceEndpoint()
    with pytest.raises(ConfigurationError, match=r"llm is str: expected a streamfold\.Hugging"):
        ChatHuggingFace(llm="org/m")  # type: ignore[arg-type]


# ---- a vendor of one's own -----------------------------------------------------------------------


@pytest.fixture
def _rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is registered is forgotten."""
    monkeypatch.setattr(vendors, "_vendors", dict(vendors._vendors))


@pytest.mark.usefixtures("_rows")
def test_a_row_is_a_vendor(provider: EmbeddedProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under its name, at its address, with the key of its variable; a second row replaces it."""
    row = Vendor(
        name="acme", dialect="openai_chat", base_url=provider.url + "/v1", key_env=("ACME_KEY",)
    )
    assert register_provider(row) is row
    assert "acme" in vendor_names()
    monkeypatch.setenv("ACME_KEY", "the-key")
    assert init_chat_model("acme:rocket-1").invoke("hi").text
    assert provider.requests[-1].headers["authorization"] == "Bearer the-key"
    assert sent(provider)["model"] == "rocket-1"
    other = register_provider(Vendor(name="acme", dialect="ollama", base_url=provider.url))
    assert vendor("acme") is other
    assert vendor_names().count("acme") == 1


@pytest.mark.usefixtures("_rows")
@pytest.mark.parametrize(
    ("field", "says"),
    [
        ({"dialect": "morse"}, "dialect 'morse' is unknown: expected one of openai_chat"),
        ({"dialect": "ollama", "auth": "oath"}, "auth 'oath' is unknown: expected one of bearer"),
    ],
)
def test_a_row_that_cannot_be(field: dict[str, Any], says: str) -> None:
    """It is said when it is registered, and nobody is known by it."""
    with pytest.raises(ConfigurationError, match=says):
        register_provider(Vendor(name="nemo", base_url="https://nemo.example", **field))
    assert "nemo" not in vendor_names()


# ---- profiles ------------------------------------------------------------------------------------


def test_the_profile_of_a_copy_is_its_own() -> None:
    """`profile=` takes the place of what the package knows, and each model owns its dict."""
    model = ChatOpenAI("gpt-4.1", api_key="k")
    assert model.profile["tool_calling"] is True
    changed = model.profile | {"max_input_tokens": 9}
    copy = model.model_copy(update={"profile": changed})
    assert copy.profile == changed
    copy.profile["max_input_tokens"] = 10
    assert changed["max_input_tokens"] == 9
    assert model.profile["max_input_tokens"] > 10
    assert ChatOpenAI("gpt-4.1", api_key="k", profile={"x": 1}).profile == {"x": 1}
    assert ChatOpenAI("unheard-of", api_key="k").profile == {}
