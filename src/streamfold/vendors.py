"""The vendors: a row each, over the dialect they speak.

A row says where the API is, which variables hold its key and address, how the key is sent, which
model names are its own, and where it departs from the dialect (`quirks`). Adding a vendor is
adding a row; `register_provider` does it at run time.
"""

from __future__ import annotations

import difflib
import importlib
import re
from typing import Any, Final

import msgspec

from .errors import ConfigurationError
from .wire.codec import Dialect

__all__ = ["Vendor", "dialect", "infer_provider", "register_provider", "vendor", "vendor_names"]


class Vendor(msgspec.Struct, frozen=True, kw_only=True):
    """One vendor.

    - `dialect`: the module of `wire/` that speaks its API; `other_dialects`: further ones;
    - `base_url`: the default address (None: must be given); `base_url_env` may replace it;
    - `key_env`: variables that may hold the key, the first one set counts; `needs_key`: whether
      the vendor's own address asks for one;
    - `auth`: how the key is sent (`net/auth.py`);
    - `patterns`: regular expressions for model names that mean this vendor;
    - `quirks`: departures from the dialect that its `encode` knows;
    - `address`: the function of `addresses.py` that finds its address;
    - `settings`: parameters of that address; `aliases`: names that this vendor's users know for
      parameters, and the standard name of each;
    - `statuses`: what an HTTP status of its own means, in the word for such an error;
    - `start_hint`: for local servers, how to start one.
    """

    name: str
    dialect: str
    other_dialects: tuple[str, ...] = ()
    address: str = "plain"
    base_url: str | None = None
    base_url_env: tuple[str, ...] = ()
    key_env: tuple[str, ...] = ()
    needs_key: bool = True
    auth: str = "bearer"
    patterns: tuple[str, ...] = ()
    quirks: frozenset[str] = frozenset()
    settings: frozenset[str] = frozenset()
    aliases: dict[str, str] = {}
    statuses: dict[int, str] = {}
    start_hint: str = ""


def _openai_like(name: str, base_url: str, *key_env: str, **fields: object) -> Vendor:
    """A row for a vendor that speaks Chat Completions at an address of its own."""
    fields.setdefault("base_url_env", (f"{name.upper()}_BASE_URL", f"{name.upper()}_API_BASE"))
    return Vendor(
        name=name,
        dialect="openai_chat",
        base_url=base_url,
        key_env=key_env or (f"{name.upper()}_API_KEY",),
        **fields,  # type: ignore[arg-type]
    )


def _local(name: str, base_url: str, start_hint: str, **fields: object) -> Vendor:
    return _openai_like(name, base_url, needs_key=False, start_hint=start_hint, **fields)


_AZURE_SETTINGS: Final = frozenset(
    {"azure_endpoint", "azure_deployment", "api_version", "azure_ad_token"}
    | {"azure_ad_token_provider", "azure_resource"}
)
_GOOGLE_SETTINGS: Final = frozenset({"project", "location", "credentials"})
_AWS_SETTINGS: Final = frozenset(
    {"region_name", "credentials_profile_name"}
    | {"aws_access_key_id", "aws_secret_access_key", "aws_session_token"}
)
_BEDROCK: Final = {
    "dialect": "bedrock",
    "address": "bedrock",
    "base_url_env": ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME",),
    "key_env": ("AWS_BEARER_TOKEN_BEDROCK",),
    "needs_key": False,
    "settings": _AWS_SETTINGS,
    "aliases": {"region": "region_name", "endpoint_url": "base_url", "bedrock_api_key": "api_key"},
}

