"""Optimizers that move each element by its own gradient alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar

import numpy as np

from mlx_optimizers.execution.plan import Plan
from mlx_optimizers.execution.program import Coefficients, bind
from mlx_optimizers.interrupts import Stopped
from mlx_optimizers.kinds import Columns, Constants, Dtype, FloatArray, Real, Slots, Tree, Value
from mlx_optimizers.leaves import Leaf
from mlx_optimizers.optimizer import Optimizer
from mlx_optimizers.rates import Counted

__all__ = ["Elementwise"]


class Elementwise(Optimizer):
    """An optimizer that moves each element by its own gradient alone.

    It is written as `coefficients`, `rule` and `exact`. No bit depends on how elements are spread over arrays, blocks
    and threads. A subclass that writes `apply_single` is advanced by that.
    """

    slots: ClassVar[tuple[str, ...]] = ()

    _by_array: ClassVar[bool] = False  # whether a subclass has an `apply_single` of its own

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for slot in cls._declared.slots:
            if slot.shape((2, 3)) != (2, 3):
                raise TypeError(f"slot {slot} of {cls.__name__} must have the shape of its parameter")
        below = cls.__mro__[: cls.__mro__.index(Elementwise)]
        cls._by_array = any("apply_single" in vars(kind) for kind in below)

    def coefficients(self, real: Real) -> Constants:
        """The coefficients of one step, which `rule` gets first: numbers, each rounded once, and flags.

        Args:
            real: The dtype as a class, such as ``numpy.float32``, that rounds a number to it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no coefficients")

    @staticmethod
    def rule(c: Constants, w: FloatArray, g: FloatArray, /, *slots: Value) -> tuple[FloatArray, ...]:
        """One step in floats, made of operators and NumPy's functions of one or two arrays, element by element.

        It states the order in which the results are rounded. Where it has a branch, a flag chooses.

        Args:
            c: The `coefficients`.
            w: The parameter; neither it nor any other array is changed.
            g: The gradient.
            slots: The state arrays, in the order of `slots`.

        Returns:
            The new parameter and slots.
        """
        raise NotImplementedError("the optimizer has no rule")

    def apply_single(self, gradient: FloatArray, parameter: FloatArray, state: Slots) -> FloatArray:
        """Advance one parameter by one step, in place; see `Optimizer.apply_single`."""
        g = np.broadcast_to(np.asarray(gradient, parameter.dtype), parameter.shape)
        plan, arrays = self._plan_of([Leaf((), parameter, parameter, g)], [state])
        try:
            plan.run(arrays, self._coefficients(plan.dtypes))
        except Stopped as stopped:
            raise (stopped.__cause__ or stopped) from None
        return parameter

    def _coefficients(self, dtypes: Iterable[Dtype]) -> Coefficients:
        rule, slots = type(self).rule, len(self.slots)
        return {dtype: bind(rule, tuple(self.coefficients(dtype.type)), slots) for dtype in dtypes}

    def _plan_of(self, found: list[Leaf], states: list[Slots]) -> tuple[Plan, Columns]:
        """Plan the steps of leaves; return the arrays of the first one too."""
        parameters, slots = [leaf.w for leaf in found], [[state[slot] for state in states] for slot in self.slots]
        coefficients = self._coefficients({w.dtype for w in parameters})
        plan = Plan([leaf.path for leaf in found], [parameters, *slots], self.slots, type(self).rule, coefficients)
        gradients = plan.ready([leaf.g for leaf in found])
        assert gradients is not None  # each has its parameter's shape and dtype
        return plan, [parameters, gradients, *slots]

    def _planned(self, gradients: Tree, model: Tree) -> bool:
        plan = self._plan
        arrays = plan.arrays(gradients, model, self._rates.state) if plan is not None else None
        if plan is None or arrays is None:
            self._plan = None
            return False
        with Counted([(self._rates, self._rates.due())]) as counted:
            counted.run(partial(plan.run, arrays, self._coefficients(plan.dtypes)), plan.paths)
        return True

    def _step_of(self, found: list[Leaf], states: list[Slots]) -> tuple[Plan | None, Callable[[], None]]:
        """One step of all leaves; its plan serves the next step of the same arrays."""
        if self._by_array:
            return super()._step_of(found, states)
        plan, arrays = self._plan_of(found, states)
        return plan, partial(plan.run, arrays, self._coefficients(plan.dtypes))
