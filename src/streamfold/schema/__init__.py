"""Types and JSON schemas: what a model is told of a type, and what becomes of its answer.

`types` and `signatures` turn Python types and functions into JSON schema; `dialects` says a schema
in the words that a vendor takes, by its `rules`; `values` turns JSON data back into Python values.
All of it is pure: no IO, no network. Pydantic is used where its models are given, and needed
nowhere else.
"""

from __future__ import annotations

from .dialects import for_tool, translate
from .references import Inexpressible
from .rules import Rules, rules_of
from .signatures import function_name, function_schema
from .types import JSONSchema, describe, is_object_type, is_pydantic, is_typeddict, schema_of
from .values import check, convert, unfit, without_nulls

__all__ = [
    "Inexpressible",
    "JSONSchema",
    "Rules",
    "check",
    "convert",
    "describe",
    "for_tool",
    "function_name",
    "function_schema",
    "is_object_type",
    "is_pydantic",
    "is_typeddict",
    "rules_of",
    "schema_of",
    "translate",
    "unfit",
    "without_nulls",
]
