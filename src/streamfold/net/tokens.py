"""Tokens of the clouds, from their own libraries: each function gives a callable for `api_key=`.

The libraries are extras, imported when the first token is asked for, and asked in a thread, since
they may read files and speak to the network.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio.to_thread

from ..errors import ConfigurationError

__all__ = ["azure_token_provider", "google_token_provider"]

_AZURE_SCOPE: Final = "https://cognitiveservices.azure.com/.default"
_GOOGLE_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"

TokenProvider = Callable[[], Awaitable[str]]


def azure_token_provider(credential: Any = None, scope: str = _AZURE_SCOPE) -> TokenProvider:
    """Microsoft Entra ID tokens from an azure-identity `credential` (default: its default chain).

    Needs ``pip install "streamfold[azure]"`` unless a credential is given.
    """
    found: list[Any] = [credential] if credential is not None else []

    def token() -> str:
        if not found:
            found.append(_azure_default())
        return str(found[0].get_token(scope).token)

    async def provider() -> str:
        return await anyio.to_thread.run_sync(token)

    return provider


def _azure_default() -> Any:
    try:
        from azure.identity import DefaultAzureCredential  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigurationError(
            'Microsoft Entra ID tokens need azure-identity: pip install "streamfold[azure]"'
        ) from None
    return DefaultAzureCredential()


def google_token_provider(credentials: Any = None) -> TokenProvider:
    """Google Cloud tokens from google-auth `credentials` (default: the application's).

    Needs ``pip install "streamfold[google]"``.
    """
    found: list[Any] = [credentials] if credentials is not None else []

    def token() -> str:
        request = _google_request()
        if not found:
            found.append(_google_default())
        if not found[0].valid:
            found[0].refresh(request)
        return str(found[0].token)

    async def provider() -> str:
        return await anyio.to_thread.run_sync(token)

    return provider


def _google_request() -> Any:
    try:
        from google.auth.transport.requests import Request  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigurationError(
            'Google Cloud tokens need google-auth: pip install "streamfold[google]"'
        ) from None
    return Request()


def _google_default() -> Any:
    import google.auth  # pyright: ignore[reportMissingImports]
    from google.auth.exceptions import DefaultCredentialsError  # pyright: ignore[reportMissingImports]

    try:
        credentials, _ = google.auth.default(scopes=[_GOOGLE_SCOPE])
    except DefaultCredentialsError as error:
        raise ConfigurationError(
            "Google Cloud credentials are missing: run 'gcloud auth application-default login', "
            f"or give credentials= or api_key= ({error})"
        ) from None
    return credentials
