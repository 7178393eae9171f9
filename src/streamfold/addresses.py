"""Where a call goes and with what credentials: from a model's parameters, the environment and the
vendor's row.

Most vendors have one address and one key. The clouds compose theirs of endpoint, deployment,
region or project: each has a function here, which its row names.
"""

from __future__ import annotations

import ipaddress
import os
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from .errors import ConfigurationError
from .net.auth import Key, checked_headers, checked_key
from .vendors import Vendor
from .wire.request import path_segment

__all__ = ["Address", "UnusableVariableError", "resolve"]


class UnusableVariableError(ConfigurationError):
    """A variable of the environment is no address. That is said when a request is to be made, not
    when a model is: a program may make its models before it knows where they are."""


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go: `base_url` before the dialect's path, and how they are authorised; with
    headers that say for whom."""

    base_url: str
    auth: str | None
    key: Key | None
    query: dict[str, str] = {}
    headers: dict[str, str] = {}


def resolve(row: Vendor, params: Mapping[str, Any], dialect: str) -> Address:
    """The address of `row` for requests in `dialect`. Raises ConfigurationError, naming the
    parameter and the variable, for what is missing or cannot be right."""
    return _RESOLVERS[row.address](row, params, dialect)


# ---- one address, one key ------------------------------------------------------------------------


def _plain(row: Vendor, params: Mapping[str, Any], dialect: str) -> Address:
    base_url = _given_url(row, params) or row.base_url
    if base_url is None:
        raise ConfigurationError(f"base_url is missing: {row.name} has no address of its own")
    return Address(
        base_url=base_url,
        auth=row.auth,
        key=_key(row, params, needed=row.needs_key and base_url == row.base_url),
    )


_ACCOUNTS: Final = {
    "openai-organization": ("organization", "OPENAI_ORG_ID"),
    "openai-project": ("project", "OPENAI_PROJECT_ID"),
}


def _openai(row: Vendor, params: Mapping[str, Any], dialect: str) -> Address:
    """With the organisation and project that are billed, where the key alone does not say."""
    found = {header: _setting(params, *names) for header, names in _ACCOUNTS.items()}
    headers = {header: value for header, value in found.items() if value}
    address = _plain(row, params, dialect)
    return msgspec.structs.replace(address, headers=checked_headers(headers, "organization"))


def _given_url(row: Vendor, params: Mapping[str, Any]) -> str | None:
    """The address that a parameter or the environment gives."""
    if params.get("base_url") is not None:
        return checked_url(params["base_url"], "base_url")
    for name in row.base_url_env:
        if os.environ.get(name):
            return _variable_url(name, os.environ[name])
    return None


def _key(row: Vendor, params: Mapping[str, Any], *, needed: bool) -> Key | None:
    """The key that a parameter or the environment gives."""
    key = params.get("api_key")
    if key is not None:
        return key  # type: ignore[no-any-return]
    for name in row.key_env:
        if os.environ.get(name):
            return checked_key(os.environ[name], f"the environment variable {name}")
    if needed:
        raise ConfigurationError(
            f"the key for {row.name} is missing: set the environment variable "
            f"{' or '.join(row.key_env)}, or give api_key="
        )
    return None


def _variable_url(name: str, url: str) -> str:
    try:
        return checked_url(url, f"the environment variable {name}")
    except ConfigurationError as error:
        raise UnusableVariableError(str(error)) from None


def checked_url(url: str, source: str) -> str:
    """`url` without a slash at its end. Warns for plain http to another machine."""
    url = url.strip()
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or any(c <= " " for c in url):
        raise ConfigurationError(
            f"{source} is {url!r}: expected an address such as https://host/path"
        )
    if parts.username or parts.password:
        raise ConfigurationError(f"{source} has a name or password in it: give the key as api_key=")
    if parts.query or parts.fragment:
        raise ConfigurationError(
            f"{source} has a query or fragment: expected an address alone "
            "(what goes into every query is default_query={...})"
        )
    if parts.scheme == "http" and not _is_loopback(host):
        warnings.warn(
            f"{source} is plain http to {host}: key and messages can be read on the way",
            stacklevel=2,
        )
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    """Whether it is this machine: a name like 127.example.com is not."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _host_label(value: str, name: str) -> str:
    """`value`, which becomes a part of a host's name: it must not make another host of it."""
    if not re.fullmatch(r"[A-Za-z0-9-]+", value):
        raise ConfigurationError(f"{name} is {value!r}: expected letters, digits and hyphens")
    return value


