"""Tokens of the clouds: what their libraries are asked, how often, and on which thread.

The libraries are stood in for: what of them is used is four names.
"""

from __future__ import annotations

import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from streamfold.errors import ConfigurationError
from streamfold.net.tokens import azure_token_provider, google_token_provider

pytestmark = pytest.mark.anyio


class AzureCredential:
    """Like those of azure-identity, which keep tokens and renew them by themselves."""

    made = 0

    def __init__(self) -> None:
        AzureCredential.made += 1
        self.asked: list[tuple[str, int]] = []

    def get_token(self, scope: str) -> Any:
        self.asked.append((scope, threading.get_ident()))
        return SimpleNamespace(token=f"token-{len(self.asked)}", expires_on=0)


class GoogleCredentials:
    """Like those of google-auth: a token that is valid until it expires, then for a refresh."""

    def __init__(self) -> None:
        self.token: str | None = None
        self.valid = False
        self.refreshed: list[tuple[Any, int]] = []

    def refresh(self, request: Any) -> None:
        self.refreshed.append((request, threading.get_ident()))
        self.token, self.valid = f"token-{len(self.refreshed)}", True


class Request:
    """google-auth's way to the network."""


class DefaultCredentialsError(Exception):
    """google-auth's word for a machine without credentials."""


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """azure-identity and google-auth are installed; `google` is what the latter finds."""
    found = SimpleNamespace(google=GoogleCredentials(), scopes=[])

    def default(scopes: list[str]) -> tuple[Any, str]:
        found.scopes.append(scopes)
        if isinstance(found.google, Exception):
            raise found.google
        return found.google, "a-project"

    modules: dict[str, dict[str, Any]] = {
        "azure": {},
        "azure.identity": {"DefaultAzureCredential": AzureCredential},
        "google": {},
        "google.auth": {"default": default},
        "google.auth.exceptions": {"DefaultCredentialsError": DefaultCredentialsError},
        "google.auth.transport": {},
        "google.auth.transport.requests": {"Request": Request},
    }
    for name, names in modules.items():
        module = ModuleType(name)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    return found


class TestAzure:
    async def test_a_credential_is_asked_for_each_token(self) -> None:
        """It knows when a token is stale; asked in a thread, for it may wait for the network."""
        credential = AzureCredential()
        provider = azure_token_provider(credential, "a-scope")
        assert [await provider(), await provider()] == ["token-1", "token-2"]
        assert [scope for scope, _ in credential.asked] == ["a-scope"] * 2
        assert threading.get_ident() not in {thread for _, thread in credential.asked}

    async def test_the_scope_is_that_of_the_cognitive_services(self) -> None:
        credential = AzureCredential()
        await azure_token_provider(credential)()
        assert credential.asked[0][0] == "https://cognitiveservices.azure.com/.default"

    async def test_the_default_credential_is_made_once_and_when_it_is_needed(
        self, libraries: SimpleNamespace
    ) -> None:
        before = AzureCredential.made
        provider = azure_token_provider()
        assert AzureCredential.made == before
        assert [await provider(), await provider()] == ["token-1", "token-2"]
        assert AzureCredential.made == before + 1


class TestGoogle:
    async def test_a_token_is_renewed_when_it_has_expired(self, libraries: SimpleNamespace) -> None:
        """And not before; in a thread, for that asks the network."""
        credentials = GoogleCredentials()
        provider = google_token_provider(credentials)
        assert [await provider(), await provider()] == ["token-1", "token-1"]
        credentials.valid = False
        assert await provider() == "token-2"
        assert all(isinstance(request, Request) for request, _ in credentials.refreshed)
        assert threading.get_ident() not in {thread for _, thread in credentials.refreshed}
        assert libraries.scopes == []

    async def test_the_credentials_of_the_machine_are_looked_for_once(
        self, libraries: SimpleNamespace
    ) -> None:
        provider = google_token_provider()
        assert libraries.scopes == []
        assert [await provider(), await provider()] == ["token-1", "token-1"]
        assert libraries.scopes == [["https://www.googleapis.com/auth/cloud-platform"]]

    async def test_a_machine_without_credentials(self, libraries: SimpleNamespace) -> None:
        """The error says how to get them, and what google-auth said."""
        libraries.google = DefaultCredentialsError("nothing at ~/.config/gcloud")
        with pytest.raises(ConfigurationError) as raised:
            await google_token_provider()()
        assert "gcloud auth application-default login" in str(raised.value)
        assert "nothing at ~/.config/gcloud" in str(raised.value)
        assert raised.value.__cause__ is None