_ROWS: Final = (
    Vendor(
        name="openai",
        dialect="openai_chat",
        other_dialects=("openai_responses",),
        address="openai",
        base_url="https://api.openai.com/v1",
        base_url_env=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
        key_env=("OPENAI_API_KEY",),
        patterns=(r"gpt-", r"o[134](-|$)", r"chatgpt", r"codex", r"text-davinci"),
        quirks=frozenset({"max_completion_tokens"}),
        settings=frozenset({"organization", "project"}),
        aliases={"openai_organization": "organization"},
    ),
    Vendor(
        name="azure_openai",
        dialect="openai_chat",
        other_dialects=("openai_responses",),
        address="azure",
        key_env=("AZURE_OPENAI_API_KEY",),
        quirks=frozenset({"max_completion_tokens"}),
        settings=_AZURE_SETTINGS,
        aliases={
            "deployment_name": "azure_deployment",
            "openai_api_version": "api_version",
            "azure_openai_api_key": "api_key",
            "azure_ad_async_token_provider": "azure_ad_token_provider",
        },
    ),
    Vendor(
        name="anthropic",
        dialect="anthropic",
        base_url="https://api.anthropic.com",
        base_url_env=("ANTHROPIC_BASE_URL", "ANTHROPIC_API_URL"),
        key_env=("ANTHROPIC_API_KEY",),
        auth="x-api-key",
        patterns=(r"claude",),
        aliases={"effort": "reasoning_effort"},
    ),
    Vendor(
        name="google_anthropic_vertex",
        dialect="anthropic",
        address="vertex_anthropic",
        needs_key=False,
        quirks=frozenset({"vertex", "no_urls"}),
        settings=_GOOGLE_SETTINGS,
    ),
    Vendor(
        name="azure_anthropic",
        dialect="anthropic",
        address="azure_anthropic",
        base_url_env=("ANTHROPIC_FOUNDRY_BASE_URL",),
        key_env=("ANTHROPIC_FOUNDRY_API_KEY",),
        auth="x-api-key",
        settings=_AZURE_SETTINGS,
    ),
    Vendor(
        name="google_genai",
        dialect="gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta",
        base_url_env=("GOOGLE_GEMINI_BASE_URL",),
        key_env=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        auth="x-goog-api-key",
        patterns=(r"gemini", r"gemma", r"models/gemini"),
        aliases={
            "google_api_key": "api_key",
            "client_options": "base_url",
            "additional_headers": "default_headers",
        },
    ),
    Vendor(
        name="google_vertexai",
        dialect="gemini",
        address="vertex",
        base_url_env=("GOOGLE_VERTEX_BASE_URL",),
        needs_key=False,
        settings=_GOOGLE_SETTINGS,
        aliases={"google_api_key": "api_key"},
    ),
    Vendor(
        name="bedrock_converse",
        patterns=(
            r"((us|eu|apac|jp|au|ca|sa|us-gov|global)\.)?"
            r"(amazon|anthropic|meta|mistral|cohere|ai21|deepseek|openai|qwen|writer)\.",
            r"arn:aws[a-z-]*:bedrock:",
        ),
        **_BEDROCK,  # type: ignore[arg-type]
    ),
    Vendor(name="bedrock", **_BEDROCK),  # type: ignore[arg-type]
    _openai_like(
        "huggingface",
        "https://router.huggingface.co/v1",
        "HUGGINGFACEHUB_API_TOKEN",
        "HF_TOKEN",
        address="huggingface",
        base_url_env=("HF_INFERENCE_BASE_URL",),
        # The last are of its text generation: a chat request has no place for them.
        settings=frozenset({"endpoint_url", "task", "do_sample", "typical_p", "truncate"})
        | {"watermark", "server_kwargs"},
        aliases={"repo_id": "model", "huggingfacehub_api_token": "api_key"},
    ),
    Vendor(
        name="ollama",
        dialect="ollama",
        address="ollama",
        base_url="http://localhost:11434",
        base_url_env=("OLLAMA_BASE_URL",),
        key_env=("OLLAMA_API_KEY",),
        needs_key=False,
        aliases={"num_predict": "num_predict"},  # its own meaning: -1 is "no limit"
        start_hint="ollama serve",
    ),
    Vendor(
        name="cohere",
        dialect="cohere",
        base_url="https://api.cohere.com",
        base_url_env=("CO_API_URL",),
        key_env=("CO_API_KEY", "COHERE_API_KEY"),
        patterns=(r"command",),
        aliases={"cohere_api_key": "api_key", "timeout_seconds": "timeout"},
        statuses={498: "content_filter"},  # a token of prompt or answer is on the deny list
    ),
    _openai_like("together", "https://api.together.xyz/v1"),
    _openai_like(
        "groq",
        "https://api.groq.com/openai/v1",
        statuses={498: "overloaded"},  # no room in the flex tier
    ),
    _openai_like(
        "mistralai",
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        base_url_env=("MISTRAL_BASE_URL",),
        patterns=(r"mistral", r"mixtral", r"magistral", r"ministral", r"codestral"),
        quirks=frozenset({"no_stream_options", "random_seed"}),
    ),
    _openai_like("deepseek", "https://api.deepseek.com", patterns=(r"deepseek",)),
    _openai_like(
        "fireworks", "https://api.fireworks.ai/inference/v1", patterns=(r"accounts/fireworks",)
    ),
    _openai_like(
        "xai",
        "https://api.x.ai/v1",
        other_dialects=("openai_responses",),
        patterns=(r"grok",),
    ),
    _openai_like(
        "perplexity",
        "https://api.perplexity.ai",
        "PERPLEXITY_API_KEY",
        "PPLX_API_KEY",
        patterns=(r"sonar",),
    ),
    _openai_like("openrouter", "https://openrouter.ai/api/v1", quirks=frozenset({"cache_marks"})),
    _openai_like("nvidia", "https://integrate.api.nvidia.com/v1"),
    _openai_like("cerebras", "https://api.cerebras.ai/v1"),
    _openai_like("upstage", "https://api.upstage.ai/v1", patterns=(r"solar",)),
    _local("vllm", "http://localhost:8000/v1", "vllm serve MODEL"),
    _local(
        "lmstudio",
        "http://localhost:1234/v1",
        "lms server start",
        quirks=frozenset({"no_urls"}),
    ),
    _local("llama_cpp", "http://localhost:8080/v1", "llama-server -m MODEL.gguf"),
)

