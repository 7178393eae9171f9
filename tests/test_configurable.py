"""Configurable models: which model answers is chosen by each call."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from streamfold import init_chat_model, runnable, tool
from streamfold.errors import ConfigurationError, InvalidRequestError
from streamfold.secret import Secret
from streamfold.testing import Answer, EmbeddedProvider

SCHEMA = {
    "title": "answer",
    "type": "object",
    "properties": {"x": {"type": "integer"}},
    "required": ["x"],
}


@tool
def look(city: str) -> str:
    """Look."""
    return city


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedProvider]:
    with EmbeddedProvider() as provider:
        yield provider


def configurable(provider: EmbeddedProvider, model: str | None = None, **kwargs: Any) -> Any:
    params = {"base_url": f"{provider.url}/v1", "api_key": "k", **kwargs}
    if model is not None:
        params.setdefault("configurable_fields", ("model", "model_provider"))
        return init_chat_model(model, **params)
    return init_chat_model(**params)


def choose(model: str, **more: Any) -> dict[str, Any]:
    return {"configurable": {"model": model, **more}}


def asked(provider: EmbeddedProvider) -> Any:
    return provider.requests[-1].json()


def test_each_call_chooses(embedded: EmbeddedProvider) -> None:
    """By name, provider included; the default answers where nothing is chosen."""
    model = configurable(embedded, "gpt-4.1")
    model.invoke("hi")
    assert asked(embedded)["model"] == "gpt-4.1"
    model.invoke("hi", choose("gpt-4.1-mini"))
    assert asked(embedded)["model"] == "gpt-4.1-mini"
    list(model.stream("hi", choose("openai:gpt-4.1-nano")))
    assert asked(embedded)["model"] == "gpt-4.1-nano"
    model.invoke("hi", choose("claude-sonnet-4-5", model_provider="anthropic"))
    assert embedded.requests[-1].path.endswith("/messages")


def test_without_a_model_one_has_to_be_chosen(embedded: EmbeddedProvider) -> None:
    """The error says how, with the prefix."""
    with pytest.raises(ConfigurationError, match="'model'"):
        configurable(embedded).invoke("hi")
    with pytest.raises(ConfigurationError, match="'my_model'"):
        configurable(embedded, config_prefix="my").invoke("hi", choose("gpt-4.1"))


@pytest.mark.parametrize("prefix", ["my", "my_"])
def test_a_prefix_goes_before_the_keys(embedded: EmbeddedProvider, prefix: str) -> None:
    """Two models in one program are configured apart."""
    model = configurable(embedded, "gpt-4.1", config_prefix=prefix)
    model.invoke("hi", {"configurable": {"my_model": "gpt-4.1-mini", "model": "gpt-4.1-nano"}})
    assert asked(embedded)["model"] == "gpt-4.1-mini"


def test_only_the_fields_that_were_named_can_be_set(embedded: EmbeddedProvider) -> None:
    """Keys of others are not ours to judge; 'any' lets everything be set."""
    chosen = {"configurable": {"temperature": 0.5, "user_id": "u", "model": "gpt-4.1-mini"}}
    configurable(embedded, "gpt-4.1").invoke("hi", chosen)
    assert "temperature" not in asked(embedded)
    configurable(embedded, "gpt-4.1", configurable_fields=["temperature"]).invoke("hi", chosen)
    assert (asked(embedded)["temperature"], asked(embedded)["model"]) == (0.5, "gpt-4.1")
    every = configurable(embedded, "gpt-4.1", configurable_fields="any", temperature=0.1)
    every.invoke("hi", {"configurable": {"max_tokens": 5}})
    assert asked(embedded)["temperature"] == 0.1
    assert 5 in asked(embedded).values()


def test_fields_and_prefixes_that_cannot_be_are_refused(embedded: EmbeddedProvider) -> None:
    """Said when it is made."""
    with pytest.raises(ConfigurationError, match="configurable_fields"):
        configurable(embedded, "gpt-4.1", configurable_fields="model")
    with pytest.raises(ConfigurationError, match="config_prefix"):
        init_chat_model("gpt-4.1", config_prefix="x", api_key="k")


def test_operations_are_queued(embedded: EmbeddedProvider) -> None:
    """And replayed, in order, on the model that a call chooses; the one before is left alone."""
    plain = configurable(embedded, "gpt-4.1")
    model = plain.bind_tools([look], tool_choice="look").bind(temperature=0.5)
    model.invoke("hi", choose("gpt-4.1-mini"))
    assert asked(embedded)["model"] == "gpt-4.1-mini"
    assert asked(embedded)["temperature"] == 0.5
    assert asked(embedded)["tools"][0]["function"]["name"] == "look"
    model.invoke("hi", choose("claude-sonnet-4-5", model_provider="anthropic"))
    assert asked(embedded)["tool_choice"]["name"] == "look"
    plain.invoke("hi")
    assert "tools" not in asked(embedded)


def test_structured_output_is_queued() -> None:
    """With the method that suits the model that is chosen; streams and batches too."""
    with EmbeddedProvider(script=['{"x": 1}', '{"x": 2}', '{"x": 3}']) as provider:
        model = configurable(provider, "gpt-4.1").with_structured_output(SCHEMA)
        assert model.invoke("hi", choose("gpt-4.1-mini")) == {"x": 1}
        assert list(model.stream("hi", choose("gpt-4.1-mini")))[-1] == {"x": 2}
        assert model.batch(["hi"], choose("gpt-4.1-nano")) == [{"x": 3}]
        assert [r.json()["model"] for r in provider.requests] == [
            "gpt-4.1-mini",
            "gpt-4.1-mini",
            "gpt-4.1-nano",
        ]


def test_retries_and_fallbacks_are_queued() -> None:
    """Around the model that is chosen."""
    with EmbeddedProvider(
        script=[Answer(error=500), "fine", Answer(error=500), "other"]
    ) as provider:
        model = configurable(provider, "gpt-4.1", max_retries=0)
        retried = model.with_retry(wait_exponential_jitter=False).bind_tools([look])
        assert retried.invoke("hi", choose("gpt-4.1-mini")).text == "fine"
        assert asked(provider)["tools"]
        assert model.with_fallbacks([model]).invoke("hi").text == "other"


def test_the_same_choice_is_the_same_model(embedded: EmbeddedProvider) -> None:
    """Made once, also through `with_config`; what is queued keeps the connections."""
    model = configurable(embedded, "gpt-4.1")
    chosen = choose("gpt-4.1-mini")
    assert model.model(chosen) is model.model(chosen)
    assert model.model(chosen) is not model.model()
    assert model.with_config(chosen).model() is model.model(chosen)
    assert model.with_config(tags=["t"]).model(chosen) is model.model(chosen)
    bound = model.bind(temperature=0.5)
    assert bound.model(chosen) is bound.model(chosen)
    assert bound.model(chosen)._connections is model.model(chosen)._connections


def test_connections_are_reused() -> None:
    """Many calls, with a configured copy each, need one connection."""
    with EmbeddedProvider() as provider:
        model = configurable(provider)
        for _ in range(5):
            model.with_config(choose("gpt-4.1")).bind(temperature=0.5).invoke("hi")
        assert provider.connections == 1
        model.close()


def test_closing_it_closes_every_model_that_was_chosen() -> None:
    with EmbeddedProvider() as provider:
        model = configurable(provider)
        chosen = [choose("gpt-4.1"), choose("gpt-4.1-mini")]
        for choice in chosen * 2:
            model.invoke("hi", choice)
        opened = provider.connections
        model.close()
        for choice in chosen:
            model.invoke("hi", choice)
        assert provider.connections == 2 * opened
        model.close()


def test_it_shows_what_can_be_chosen(embedded: EmbeddedProvider) -> None:
    shown = repr(configurable(embedded, "gpt-4.1", config_prefix="a"))
    assert shown.startswith("ConfigurableModel('gpt-4.1', fields=")
    assert shown.endswith("prefix='a_')")
    assert "key" not in shown


@pytest.mark.parametrize("wrap", [str, Secret])
def test_different_keys_are_different_models(embedded: EmbeddedProvider, wrap: Any) -> None:
    """Also where they look the same: nobody's request goes out under another one's key."""
    model = configurable(embedded, "gpt-4.1", configurable_fields="any")
    for key in ("key-one", "key-two", "key-one"):
        model.invoke("hi", {"configurable": {"api_key": wrap(key)}})
        assert embedded.requests[-1].headers["authorization"] == f"Bearer {key}"


def test_only_so_many_models_are_kept(embedded: EmbeddedProvider) -> None:
    """The one that was used longest ago goes first."""
    model = configurable(embedded)
    kept = model.model(choose("gpt-4.1"))
    old = model.model(choose("gpt-old"))
    for n in range(62):
        model.model(choose(f"gpt-{n}"))
        assert model.model(choose("gpt-4.1")) is kept
    model.model(choose("gpt-one-more"))
    assert model.model(choose("gpt-4.1")) is kept
    assert len(model._models.all()) == 64
    assert old not in model._models.all()


def test_threads_share_the_models(embedded: EmbeddedProvider) -> None:
    """Chosen at once from many threads: one model for each choice."""
    model = configurable(embedded)
    found: list[Any] = []
    start = threading.Barrier(8)

    def run() -> None:
        start.wait()
        for n in range(100):
            found.append(model.model(choose(f"gpt-{n % 10}")))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 800
    assert len({id(one) for one in found}) == 10


def test_batches_with_a_config_for_each(embedded: EmbeddedProvider) -> None:
    """Each input is answered by its own model."""
    model = configurable(embedded)
    names = ["gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano"]
    answers = model.batch(["a", "b", "c"], [choose(name) for name in names])
    for name, answer in zip(names, answers, strict=True):
        assert answer.response_metadata["model_name"].startswith(name)
    with pytest.raises(ConfigurationError, match="list of 1 for 2"):
        model.batch(["a", "b"], [choose("gpt-4.1")])


@pytest.mark.anyio
async def test_nested_models_see_the_configuration_of_the_run(embedded: EmbeddedProvider) -> None:
    """`configurable` is inherited: by the call itself where nothing else is said."""
    model = configurable(embedded, "gpt-4.1")

    @runnable
    async def app(text: str) -> Any:
        inherited = await model.ainvoke(text)
        own = await model.ainvoke(text, choose("gpt-4.1-nano"))
        return inherited, own

    inherited, own = await app.ainvoke("hi", choose("gpt-4.1-mini", user="u"))
    assert inherited.response_metadata["model_name"].startswith("gpt-4.1-mini")
    assert own.response_metadata["model_name"].startswith("gpt-4.1-nano")
    await model.ainvoke("hi")
    assert asked(embedded)["model"] == "gpt-4.1"


def test_with_config_chooses_for_all_calls(embedded: EmbeddedProvider) -> None:
    """The config of a call wins."""
    model = configurable(embedded, "gpt-4.1").with_config(choose("gpt-4.1-mini"))
    model.invoke("hi")
    assert asked(embedded)["model"] == "gpt-4.1-mini"
    model.invoke("hi", choose("gpt-4.1-nano"))
    assert asked(embedded)["model"] == "gpt-4.1-nano"
    model.invoke("hi", {"tags": ["t"]})
    assert asked(embedded)["model"] == "gpt-4.1-mini"


def test_tags_and_handlers_of_both_are_heard_once(embedded: EmbeddedProvider) -> None:
    """`with_config` on the model plus the config of the call."""
    heard: list[Any] = []

    class Handler:
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            heard.append((kwargs["tags"], kwargs["metadata"]["ls_model_name"]))

    handler = Handler()
    model = configurable(embedded, "gpt-4.1").with_config(tags=["a"], callbacks=[handler])
    model.invoke("hi", {**choose("gpt-4.1-mini"), "tags": ["b"], "callbacks": [handler]})
    assert heard == [(["a", "b"], "gpt-4.1-mini")]


@pytest.mark.anyio
async def test_events_and_message_streams(embedded: EmbeddedProvider) -> None:
    """All ways of calling choose alike."""
    model = configurable(embedded)
    config = choose("gpt-4.1-mini")
    events = [event async for event in model.astream_events("hi", config)]
    assert events[-1]["data"]["output"].response_metadata["model_name"].startswith("gpt-4.1-mini")
    async with model.astream_message("hi", config) as stream:
        assert (await stream.message()).text == events[-1]["data"]["output"].text
    async for index, answer in model.abatch_as_completed(["hi"], config):
        assert (index, answer.text) == (0, events[-1]["data"]["output"].text)


def test_the_profile_is_that_of_the_default(embedded: EmbeddedProvider) -> None:
    """The caller's own dict."""
    model = configurable(embedded, "gpt-4.1")
    assert model.profile == init_chat_model("gpt-4.1", api_key="k").profile
    model.profile.clear()
    assert model.profile


@pytest.mark.parametrize("completed", [False, True])
def test_a_failed_batch_has_what_was_finished(completed: bool) -> None:
    """The error brings the answers that were ready, by index."""
    with EmbeddedProvider(script=["first", Answer(error=400)]) as provider:
        model = configurable(provider, "gpt-4.1").with_config(max_concurrency=1)
        call = model.batch_as_completed if completed else model.batch
        with pytest.raises(InvalidRequestError) as caught:
            list(call(["a", "b"]))
    finished: Any = caught.value.finished  # type: ignore[attr-defined]
    assert [(index, answer.text) for index, answer in finished.items()] == [(0, "first")]
