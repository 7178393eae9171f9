"""The named classes: `ChatModel` with the vendor filled in."""

from __future__ import annotations

from typing import Any, ClassVar

from ..errors import ConfigurationError
from .base import ChatModel

__all__ = [
    "AzureChatOpenAI",
    "ChatAnthropic",
    "ChatBedrock",
    "ChatBedrockConverse",
    "ChatGoogleGenerativeAI",
    "ChatHuggingFace",
    "ChatOllama",
    "ChatOpenAI",
    "ChatVertexAI",
    "HuggingFaceEndpoint",
]


class ChatOpenAI(ChatModel):
    """OpenAI, and any server that speaks its API (`base_url=`).

    Chat Completions, or the Responses API where a call needs it or `use_responses_api=True`.
    """

    provider: ClassVar[str] = "openai"


class AzureChatOpenAI(ChatModel):
    """OpenAI's models on Azure: `azure_endpoint`, `azure_deployment`, `api_version` ("v1" for the
    API without versions), and `api_key`, `azure_ad_token` or `azure_ad_token_provider`."""

    provider: ClassVar[str] = "azure_openai"


class ChatAnthropic(ChatModel):
    """Anthropic."""

    provider: ClassVar[str] = "anthropic"


class ChatGoogleGenerativeAI(ChatModel):
    """Google Gemini by the Gemini API."""

    provider: ClassVar[str] = "google_genai"


class ChatVertexAI(ChatModel):
    """Google Gemini by Vertex AI: `project`, `location`, and Google Cloud credentials."""

    provider: ClassVar[str] = "google_vertexai"


class ChatBedrockConverse(ChatModel):
    """AWS Bedrock by its Converse API: `region_name`, and AWS credentials or a bearer `api_key`."""

    provider: ClassVar[str] = "bedrock_converse"


ChatBedrock = ChatBedrockConverse


class ChatOllama(ChatModel):
    """A local Ollama server (`base_url`, or the variable OLLAMA_HOST)."""

    provider: ClassVar[str] = "ollama"


class HuggingFaceEndpoint:
    """Where a Hugging Face model is served: `repo_id` by the router, which chooses the `provider`
    unless one is named, or `endpoint_url` for an endpoint of your own; with parameters for
    `ChatHuggingFace`."""

    def __init__(
        self,
        repo_id: str | None = None,
        *,
        endpoint_url: str | None = None,
        provider: str | None = None,
        **params: Any,
    ) -> None:
        if (repo_id or endpoint_url) is None:
            raise ConfigurationError("HuggingFaceEndpoint needs a repo_id or an endpoint_url")
        self.params = dict(params)
        # "tgi" is what dedicated endpoints take for "the model that is served here".
        model = params.get("model") or repo_id or "tgi"
        named = provider not in (None, "auto") and endpoint_url is None
        self.params["model"] = f"{model}:{provider}" if named else model
        if endpoint_url is not None:
            self.params["endpoint_url"] = endpoint_url

    def __repr__(self) -> str:
        return f"HuggingFaceEndpoint({self.params['model']!r})"


class ChatHuggingFace(ChatModel):
    """Hugging Face: ``ChatHuggingFace(llm=HuggingFaceEndpoint(repo_id=...))``, or a model name."""

    provider: ClassVar[str] = "huggingface"

    def __init__(
        self,
        model: str | None = None,
        *,
        llm: HuggingFaceEndpoint | None = None,
        model_provider: str | None = None,
        **params: Any,
    ) -> None:
        if llm is not None and not isinstance(llm, HuggingFaceEndpoint):
            raise ConfigurationError(
                f"llm is {type(llm).__name__}: expected a streamfold.HuggingFaceEndpoint"
            )
        given = {} if llm is None else llm.params
        own = params if model is None else {"model": model, **params}
        super().__init__(model_provider=model_provider, **{**given, **own})
