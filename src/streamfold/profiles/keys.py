"""The keys of a profile."""

from __future__ import annotations

from typing import Annotated, Final, Required, TypeAlias, TypedDict, get_type_hints

from msgspec import Meta

__all__ = ["ABILITIES", "KEYS", "PRICES", "ModelProfile", "PriceTier"]

Tokens: TypeAlias = Annotated[int, Meta(ge=1)]
#: USD for a million tokens. 0 is for what is known to be free; what is not known is left out.
Price: TypeAlias = Annotated[float, Meta(ge=0, le=1_000_000)]


class PriceTier(TypedDict, total=False):
    """The prices of a request with more than `above` input tokens: all that are known of it."""

    above: Required[Tokens]
    input_price: Price
    output_price: Price
    cache_read_price: Price
    cache_write_price: Price
    reasoning_price: Price
    input_audio_price: Price
    output_audio_price: Price


class ModelProfile(TypedDict, total=False):
    """What a model can do and what it costs. Every key may be missing: then it is not known.

    Prices are USD for a million tokens. `reasoning_price` is there only where reasoning is not
    billed as other output. `price_tiers` replace the prices of requests above a size.
    """

    # what it is
    name: str
    status: str  # alpha, beta or deprecated; missing for most
    release_date: str  # YYYY-MM-DD or YYYY-MM
    last_updated: str
    open_weights: bool
    # what it takes
    max_input_tokens: Tokens
    text_inputs: bool
    image_inputs: bool
    image_url_inputs: bool
    pdf_inputs: bool
    audio_inputs: bool
    video_inputs: bool
    image_tool_message: bool  # images in a ToolMessage
    pdf_tool_message: bool
    # what it gives
    max_output_tokens: Tokens
    reasoning_output: bool
    reasoning_effort_levels: list[str]
    reasoning_effort_default: str
    text_outputs: bool
    image_outputs: bool
    audio_outputs: bool
    video_outputs: bool
    # tools and structure
    tool_calling: bool
    tool_choice: bool
    tool_call_streaming: bool  # arguments arrive in pieces
    mid_conversation_system_messages: bool
    mid_conversation_tools: bool
    structured_output: bool  # the provider's own, by JSON schema
    # parameters
    attachment: bool
    temperature: bool
    # what it costs
    input_price: Price
    output_price: Price
    cache_read_price: Price
    cache_write_price: Price
    reasoning_price: Price
    input_audio_price: Price
    output_audio_price: Price
    price_tiers: list[PriceTier]


_HINTS: Final = get_type_hints(ModelProfile)
#: All keys, in the order in which they are shown.
KEYS: Final = tuple(ModelProfile.__annotations__)
#: The keys that are True or False.
ABILITIES: Final = tuple(key for key in KEYS if _HINTS[key] is bool)
#: The keys that say what a token costs.
PRICES: Final = tuple(key for key in KEYS if key.endswith("_price"))
