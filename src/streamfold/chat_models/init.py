"""`init_chat_model`: a model by its name, whoever serves it."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigurationError
from ..vendors import infer_provider, is_vendor, normal_name
from . import classes
from .base import ChatModel

__all__ = ["init_chat_model"]

_CLASSES: dict[str, type[ChatModel]] = {
    made.provider: made
    for made in vars(classes).values()
    if isinstance(made, type) and issubclass(made, ChatModel) and made.provider
}


def init_chat_model(
    model: str | None = None, *, model_provider: str | None = None, **kwargs: Any
) -> ChatModel:
    """A chat model.

    `model` is ``"provider:model"``, or a bare name from which the provider is inferred (``gpt-*``,
    ``o3``, ``claude-*``, ...) or given by `model_provider`. All other parameters go to the model.

    Raises ConfigurationError if the provider is unknown or cannot be told, or a parameter is wrong.
    """
    if not isinstance(model, str) or not model.strip():
        raise ConfigurationError(
            f"model is {model!r}: expected a name such as 'gpt-4.1' or 'anthropic:claude-opus-4-1'"
        )
    provider, name = _split(model.strip(), model_provider)
    made = _CLASSES.get(normal_name(provider), ChatModel)
    return made(name, model_provider=provider, **kwargs)


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
