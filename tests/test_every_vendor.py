"""Every vendor's row works: what it is called with reaches its API and comes back as a message."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from streamfold import AIMessageChunk, init_chat_model
from streamfold.errors import AuthenticationError
from streamfold.testing import Answer, EmbeddedProvider
from streamfold.tools import tool
from streamfold.vendors import vendor, vendor_names

KEY: Final = "key-0123456789"

#: What a row needs besides a key, and where its path begins if the row alone does not say it.
CLOUDS: Final[dict[str, dict[str, Any]]] = {
    "azure_openai": {"azure_endpoint": "URL", "api_version": "2025-03-01-preview"},
    "bedrock": {"region_name": "us-east-1"},
    "bedrock_converse": {"region_name": "us-east-1"},
    "google_anthropic_vertex": {
        "base_url": "URL/v1/projects/p/locations/global/publishers/anthropic"
    },
    "google_vertexai": {"base_url": "URL/v1/projects/p/locations/global/publishers/google"},
}


@tool
def get_weather(location: str) -> str:
    """Get the weather at a location."""
    return f"Sunny in {location}."


def model_of(name: str, provider: EmbeddedProvider) -> Any:
    path = urlsplit(vendor(name).base_url or "").path.rstrip("/")
    given = CLOUDS.get(name, {})
    if "base_url" not in given and "azure_endpoint" not in given:
        given = {**given, "base_url": f"URL{path}"}
    given = {key: value.replace("URL", provider.url) for key, value in given.items()}
    return init_chat_model("some-model", model_provider=name, api_key=KEY, max_retries=0, **given)


@pytest.mark.parametrize("name", vendor_names())
def test_a_vendor(name: str) -> None:
    with EmbeddedProvider() as provider:
        model = model_of(name, provider)
        whole = model.invoke("Why do parrots talk?")
        assert "parrots" in whole.text
        assert whole.finish_reason == "stop"
        assert whole.usage_metadata["total_tokens"] > 0
        folded = sum(model.stream("Why do parrots talk?"), AIMessageChunk())
        assert folded.text == whole.text
        answer = model.bind_tools([get_weather]).invoke("What is the weather in Boston?")
        assert [(c["name"], c["args"]) for c in answer.tool_calls] == [
            ("get_weather", {"location": "Boston"})
        ]
        seen = str([request.headers for request in provider.requests])
        assert KEY in seen or not vendor(name).needs_key


@pytest.mark.parametrize("name", vendor_names())
def test_a_vendor_that_says_no(name: str) -> None:
    with (
        EmbeddedProvider([Answer(error=401)]) as provider,
        pytest.raises(AuthenticationError) as caught,
    ):
        model_of(name, provider).invoke("Hi")
    assert caught.value.provider == name
    assert caught.value.status == 401
    assert KEY not in str(caught.value)