def _setting(params: Mapping[str, Any], name: str, *variables: str) -> str | None:
    """A setting from its parameter or the first of the variables that is set."""
    if params.get(name):
        return str(params[name])
    return next((os.environ[v] for v in variables if os.environ.get(v)), None)


def _needed(row: Vendor, value: str | None, what: str, name: str, *variables: str) -> str:
    if value:
        return value
    raise ConfigurationError(
        f"the {what} for {row.name} is missing: set the environment variable "
        f"{' or '.join(variables)}, or give {name}="
    )


# ---- local servers -------------------------------------------------------------------------------


def _ollama(row: Vendor, params: Mapping[str, Any], dialect: str) -> Address:
    """OLLAMA_HOST is what `ollama serve` listens on: host, host:port or a URL; every interface
    means this machine."""
    host = os.environ.get("OLLAMA_HOST", "").strip()
    if params.get("base_url") is not None or not host:
        return _plain(row, params, dialect)
    if host.count(":") > 1 and "[" not in host and "://" not in host:
        host = f"[{host}]"  # a bare IPv6 address
    own_port = 11434 if "://" not in host else None
    parts = urlsplit(host if "://" in host else f"http://{host}")
    name = "127.0.0.1" if parts.hostname in ("0.0.0.0", "::", None) else parts.hostname
    default_port = {"http": 80, "https": 443}.get(parts.scheme, 11434)
    shown = f"[{name}]" if ":" in name else name
    url = (
        f"{parts.scheme}://{shown}:{parts.port or own_port or default_port}{parts.path.rstrip('/')}"
    )
    return Address(
        base_url=_variable_url("OLLAMA_HOST", url),
        auth=row.auth,
        key=_key(row, params, needed=False),
    )


# ---- Azure ---------------------------------------------------------------------------------------

#: Versions that mean the API without versions: {endpoint}/openai/v1.
_AZURE_V1: Final = frozenset({"v1", "preview", "latest"})


def _azure(row: Vendor, params: Mapping[str, Any], dialect: str) -> Address:
    """``{endpoint}/openai/deployments/{deployment}?api-version=...``, or ``{endpoint}/openai/v1``
    for ``api_version="v1"``. The key is an API key or a Microsoft Entra ID token."""
    auth, key = _azure_key(row, params)
    version = _setting(params, "api_version", "OPENAI_API_VERSION", "AZURE_OPENAI_API_VERSION")
    if params.get("base_url") is not None:
        query = {"api-version": version} if version and version not in _AZURE_V1 else {}
        url = checked_url(params["base_url"], "base_url")
        return Address(base_url=url, auth=auth, key=key, query=query)
    endpoint = _azure_endpoint(row, params).removesuffix("/openai")
    if endpoint.endswith("/openai/v1") or version in _AZURE_V1:
        query = {"api-version": "preview"} if version == "preview" else {}
        base = f"{endpoint.removesuffix('/openai/v1')}/openai/v1"
        return Address(base_url=base, auth=auth, key=key, query=query)
    version = _needed(row, version, "API version (or 'v1')", "api_version", "OPENAI_API_VERSION")
    path = "/openai"
    if dialect == "openai_chat":
        deployment = params.get("azure_deployment") or params["model"]
        path = f"/openai/deployments/{path_segment(str(deployment), 'azure_deployment')}"
    return Address(base_url=endpoint + path, auth=auth, key=key, query={"api-version": version})


def _azure_endpoint(row: Vendor, params: Mapping[str, Any]) -> str:
    name, variable = "azure_endpoint", "AZURE_OPENAI_ENDPOINT"
    if params.get(name):
        return checked_url(str(params[name]), name)
    return _variable_url(
        variable, _needed(row, os.environ.get(variable), "endpoint", name, variable)
    )


def _azure_key(row: Vendor, params: Mapping[str, Any]) -> tuple[str, Key]:
    provider = params.get("azure_ad_token_provider")
    if provider is not None:
        if not callable(provider):
            raise ConfigurationError(
                f"azure_ad_token_provider is {type(provider).__name__}: expected a callable"
            )
        given: Any = provider
        return "bearer", given
    if params.get("azure_ad_token") is not None:
        return "bearer", params["azure_ad_token"]
    key = _key(row, params, needed=False)
    if key is not None:
        return "api-key", key
    token = os.environ.get("AZURE_OPENAI_AD_TOKEN")
    if token:
        return "bearer", checked_key(token, "the environment variable AZURE_OPENAI_AD_TOKEN")
    raise ConfigurationError(
        f"the key for {row.name} is missing: set the environment variable "
        f"{' or '.join(row.key_env)} (or AZURE_OPENAI_AD_TOKEN), or give api_key=, "
        "azure_ad_token= or azure_ad_token_provider= (streamfold.azure_token_provider() makes one)"
    )


