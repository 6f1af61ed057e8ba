"""Hyperparameters: attributes that are validated whenever they are set."""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable
from typing import Any, ParamSpec

from mlx_optimizers import trees

__all__ = [
    "Hyperparameter",
    "at_least_one",
    "at_least_zero",
    "at_most_zero",
    "below_one_or_none",
    "explained",
    "number",
    "pair_at_least_zero",
    "pair_below_one",
    "positive",
    "switch",
    "unit",
    "whole",
]

Arguments = ParamSpec("Arguments")


def number(name: str, value: Any) -> float:
    """Convert a finite number to a float.

    Raises:
        TypeError: for a string, a bool, or anything else that is no real number, also in a scalar or 0-d array.
        ValueError: for NaN, an infinity, or a number too large for a float.
    """
    if trees.is_mlx(value):
        value = trees.from_mlx(value, name)
    kind = getattr(getattr(value, "dtype", None), "kind", "f")
    if isinstance(value, str | bytes | bool | complex) or kind in "bcSUOmM" or getattr(value, "ndim", 0) != 0:
        raise TypeError(f"{name} must be a number, not {value!r}")
    try:
        converted = float(value)
    except OverflowError:
        raise ValueError(f"{name} must be finite, not beyond {sys.float_info.max!r}") from None
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, not {value!r}") from None
    if not math.isfinite(converted):
        raise ValueError(f"{name} must be finite, not {converted!r}")
    return converted


def at_least_zero(name: str, value: Any) -> float:
    """Require a finite number ≥ 0."""
    return _within(name, value, "at least 0", lambda x: x >= 0)


def at_least_one(name: str, value: Any) -> float:
    """Require a finite number ≥ 1."""
    return _within(name, value, "at least 1", lambda x: x >= 1)


def at_most_zero(name: str, value: Any) -> float:
    """Require a finite number ≤ 0."""
    return _within(name, value, "at most 0", lambda x: x <= 0)


def positive(name: str, value: Any) -> float:
    """Require a finite number > 0."""
    return _within(name, value, ">0", lambda x: x > 0)


def unit(name: str, value: Any) -> float:
    """Require a number in [0, 1]."""
    return _within(name, value, "in [0, 1]", lambda x: 0 <= x <= 1)


def below_one_or_none(name: str, value: Any) -> float | None:
    """Require a number in [0, 1), or None."""
    return None if value is None else _within(name, value, "in [0, 1)", _below_one)


def pair_below_one(name: str, value: Any) -> tuple[float, float]:
    """Require two numbers in [0, 1)."""
    return _pair(name, value, "in [0, 1)", _below_one)


def pair_at_least_zero(name: str, value: Any) -> tuple[float, float]:
    """Require two finite numbers ≥ 0."""
    return _pair(name, value, "at least 0", lambda x: x >= 0)


def _below_one(x: float) -> bool:
    return 0 <= x < 1


def _pair(name: str, value: Any, words: str, allowed: Callable[[float], bool]) -> tuple[float, float]:
    if isinstance(value, str | bytes | dict | set | frozenset) or not hasattr(value, "__iter__"):
        raise TypeError(f"{name} must be two numbers, not {value!r}")
    items = list(value)
    if len(items) != 2:
        raise ValueError(f"{name} must be two numbers, not {value!r}")
    first, second = (_within(f"{name}[{index}]", item, words, allowed) for index, item in enumerate(items))
    return first, second


def switch(name: str, value: Any) -> bool:
    """Require True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def whole(name: str, value: Any) -> int:
    """Require a whole number ≥ 0."""
    converted = number(name, value)
    if converted < 0 or converted != int(converted):
        raise ValueError(f"{name} must be a whole number, at least 0, not {value!r}")
    return int(converted)


def _within(name: str, value: Any, words: str, allowed: Callable[[float], bool]) -> float:
    converted = number(name, value)
    if not allowed(converted):
        raise ValueError(f"{name} must be {words}, not {converted!r}")
    return converted


class Hyperparameter:
    """An attribute that passes a check whenever it is set.

    Args:
        check: Gets the attribute's name and the value, returns the value to keep, or raises.
        doc: The docstring of the attribute.
    """

    def __init__(self, check: Callable[[str, Any], Any], doc: str) -> None:
        self.check = check
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        try:
            return instance.__dict__[self._name]
        except KeyError:
            raise AttributeError(f"{type(instance).__name__} has no {self._name} yet") from None

    def __set__(self, instance: Any, value: Any) -> None:
        before = dict(instance.__dict__)
        instance.__dict__[self._name] = self.check(self._name, value)
        try:
            instance.check_together()
        except ValueError:
            instance.__dict__ = before
            raise


_BIAS_CORRECTION = (
    "one class has one formula, and that of {0} with bias correction, {0}[bias_correction=true], is BiasCorrected{0}'s"
)
_SCHEDULERS = (
    "give a callable as learning_rate; in a class of your own, self._maybe_schedule(name, callable) schedules another "
    "hyperparameter"
)


def explained(init: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Have a constructor say what to use instead of an argument that MLX added later.

    Raises:
        TypeError: when the constructor is called with such an argument.
    """
    known = inspect.signature(init).parameters

    @functools.wraps(init)
    def checked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        package = __name__.partition(".")[0]
        name = next(kind.__name__ for kind in type(args[0]).__mro__ if kind.__module__.partition(".")[0] == package)
        later = {"bias_correction": _BIAS_CORRECTION if name in ("Adam", "AdamW") else None, "schedulers": _SCHEDULERS}
        beyond = ["bias_correction"] if len(args) > len(known) else []  # where it stands in MLX
        for argument in (*kwargs, *beyond):
            words = None if argument in known else later.get(str(argument))
            if words is not None:
                raise TypeError(f"{name} has no argument {argument}: {words.format(name)}")
        init(*args, **kwargs)

    return checked