_vendors: dict[str, Vendor] = {row.name: row for row in _ROWS}


def register_provider(row: Vendor) -> Vendor:
    """Make a vendor known to `init_chat_model` under ``row.name``; it replaces a row of that name.

    Any server that speaks Chat Completions is one row:

        register_provider(Vendor(name="acme", dialect="openai_chat",
                                 base_url="https://llm.acme.example/v1", key_env=("ACME_KEY",)))
        model = init_chat_model("acme:rocket-1")

    Raises ConfigurationError if the dialect or the auth scheme is unknown.
    """
    from .net.auth import SCHEMES

    dialect(row.dialect)
    if row.auth not in SCHEMES:
        raise ConfigurationError(
            f"auth {row.auth!r} is unknown: expected one of {', '.join(SCHEMES)}"
        )
    _vendors[row.name] = row
    return row


def vendor_names() -> list[str]:
    """The names of all vendors, as `init_chat_model` takes them."""
    return list(_vendors)


def vendor(name: str) -> Vendor:
    """The row of a vendor; `-` and `_`, upper and lower case are the same.

    Raises ConfigurationError, with the nearest name, if there is none.
    """
    row = _vendors.get(normal_name(name))
    if row is None:
        near = difflib.get_close_matches(normal_name(name), _vendors, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigurationError(
            f"provider {name!r} is unknown: {hint}known are {', '.join(_vendors)}; "
            "any server that speaks OpenAI's API works as 'openai' with base_url=..."
        )
    return row


def normal_name(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def is_vendor(name: str) -> bool:
    return normal_name(name) in _vendors


def infer_provider(model: str) -> str:
    """The vendor that a bare model name means. Raises ConfigurationError if none does."""
    for row in _vendors.values():
        if any(re.match(pattern, model, re.IGNORECASE) for pattern in row.patterns):
            return row.name
    raise ConfigurationError(
        f"the provider of model {model!r} cannot be told from its name: write "
        f"'provider:{model}' or give model_provider=, with one of {', '.join(_vendors)}"
    )


def dialect(name: str) -> Dialect:
    """The module of `wire/` that speaks a dialect, loaded when it is first needed."""
    if name not in DIALECTS:
        raise ConfigurationError(
            f"dialect {name!r} is unknown: expected one of {', '.join(DIALECTS)}"
        )
    module: Any = importlib.import_module(f"{__package__}.wire.{name}")
    spoken: Dialect = module
    return spoken


#: The dialects there are: modules of `wire/`.
DIALECTS: Final = (
    "openai_chat",
    "openai_responses",
    "anthropic",
    "gemini",
    "ollama",
    "bedrock",
    "cohere",
)
