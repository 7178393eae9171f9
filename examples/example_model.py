"""The model that the examples talk to. In your own program: ``init_chat_model("openai:gpt-4.1")``.

STREAMFOLD_MODEL names another one, such as anthropic:claude-sonnet-4-5, and STREAMFOLD_BASE_URL
its address, if that is not the provider's own. Where nothing is set, a provider embedded in this
process answers: no key, no network.
"""

import os

from streamfold import ChatModel, init_chat_model
from streamfold.testing import EmbeddedProvider


def example_model() -> ChatModel:
    name = os.environ.get("STREAMFOLD_MODEL")
    if name:
        return init_chat_model(name, base_url=os.environ.get("STREAMFOLD_BASE_URL") or None)
    provider = EmbeddedProvider(chunk_delay=0.02)
    provider.start()  # it runs until the program ends
    return init_chat_model("openai:gpt-4.1", base_url=provider.url + "/v1", api_key="none")
