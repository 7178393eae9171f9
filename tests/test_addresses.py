"""Where the clouds and local servers are asked, and with what: one row is one way to say it."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest

from streamfold.addresses import Address, UnusableVariableError, resolve
from streamfold.errors import ConfigurationError
from streamfold.secret import Secret
from streamfold.vendors import vendor

KEY = "the-key"
AZURE = "https://x.openai.azure.com"
VERTEX = "aiplatform.googleapis.com/v1"


def token() -> str:
    """What gives a token to whoever asks."""
    return "a-token"


class Row(msgspec.Struct):
    """Given these, requests go there, with that scheme and key."""

    provider: str
    params: dict[str, Any]
    environment: dict[str, str]
    url: str
    auth: str | None
    key: Any
    query: dict[str, str] = {}
    dialect: str = "openai_chat"


V1 = {"azure_endpoint": AZURE, "api_version": "v1"}
DATED = {"azure_endpoint": AZURE, "api_version": "2024-10-21", "model": "m", "api_key": KEY}
ON = {"api-version": "2024-10-21"}
PROJECT = {"project": "p", "api_key": token}

ROWS: dict[str, Row] = {
    # Azure: the deployment is a part of the address, but not where the API has no versions.
    "azure, a model is its deployment": Row(
        "azure_openai", DATED, {}, f"{AZURE}/openai/deployments/m", "api-key", KEY, ON
    ),
    "azure, a deployment": Row(
        "azure_openai",
        {**DATED, "azure_deployment": "d"},
        {},
        f"{AZURE}/openai/deployments/d",
        "api-key",
        KEY,
        ON,
    ),
    "azure, the other API has no deployments": Row(
        "azure_openai", DATED, {}, f"{AZURE}/openai", "api-key", KEY, ON, "openai_responses"
    ),
    "azure, all of it from the environment": Row(
        "azure_openai",
        {"model": "m"},
        {
            "AZURE_OPENAI_ENDPOINT": f"{AZURE}/openai/",
            "AZURE_OPENAI_API_VERSION": "2024-10-21",
            "AZURE_OPENAI_API_KEY": KEY,
        },
        f"{AZURE}/openai/deployments/m",
        "api-key",
        KEY,
        ON,
    ),
    "azure, a preview": Row(
        "azure_openai",
        {**V1, "api_version": "preview", "api_key": KEY},
        {},
        f"{AZURE}/openai/v1",
        "api-key",
        KEY,
        {"api-version": "preview"},
    ),
    "azure, a token": Row(
        "azure_openai",
        {**V1, "azure_ad_token": "a-token", "api_key": KEY},
        {},
        f"{AZURE}/openai/v1",
        "bearer",
        "a-token",
    ),
    "azure, a token of the environment": Row(
        "azure_openai",
        V1,
        {"AZURE_OPENAI_AD_TOKEN": "a-token"},
        f"{AZURE}/openai/v1",
        "bearer",
        "a-token",
    ),
    "azure, a key goes before it": Row(
        "azure_openai",
        V1,
        {"AZURE_OPENAI_AD_TOKEN": "a-token", "AZURE_OPENAI_API_KEY": KEY},
        f"{AZURE}/openai/v1",
        "api-key",
        KEY,
    ),
    "azure, tokens": Row(
        "azure_openai",
        {**V1, "azure_ad_token_provider": token, "api_key": KEY},
        {},
        f"{AZURE}/openai/v1",
        "bearer",
        token,
    ),
    "foundry, tokens": Row(
        "azure_anthropic",
        {"azure_resource": "x", "azure_ad_token_provider": token},
        {},
        "https://x.services.ai.azure.com/anthropic",
        "bearer",
        token,
    ),
    # Vertex AI: a key takes no project, but only for Google's own models.
    "vertex, a key": Row(
        "google_vertexai",
        {"api_key": KEY},
        {},
        f"https://{VERTEX}/publishers/google",
        "x-goog-api-key",
        KEY,
    ),
    "vertex, a key and a place": Row(
        "google_vertexai",
        {"api_key": KEY},
        {"GOOGLE_CLOUD_LOCATION": "europe-west4"},
        f"https://europe-west4-{VERTEX}/publishers/google",
        "x-goog-api-key",
        KEY,
    ),
    "vertex, tokens": Row(
        "google_vertexai",
        {"base_url": "https://proxy.example", "api_key": token},
        {},
        "https://proxy.example",
        "bearer",
        token,
    ),
    "vertex, another's models": Row(
        "google_anthropic_vertex",
        {**PROJECT, "location": "us-east5"},
        {},
        f"https://us-east5-{VERTEX}/projects/p/locations/us-east5/publishers/anthropic",
        "bearer",
        token,
    ),
    # Hugging Face: an endpoint of one's own.
    "hugging face, an endpoint": Row(
        "huggingface",
        {"endpoint_url": "https://e.example/"},
        {},
        "https://e.example/v1",
        "bearer",
        None,
    ),
    "hugging face, an endpoint as it is called": Row(
        "huggingface",
        {"endpoint_url": "https://e.example/v1", "api_key": KEY},
        {},
        "https://e.example/v1",
        "bearer",
        KEY,
    ),
}


@pytest.fixture(autouse=True)
def _nothing_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("AZURE_", "OPENAI_", "GOOGLE_", "GCLOUD_", "OLLAMA_", "HF_")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_an_address(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in row.environment.items():
        monkeypatch.setenv(name, value)
    found = resolve(vendor(row.provider), row.params, row.dialect)
    key = found.key.reveal() if isinstance(found.key, Secret) else found.key
    assert (found.base_url, found.auth, key, found.query) == (row.url, row.auth, row.key, row.query)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("example", None),
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("localhost:1234", "http://localhost:1234"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        (":1234", "http://127.0.0.1:1234"),
        ("::1", "http://[::1]:11434"),
        ("::", "http://127.0.0.1:11434"),
        ("[::1]:1234", "http://[::1]:1234"),
        ("https://o.example", "https://o.example:443"),
        ("https://o.example/path/", "https://o.example:443/path"),
    ],
)
def test_what_ollama_listens_on(
    host: str, url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `ollama serve` reads it; plain http to another machine is warned of."""
    monkeypatch.setenv("OLLAMA_HOST", host)
    if url is None:
        with pytest.warns(UserWarning, match="plain http to example"):
            assert _ollama().base_url == "http://example:11434"
    else:
        assert _ollama().base_url == url


def _ollama() -> Address:
    return resolve(vendor("ollama"), {}, "ollama")


def test_a_variable_that_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told from a parameter that is none: it is said at the first request."""
    monkeypatch.setenv("OLLAMA_HOST", "a b")
    with pytest.raises(UnusableVariableError, match="OLLAMA_HOST"):
        _ollama()


@pytest.mark.parametrize(
    ("provider", "params", "says"),
    [
        ("azure_openai", {**V1, "azure_ad_token_provider": "x"}, "is str: expected a callable"),
        ("azure_anthropic", {"azure_resource": "x.evil/"}, "azure_resource is 'x.evil/'"),
        ("google_vertexai", {"api_key": KEY, "location": "a.b"}, "location is 'a.b'"),
    ],
)
def test_what_cannot_be_right(provider: str, params: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        resolve(vendor(provider), params, "openai_chat")
