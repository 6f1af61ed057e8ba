"""What a program may use in the place of its hyperparameters: another number, a multiple, or another hyperparameter."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mlx_optimizers.catalog import Choice, Entry
from mlx_optimizers.kinds import Hyperparameters, Number, Numbers

__all__ = ["KINDS", "Constant", "Kind", "constants_of", "is_constant", "number_of", "parts_of", "spelt", "used"]

Kind = Literal["ignored", "scaled", "replaced"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""The axes that take any value, and several at once."""

EXTRA = {"ignored": ("clip", "initial"), "scaled": ("gradient", "step"), "replaced": ()}
"""What each takes besides hyperparameters."""

_NUMBER = r"-?\d+(\.\d+)?(e[+-]?\d+)?"


@dataclass(frozen=True)
class Constant:
    """What stands in the place of one hyperparameter.

    Args:
        kind: ``"ignored"``: the value is used; ``"scaled"``: the hyperparameter times the value; ``"replaced"``: what
            the value spells.
        name: The hyperparameter; of a pair ``beta_1`` and ``beta_2``; or ``gradient``, ``step`` (the update without a
            decay), ``clip`` (to which gradients are clipped), ``initial`` (from which v starts).
        value: A number, the text of an expression, or a number of a context.
    """

    kind: Kind
    name: str
    value: Any

    def __str__(self) -> str:
        value = self.value if isinstance(self.value, str) else repr(float(self.value)).removesuffix(".0")
        return f"{self.name}:{value}"


def parts_of(entry: Entry) -> dict[str, tuple[str, ...]]:
    """Name the numbers of an optimizer: each hyperparameter with its parts, which are two for a pair.

    One that is no number by default has no slot in a formula that needs it, and is left out.

    Example:
        >>> from mlx_optimizers.catalog import entry_of
        >>> from mlx_optimizers.oracle.constants import parts_of
        >>> parts_of(entry_of("Adam"))
        {'learning_rate': ('learning_rate',), 'betas': ('beta_1', 'beta_2'), 'eps': ('eps',)}
    """
    parameters = inspect.signature(entry.optimizer).parameters.values()
    return {
        p.name: ("beta_1", "beta_2") if p.name == "betas" else (p.name,)
        for p in parameters
        if not isinstance(p.default, bool) and p.name != "beta_1"
    }


def is_constant(entry: Entry, kind: str, text: str) -> bool:
    """Say whether a text is a value of one of the axes that take any: ``eps:1e-07``, ``eps:100``, ``eps:eps^2``."""
    name, _, value = text.partition(":")
    parts = parts_of(entry)
    known = {part for those in parts.values() for part in those} | ({*EXTRA[kind]} & {*entry.constants})
    if kind == "replaced":
        other = re.fullmatch(r"(?:1-)?(\w+)|(\w+)\^2|sqrt\((\w+)\)", value, re.ASCII)
        return name in known and other is not None and value != name and (other[1] or other[2] or other[3]) in known
    default = inspect.signature(entry.optimizer).parameters.get(name)
    pair = kind == "ignored" and default is not None and isinstance(default.default, tuple)
    if name not in known and not pair:
        return False
    pattern = f"{_NUMBER},{_NUMBER}" if pair else _NUMBER
    matched = re.fullmatch(pattern, value, re.ASCII) is not None
    return matched and all(math.isfinite(float(item)) for item in value.split(","))


def constants_of(choice: Choice) -> tuple[Constant, ...]:
    """Read the constants of a choice; a pair gives two."""
    return tuple(_read(choice))


def _read(choice: Choice) -> Iterator[Constant]:
    for kind in KINDS:
        for text in choice.get(kind, "none").split():
            name, _, value = text.partition(":")
            if not value:
                continue
            if kind == "replaced":
                yield Constant(kind, name, value)
            elif name == "betas":
                for part, number in zip(("beta_1", "beta_2"), value.split(","), strict=True):
                    yield Constant(kind, part, float(number))
            elif "," in value:
                yield Constant(kind, name, tuple(map(float, value.split(","))))
            else:
                yield Constant(kind, name, float(value))


def spelt(constants: Iterable[Constant]) -> dict[str, str]:
    """Write constants as values of axes: both betas as ``betas:A,B``, and each kind sorted.

    Example:
        >>> from mlx_optimizers.oracle.constants import Constant, spelt
        >>> betas = Constant("ignored", "beta_2", 0.99), Constant("ignored", "beta_1", 0.8)
        >>> spelt([*betas, Constant("scaled", "eps", 100.0)])
        {'ignored': 'betas:0.8,0.99', 'scaled': 'eps:100'}
    """
    out: dict[str, str] = {}
    for kind in KINDS:
        of = {item.name: str(item) for item in constants if item.kind == kind}
        if kind == "ignored" and {"beta_1", "beta_2"} <= set(of):
            pair = ",".join(of.pop(name).partition(":")[2] for name in ("beta_1", "beta_2"))
            of["betas"] = f"betas:{pair}"
        if of:
            out[kind] = " ".join(sorted(of.values()))
    return out


def used(constants: Sequence[Constant], n: Numbers, h: Hyperparameters, g: Number) -> tuple[Hyperparameters, Number]:
    """Compute the hyperparameters and the gradient that a program uses."""
    given: dict[str, Any] = dict(vars(h))
    pair = given.pop("betas", None)
    if pair is not None:
        given["beta_1"], given["beta_2"] = pair
    now = {**given, "rate": None}
    for item in constants:
        if item.name in ("gradient", "clip"):
            x = number_of(n, item)
            g = x * g if item.name == "gradient" else n.clip(g, x)
        elif item.name == "step":
            now["rate"] = number_of(n, item)
        elif item.kind == "replaced":
            now[item.name] = _spelling(n, item.value, given)
        elif item.name == "learning_rate":
            of = ("learning_rate", "first_rate", "previous_rate")
            now |= {
                name: number_of(n, item) if item.kind == "ignored" else number_of(n, item) * now[name] for name in of
            }
        elif item.name != "initial":
            now[item.name] = number_of(n, item) if item.kind == "ignored" else number_of(n, item) * now[item.name]
    rate = now["learning_rate"]
    now["rate"] = rate if now["rate"] is None else now["rate"] * rate
    if pair is not None:
        now["betas"] = now.pop("beta_1"), now.pop("beta_2")
    return Hyperparameters(**now), g


def number_of(n: Numbers, item: Constant) -> Any:
    """Make the value of a constant a number of a context."""
    if isinstance(item.value, tuple):
        return tuple(map(n.number, item.value))
    return n.number(item.value) if isinstance(item.value, int | float) else item.value


def _spelling(n: Numbers, text: str, given: dict[str, Any]) -> Any:
    """Evaluate NAME, 1-NAME, NAME^2 or sqrt(NAME)."""
    forms: dict[str, Callable[[Any], Any]] = {
        r"1-(\w+)": lambda x: 1 - x,
        r"(\w+)\^2": lambda x: x * x,
        r"sqrt\((\w+)\)": n.sqrt,
        r"(\w+)": lambda x: x,
    }
    return next(form(given[match[1]]) for pattern, form in forms.items() if (match := re.fullmatch(pattern, text)))