def _azure_anthropic(row: Vendor, params: Mapping[str, Any], dialect: str) -> Address:
    """Claude in Microsoft Foundry: ``https://{resource}.services.ai.azure.com/anthropic``."""
    base_url = _given_url(row, params)
    if base_url is None:
        resource = _needed(
            row,
            _setting(params, "azure_resource", "ANTHROPIC_FOUNDRY_RESOURCE"),
            "resource",
            "azure_resource",
            "ANTHROPIC_FOUNDRY_RESOURCE",
        )
        resource = _host_label(resource, "azure_resource")
        base_url = f"https://{resource}.services.ai.azure.com/anthropic"
    if params.get("azure_ad_token_provider") is not None:
        return Address(base_url=base_url, auth="bearer", key=params["azure_ad_token_provider"])
    return Address(base_url=base_url, auth=row.auth, key=_key(row, params, needed=True))


# ---- Google --------------------------------------------------------------------------------------


def _vertex(publisher: str) -> Callable[[Vendor, Mapping[str, Any], str], Address]:
    """Vertex AI: the models of `publisher` in a project and location; with an API key, neither."""

    def find(row: Vendor, params: Mapping[str, Any], dialect: str) -> Address:
        base_url = _given_url(row, params)
        key = _key(row, params, needed=False)
        location = _setting(params, "location", "GOOGLE_CLOUD_LOCATION", "GOOGLE_CLOUD_REGION")
        location = _host_label(location or "global", "location")
        host = "aiplatform.googleapis.com"
        if location != "global":
            host = f"{location}-{host}"
        if base_url is None and key is not None and publisher == "google":
            base_url = f"https://{host}/v1/publishers/{publisher}"
        if base_url is None:
            project = _needed(
                row,
                _setting(params, "project", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"),
                "project",
                "project",
                "GOOGLE_CLOUD_PROJECT",
            )
            where = f"projects/{path_segment(project, 'project')}/locations/{location}"
            base_url = f"https://{host}/v1/{where}/publishers/{publisher}"
        if key is not None and not callable(key):
            return Address(base_url=base_url, auth="x-goog-api-key", key=key)
        if key is None:
            from .net.tokens import google_token_provider

            key = google_token_provider(params.get("credentials"))
        return Address(base_url=base_url, auth="bearer", key=key)

    return find


# ---- AWS -----------------------------------------------------------------------------------------


_AWS_KEYS: Final = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


def _bedrock(row: Vendor, params: Mapping[str, Any], dialect: str) -> Address:
    """``https://bedrock-runtime.{region}.amazonaws.com``, signed, or with a bearer API key.

    What is given explicitly goes before what is around: `api_key` before any AWS credentials, and
    AWS keys or a profile before the API key of the environment.
    """
    from .net.aws import AwsCredentials

    given = {name: params[name] for name in _AWS_KEYS if params.get(name) is not None}
    profile = params.get("credentials_profile_name")
    if given and params.get("api_key") is not None:
        raise ConfigurationError(
            f"api_key and {next(iter(given))} are two ways to authorise a request: give one"
        )
    ambient = not given and profile is None
    key = _key(row, params, needed=False) if ambient else params.get("api_key")
    credentials = AwsCredentials(region=params.get("region_name"), profile=profile, **given)
    base_url = _given_url(row, params)
    if base_url is None:
        base_url = f"https://bedrock-runtime.{credentials.find_region()}.amazonaws.com"
    if key is not None:
        return Address(base_url=base_url, auth="bearer", key=key)
    return Address(base_url=base_url, auth="sigv4", key=credentials)


# ---- Hugging Face --------------------------------------------------------------------------------


def _huggingface(row: Vendor, params: Mapping[str, Any], dialect: str) -> Address:
    """The router, or a dedicated endpoint given as `endpoint_url`."""
    endpoint = params.get("endpoint_url")
    if endpoint is None:
        return _plain(row, params, dialect)
    url = checked_url(endpoint, "endpoint_url")
    if not url.endswith("/v1"):
        url += "/v1"
    return Address(base_url=url, auth=row.auth, key=_key(row, params, needed=False))


_RESOLVERS: Final[dict[str, Callable[[Vendor, Mapping[str, Any], str], Address]]] = {
    "plain": _plain,
    "openai": _openai,
    "ollama": _ollama,
    "azure": _azure,
    "azure_anthropic": _azure_anthropic,
    "vertex": _vertex("google"),
    "vertex_anthropic": _vertex("anthropic"),
    "bedrock": _bedrock,
    "huggingface": _huggingface,
}
