"""The JSON Schemas (2020-12) of what the package writes; their enumerations come from the catalog."""

from __future__ import annotations

import inspect
import json
from importlib.resources import files
from typing import Any, Literal

from mlx_optimizers.catalog import CATALOG
from mlx_optimizers.hyperparameters import (
    at_least_zero,
    at_most_zero,
    below_one_or_none,
    pair_at_least_zero,
    pair_below_one,
    positive,
    unit,
    whole,
)

__all__ = ["schema"]

_LIMITS: dict[Any, dict[str, float]] = {
    at_least_zero: {"minimum": 0},
    positive: {"minimum": 0},
    unit: {"minimum": 0, "maximum": 1},
    at_most_zero: {"maximum": 0},
    below_one_or_none: {"minimum": 0, "exclusiveMaximum": 1},
    pair_at_least_zero: {"minimum": 0},
    pair_below_one: {"minimum": 0, "exclusiveMaximum": 1},
    whole: {"minimum": 0},
}
"""The limits in a schema of a number that passes a check."""


def schema(of: Literal["report", "vectors"]) -> dict[str, Any]:
    """Build the JSON Schema of a report, or of a file of vectors and their manifest.

    Example:
        >>> from mlx_optimizers.conformance.schemas import schema
        >>> schema("report")["$defs"]["worst"]["properties"]["quantity"]["enum"][:4]
        ['parameter', 'v', 'u', 'm']
    """
    text = files(__name__).joinpath(f"{of}.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    definitions = loaded["$defs"]
    slots = list(dict.fromkeys(slot for entry in CATALOG for slot in entry.optimizer.slots))
    if of == "report":
        definitions["worst"]["properties"]["quantity"]["enum"] = ["parameter", *slots, "gradient"]
        return loaded
    definitions["optimizer"]["enum"] = [entry.name for entry in CATALOG]
    definitions["hyperparameters"]["properties"].update(_hyperparameters())
    for digits in (4, 8, 16):
        state = definitions[f"step{digits}"]["properties"]["state"]
        state["properties"] = {slot: {"$ref": f"#/$defs/quantity{digits}"} for slot in slots}
    return loaded


def _hyperparameters() -> dict[str, Any]:
    """Build the schema of each hyperparameter but the learning rate; several optimizers may share a name."""
    schemas: dict[str, list[dict[str, Any]]] = {}
    for entry in CATALOG:
        for name, parameter in inspect.signature(entry.optimizer).parameters.items():
            if name == "learning_rate":
                continue
            this = _value(parameter.default, _LIMITS.get(getattr(entry.optimizer, name).check, {}))
            if this not in schemas.setdefault(name, []):
                schemas[name].append(this)
    return {name: all_of[0] if len(all_of) == 1 else {"anyOf": all_of} for name, all_of in schemas.items()}


def _value(default: Any, limits: dict[str, float]) -> dict[str, Any]:
    """Build the schema of values like a default."""
    if isinstance(default, bool):
        return {"type": "boolean"}
    if default is None:
        return {"type": ["number", "null"], **limits}
    if isinstance(default, tuple):
        count = len(default)
        return {"type": "array", "minItems": count, "maxItems": count, "items": {"type": "number", **limits}}
    return {"type": "integer" if isinstance(default, int) else "number", **limits}
