"""The four float formats: their constants, their bit patterns, and correct rounding into them.

An exact number comes in as ``mantissa * 2**exponent`` with integers, and is rounded once, to the precision that
its own exponent leaves: rounding first to the full precision (or through a double) goes wrong among the subnormals
and next to half-way cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mlx_optimizers.kinds import FloatArray

__all__ = ["FORMATS", "SLACK", "Format", "Scalars", "format_of"]

SLACK = 1.5
"""The one safety factor of the rounding model; it multiplies every roundoff and is never raised."""

Direction = Literal["nearest", "down", "up"]

Scalars = Literal["double", "float32"]
"""Where a program forms its coefficients, such as 1 − β."""


@dataclass(frozen=True)
class Format:
    """An IEEE binary float format.

    Args:
        name: NumPy's name of the dtype.
        precision: Bits of the significand, the hidden one included.
        emax: Exponent of the largest binade.
        flush: The absolute error that an operation may make near zero, before the slack: the smallest normal
            number where backends may flush subnormals to zero, half the smallest subnormal in float16.

    Example:
        >>> from mlx_optimizers.oracle import format_of
        >>> format_of("float32").round(3, -1)
        1.5
        >>> format_of("bfloat16").round(257, -8)
        1.0
    """

    name: str
    precision: int
    emax: int
    flush: float

    @property
    def emin(self) -> int:
        """Exponent of the smallest normal number."""
        return 1 - self.emax

    @property
    def width(self) -> int:
        """Bits of one number; a bit pattern has a quarter as many hexadecimal digits."""
        return self.precision + (self.emax + 1).bit_length()

    @property
    def roundoff(self) -> float:
        """Relative error u that the model grants an operation, ``2**-precision`` times the slack."""
        return SLACK * 2.0**-self.precision

    @property
    def underflow(self) -> float:
        """Absolute error η that the model grants an operation, ``flush`` times the slack."""
        return SLACK * self.flush

    @property
    def limit(self) -> float:
        """Half the end of the largest binade; a ball that reaches it is not tested."""
        return math.ldexp(1.0, self.emax)

    @property
    def tiny(self) -> float:
        """The smallest normal number."""
        return math.ldexp(1.0, self.emin)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype; bfloat16's comes from the package ml_dtypes.

        Raises:
            ImportError: for bfloat16 when ml_dtypes is not installed.
        """
        if self.name != "bfloat16":
            return np.dtype(self.name)
        try:
            import ml_dtypes
        except ImportError as error:
            raise ImportError("dtype bfloat16 needs the package ml_dtypes") from error
        out: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return out

    def round(self, mantissa: int, exponent: int, direction: Direction = "nearest") -> float:
        """Round ``mantissa * 2**exponent`` once, to nearest (ties to even), down or up.

        Returns:
            The rounded value as a Python float, which holds every number of the four formats; ±inf on overflow.
        """
        if mantissa == 0:
            return 0.0
        sign, size = (-1, -mantissa) if mantissa < 0 else (1, mantissa)
        outward = (direction == "up") == (sign > 0)  # where it is not to nearest
        top = size.bit_length() - 1 + exponent
        last = max(top, self.emin) - self.precision + 1  # exponent of the last place that is kept
        unit = 1 << max(last - exponent, 0)
        kept, rest = divmod(size << max(exponent - last, 0), unit)
        if direction == "nearest":
            kept += 2 * rest > unit or (2 * rest == unit and kept & 1)
        else:
            kept += rest > 0 and outward
        if kept.bit_length() - 1 + last > self.emax:
            if direction == "nearest" or outward:
                return sign * math.inf
            kept, last = (1 << self.precision) - 1, self.emax - self.precision + 1
        return sign * math.ldexp(kept, last)

    def by_double(self, near: FloatArray, direction: Direction) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Round numbers of which only the nearest float64 is known, and say for which of them it decides.

        Rounding to nearest keeps the order, and each number of the format and each point half-way between two of them
        is a float64. So the number lies strictly on the same side of them as a float64 that is none of them.

        Args:
            near: The float64 next to each number.
            direction: As for `round`.

        Returns:
            The rounded values, and where they are right for certain.
        """
        if self.name == "float64":  # half-way between two of them is none
            return near.copy(), np.zeros(near.shape, bool)
        inside = np.abs(near) < self.limit  # False for NaN too
        last = np.maximum(np.frexp(near)[1] - 1, self.emin) - self.precision + 1
        scaled = np.ldexp(np.where(inside, near, 0.0), -last)  # exactly: below 2**precision
        whole = {"nearest": np.rint, "down": np.floor, "up": np.ceil}[direction](scaled)
        part = np.abs(scaled - np.trunc(scaled))
        return np.ldexp(whole, last), inside & (part != (0.5 if direction == "nearest" else 0.0))

    def rounded(self, values: FloatArray) -> FloatArray:
        """Round each number of a float64 array once; they stay in float64, which holds those of every format."""

        def single(x: float) -> float:
            top, bottom = x.as_integer_ratio()
            return self.round(top, 1 - bottom.bit_length())

        return np.array([single(x) for x in values.reshape(-1).tolist()]).reshape(values.shape)

    def bits(self, array: npt.ArrayLike) -> list[str]:
        """Write the bit patterns of a flat array, lower-case hexadecimal, most significant digit first.

        Args:
            array: Numbers of the format. Those of bfloat16 may come in another dtype, without the package that brings
                NumPy this one.
        """
        if self.name == "bfloat16" and np.asarray(array).dtype.name != self.name:
            return [pattern[:4] for pattern in FORMATS["float32"].bits(array)]  # the same exponents, fewer digits
        size, digits = self.width // 8, self.width // 4
        unsigned = np.ascontiguousarray(array, self.dtype).reshape(-1).view(f"u{size}")
        text = unsigned.astype(f">u{size}").tobytes().hex()  # all at once, as that is faster
        return [text[start : start + digits] for start in range(0, len(text), digits)]

    def from_bits(self, patterns: Sequence[Any]) -> npt.NDArray[Any]:
        """Build the array that has these bit patterns.

        Raises:
            ValueError: for a pattern without the format's number of lower-case hexadecimal digits.
        """
        digits = self.width // 4
        for pattern in patterns:
            if not isinstance(pattern, str) or len(pattern) != digits or set(pattern) - set("0123456789abcdef"):
                raise ValueError(f"{pattern!r} is not a {self.name} bit pattern of {digits} hexadecimal digits")
        return np.array([int(pattern, 16) for pattern in patterns], f"u{self.width // 8}").view(self.dtype)


FORMATS = {
    "float16": Format("float16", 11, 15, 2.0**-25),
    "bfloat16": Format("bfloat16", 8, 127, 2.0**-126),
    "float32": Format("float32", 24, 127, 2.0**-126),
    "float64": Format("float64", 53, 1023, 2.0**-1022),
}


def format_of(dtype: npt.DTypeLike) -> Format:
    """Look up the format of a dtype or of its name.

    Raises:
        TypeError: for a dtype that is none of the four.

    Example:
        >>> from mlx_optimizers.oracle import format_of
        >>> format_of("float16").precision
        11
    """
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    if name not in FORMATS:
        raise TypeError(f"dtype {name!r} is none of {', '.join(FORMATS)}")
    return FORMATS[name]
