"""Requests in OpenAI Responses, and which calls need this API rather than Chat Completions.

Reference: https://platform.openai.com/docs/api-reference/responses/create. What is sent:

- The conversation as `input` items, in its order: system messages under their role, what the user
  says, the items of earlier answers, and tool results as items of their own kind, which is told by
  the call they answer. A message of one plain text is sent as a str.
- The items of an answer of this API as they came, put together from its blocks and their `extras`;
  an answer of any other as plain text and calls, without ids.
- Reasoning that nothing follows is left out, for the API rejects it, and so is reasoning that the
  server has not kept (`store` was false) and did not send encrypted; the ids of what follows it go
  with it, for one is not taken without the other.
- Function tools are not strict unless they say so, as with Chat Completions: here the API's default
  would make every optional argument a required one. A tool in this API's own form is sent as it is.
- OpenAI's Chat parts translated, this API's own parts and items as they are.
- What this API has no place for is left out with one warning.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, Final

from ..coercion import shown
from ..content import KNOWN_BLOCK_TYPES, Block, standard_block
from ..errors import ConfigurationError
from ..messages import AIMessage, ToolMessage
from .encoding import (
    RESPONSES,
    Dropped,
    ToolChoice,
    Turn,
    decoded_text,
    function_tool,
    json_bytes,
    media,
    media_type,
    merged,
    native_value,
    other_fields,
    read_choice,
    turns,
    unknown_part,
    unpacked,
)
from .openai_responses_answer import NATIVE_ITEMS, answer_items
from .request import ChatRequest, HTTPRequest

__all__ = ["BODY_FIELDS", "encode", "use_responses"]

#: This API's own parts of messages, passed on as they are.
NATIVE_PARTS: Final = frozenset({"input_text", "input_image", "input_file", "output_text", "refusal"})


def encode(request: ChatRequest) -> HTTPRequest:
    """The request for ``POST /responses``.

    `logprobs` and `verbosity` in `extra` mean what they mean for Chat Completions. Raises
    ConfigurationError for what cannot be sent, stop words among it.
    """
    dropped = Dropped(RESPONSES)
    items = _input(turns(request, dropped))
    extra = _extra(request)
    body = {"model": request.model, "input": items, **_parameters(request, dropped)}
    if "max_output_tokens" in extra:
        body.pop("max_output_tokens", None)
    body = merged(body, extra, deep=("reasoning", "text"))
    dropped.warn()
    return HTTPRequest(path="/responses", body=json_bytes(body))
