"""`init_chat_model`: a model by its name, whoever serves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

from ..errors import ConfigurationError
from ..vendors import infer_provider, is_vendor, normal_name
from . import classes
from .base import ChatModel
from .configurable import ConfigurableModel

__all__ = ["init_chat_model"]

_CLASSES: dict[str, type[ChatModel]] = {
    made.provider: made
    for made in vars(classes).values()
    if isinstance(made, type) and issubclass(made, ChatModel) and made.provider
}


@overload
def init_chat_model(
    model: str,
    *,
    model_provider: str | None = None,
    configurable_fields: None = None,
    **kwargs: Any,
) -> ChatModel: ...


@overload
def init_chat_model(
    model: None = None,
    *,
    model_provider: str | None = None,
    configurable_fields: Literal["any"] | Sequence[str] | None = None,
    config_prefix: str | None = None,
    **kwargs: Any,
) -> ConfigurableModel: ...


@overload
def init_chat_model(
    model: str,
    *,
    model_provider: str | None = None,
    configurable_fields: Literal["any"] | Sequence[str],
    config_prefix: str | None = None,
    **kwargs: Any,
) -> ConfigurableModel: ...


def init_chat_model(
    model: str | None = None,
    *,
    model_provider: str | None = None,
    configurable_fields: Literal["any"] | Sequence[str] | None = None,
    config_prefix: str | None = None,
    **kwargs: Any,
) -> Any:
    """A chat model.

    `model` is ``"provider:model"``, or a bare name from which the provider is inferred (``gpt-*``,
    ``o3``, ``claude-*``, ...) or given by `model_provider`. All other parameters go to the model.

    Without a model, or with `configurable_fields`, the result is a `ConfigurableModel`: calls
    choose by ``config={"configurable": {...}}`` what answers. `configurable_fields` names the
    parameters that they may set (default: model and model_provider; "any": all of them), and
    `config_prefix` goes before their keys.

    Raises ConfigurationError if the provider is unknown or cannot be told, or a parameter is wrong.
    """
    params = dict(kwargs)
    if model is not None:
        params["model"] = model
    if model_provider is not None:
        params["model_provider"] = model_provider
    if model is not None and configurable_fields is None:
        if config_prefix is not None:
            raise ConfigurationError(
                "config_prefix is given without configurable_fields: there is nothing to configure"
            )
        return _make(**params)
    fields = configurable_fields or ("model", "model_provider")
    if isinstance(fields, str) and fields != "any":
        raise ConfigurationError(
            f"configurable_fields is {fields!r}: expected 'any' or a list of parameter names"
        )
    return ConfigurableModel(_make, params, fields=fields, prefix=config_prefix or "")


def _make(model: Any = None, *, model_provider: str | None = None, **params: Any) -> ChatModel:
    """A model of its vendor's class."""
    if not isinstance(model, str) or not model.strip():
        raise ConfigurationError(
            f"model is {model!r}: expected a name such as 'gpt-4.1' or 'anthropic:claude-opus-4-1'"
        )
    provider, name = _split(model.strip(), model_provider)
    made = _CLASSES.get(normal_name(provider), ChatModel)
    return made(name, model_provider=provider, **params)


def _split(model: str, provider: str | None) -> tuple[str, str]:
    """Provider and model. The part before the first colon counts only if it names a vendor."""
    if provider is not None:
        return provider, model
    prefix, colon, rest = model.partition(":")
    if colon and is_vendor(prefix):
        if not rest:
            raise ConfigurationError(f"model is {model!r}: the name after the colon is missing")
        return prefix, rest
    return infer_provider(model), model
