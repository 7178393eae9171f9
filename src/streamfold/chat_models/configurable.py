"""`ConfigurableModel`: which model answers is chosen by each call's configuration.

Operations such as `bind_tools` are queued and replayed on the model that a call chooses. Models
once made are kept, so their parameters are checked once.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Final, Literal

from ..config import RunnableConfig, checked_config, merge_configs
from ..errors import ConfigurationError
from ..runnables import FieldStreams
from ..runs import current_run, inherited
from ..stored import Stored

__all__ = ["ConfigurableModel"]

_KEPT: Final = 64  # models kept by one configurable model; the one used longest ago goes first


class _Kept:
    """Models by the parameters that they were made with. (Compared, not printed: the text of a
    secret says nothing of which it is.)"""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._models: list[tuple[dict[str, Any], Any]] = []

    def get(self, params: dict[str, Any], make: Callable[[], Any]) -> Any:
        with self._lock:
            for place, (known, model) in enumerate(self._models):
                if known == params:
                    self._models.append(self._models.pop(place))
                    return model
            model = make()
            self._models = [*self._models[1 - _KEPT :], (params, model)]
            return model

    def all(self) -> list[Any]:
        return [model for _, model in self._models]


class ConfigurableModel(FieldStreams):
    """A model that is chosen at run time, by ``config={"configurable": {"model": ...}}``.

    `fields` are the parameters that a configuration may set ("any": all of them, which lets the
    caller choose where keys are sent: only for trusted callers). With `prefix`, the keys are
    ``{prefix}_model`` and so on.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        params: Mapping[str, Any],
        *,
        fields: Literal["any"] | Sequence[str],
        prefix: str = "",
        queue: tuple[tuple[str, tuple[Any, ...], dict[str, Any]], ...] = (),
        config: Mapping[str, Any] | None = None,
        made: _Kept | None = None,
        models: _Kept | None = None,
    ) -> None:
        self._make = make
        self._params = dict(params)
        self._fields = fields if fields == "any" else tuple(fields)
        self._prefix = prefix if not prefix or prefix.endswith("_") else f"{prefix}_"
        self._queue = queue
        self._config = merge_configs(config)
        self._made = made or _Kept()  # as they were made; shared by all copies
        self._models = models or _Kept()  # with the queue replayed on them

    def _copy(self, **changes: Any) -> ConfigurableModel:
        kept: dict[str, Any] = {"queue": self._queue, "config": self._config, "made": self._made}
        return ConfigurableModel(
            self._make,
            self._params,
            fields=self._fields,
            prefix=self._prefix,
            **{**kept, **changes},
        )

    def __repr__(self) -> str:
        name = self._params.get("model")
        return f"ConfigurableModel({name!r}, fields={self._fields!r}, prefix={self._prefix!r})"

    # ---- queued ----------------------------------------------------------------------------------

    def _queued(self, name: str, *args: Any, **kwargs: Any) -> ConfigurableModel:
        return self._copy(queue=(*self._queue, (name, args, kwargs)))

    def bind(self, **kwargs: Any) -> Any:
        """Queued: see `ChatModel.bind`."""
        return self._queued("bind", **kwargs)

    def bind_tools(self, *args: Any, **kwargs: Any) -> Any:
        """Queued: see `ChatModel.bind_tools`."""
        return self._queued("bind_tools", *args, **kwargs)

    def with_structured_output(self, *args: Any, **kwargs: Any) -> Any:
        """Queued: see `ChatModel.with_structured_output`."""
        return self._queued("with_structured_output", *args, **kwargs)

    def with_retry(self, *args: Any, **kwargs: Any) -> Any:
        """Queued: see `ChatModel.with_retry`."""
        return self._queued("with_retry", *args, **kwargs)

    def with_fallbacks(self, *args: Any, **kwargs: Any) -> Any:
        """Queued: see `ChatModel.with_fallbacks`."""
        return self._queued("with_fallbacks", *args, **kwargs)

    def with_config(self, config: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        """A configurable model whose runs have this configuration, `configurable` included."""
        merged = merge_configs(self._config, config, kwargs)
        return self._copy(config=merged, models=self._models)

    @property
    def _grows(self) -> bool:
        return any(name == "with_structured_output" for name, _, _ in self._queue)

    # ---- choosing --------------------------------------------------------------------------------

    def model(self, config: Mapping[str, Any] | None = None) -> Any:
        """The model that a call with `config` uses, here: `configurable` is inherited."""
        merged = merge_configs(inherited(current_run()), self._config, config)
        params = {**self._params, **self._chosen(merged)}
        if not params.get("model"):
            raise ConfigurationError(
                "no model is configured: give "
                f"config={{'configurable': {{'{self._prefix}model': 'provider:model'}}}}, "
                "or a model name to init_chat_model"
            )
        return self._models.get(params, lambda: self._replayed(params))

    def _replayed(self, params: dict[str, Any]) -> Any:
        model = self._made.get(params, lambda: self._make(**params))
        for name, args, kwargs in self._queue:
            model = getattr(model, name)(*args, **kwargs)
        return model

    def _chosen(self, config: RunnableConfig) -> dict[str, Any]:
        """The parameters that the configuration sets. Keys of others are not ours to judge."""
        chosen = {}
        for key, value in config.get("configurable", {}).items():
            name = key.removeprefix(self._prefix)
            mine = key.startswith(self._prefix)
            if mine and (self._fields == "any" or name in self._fields):
                chosen[name] = value
        return chosen

    # ---- calling ---------------------------------------------------------------------------------

    async def ainvoke(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """The answer of the model that the configuration chooses."""
        merged = merge_configs(self._config, config)
        return await self.model(config).ainvoke(input, merged, **kwargs)

    def _stream(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Callable[[], AsyncGenerator[list[Any], None]]:
        merged = merge_configs(self._config, checked_config(config))
        return self.model(config)._stream(input, merged, **kwargs)  # type: ignore[no-any-return]

    def _stored(self, config: Mapping[str, Any], kwargs: Mapping[str, Any]) -> Stored:
        stored: Stored = self.model(config)._stored(config, kwargs)
        return stored

    def _field_stream(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Callable[[], AsyncGenerator[list[Any], None]]:
        merged = merge_configs(self._config, checked_config(config))
        return self.model(config)._field_stream(input, merged, **kwargs)  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        """Close what the models made so far hold in the running loop."""
        for model in self._models.all():
            await model.aclose()

    @property
    def profile(self) -> dict[str, Any]:
        """The profile of the default model."""
        return dict(self.model().profile)
