"""What the world says of one optimizer: the types of the catalog."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mlx_optimizers.kinds import Shape, Step
from mlx_optimizers.optimizer import Optimizer

Choice = Mapping[str, str]
"""The value of each axis by its name; several of the axes ``ignored``, ``scaled`` and ``replaced``, by blanks."""


@dataclass(frozen=True)
class Value:
    """One way to differ.

    Args:
        words: What a sentence "computes Adam with …" says of it.
        seen_in: The programs that do so.
    """

    words: str
    seen_in: str


@dataclass(frozen=True)
class Axis:
    """One thing that implementations of an optimizer do differently.

    Args:
        name: The key in brackets of a formula's name.
        values: The values, the default first. The axes ``ignored``, ``scaled`` and ``replaced`` take others too, and
            more than one at once; those listed are usual ones.
        meaning: What each value but the default means.
        needs: Gets all choices, and says what is missing for this one to mean anything; None where nothing is.
        remembering: The values under which the step keeps one array more, which is zero at first, behind the slots.
    """

    name: str
    values: tuple[str, ...]
    meaning: Mapping[str, Value]
    needs: Callable[[Choice], str | None] = lambda choice: None
    remembering: tuple[str, ...] = ()


@dataclass(frozen=True)
class Elsewhere:
    """What a library has.

    Args:
        name: The library's name for the optimizer.
        claim: The formula that the library says it computes.
        slots: Our names of its state arrays, by its own.
    """

    name: str
    claim: str
    slots: Mapping[str, str]


@dataclass(frozen=True)
class Event:
    """What MLX computed or documented otherwise.

    Args:
        what: The event, in words.
        versions: The versions of MLX: "before X", where X is the first without it; "from A, before X", where A is the
            first with it; or "still in X", where X is the last that was read.
        threads: The numbers of MLX's issues and pull requests.
    """

    what: str
    versions: str
    threads: tuple[int, ...]


@dataclass(frozen=True)
class Plot:
    """How the optimizer is drawn on a test function.

    Args:
        rate: A learning rate under which it moves about as far as the others, or None.
        label: Where its name stands, in points from the end of its path.
    """

    rate: float | None
    label: tuple[int, int]


@dataclass(frozen=True)
class Entry:
    """All that is said of one optimizer outside its module.

    Args:
        optimizer: The class.
        formula: The formula that the class computes: its own name, or another's with what differs in brackets.
        rate: The usual learning rate, which cases and examples have by default; None where it may be left out.
        settings: The hyperparameters of its cases, besides the defaults.
        frame: Those of its cases of the frame, so that a state and a weight decay play a part where it has them.
        rare: Settings with values that seldom occur, each with the regime of its case.
        means: The hyperparameters that are decays of running means, which a program may compute by interpolation.
        regimes: The regimes of data of its cases, by name.
        tiny: The least and the greatest gradient of the regime ``tiny``, where ε decides, for an ε.
        axes: Where implementations differ.
        constants: What a diagnosis solves for: hyperparameters, of a pair ``beta_1`` and ``beta_2``; ``gradient`` and
            ``step``, by a factor; ``clip``, to which gradients are clipped; ``initial``, from which v starts.
        branches: The hyperparameters whose being 0 makes another step, or that of what stands in their place.
        step: One step over the numbers of an oracle, under a choice of the axes: ``step(a, n, h, t, w, g, *slots)``.
            ``h.rate`` is the learning rate of the update, ``h.learning_rate`` that of a decay, ``h.first_rate`` the
            first one.
        depth: In how many axes a diagnosis lets a formula differ.
        undecided: The quantities of the regime ``special`` in which a NaN may vanish in a correct program.
        elsewhere: What torch, optax and Keras have, by the library's name; a library that has none is left out.
        history: What MLX computed or documented otherwise.
        plot: How it is drawn.
        shape: The shape of the parameter of its cases, but where a regime has one of its own; 24 elements.
        consistent: Whether a program is compared with the exact step where nothing of the parameter is certain.
    """

    optimizer: type[Optimizer]
    formula: str
    rate: float | None
    settings: tuple[Mapping[str, Any], ...]
    frame: Mapping[str, Any]
    rare: tuple[tuple[str, Mapping[str, Any]], ...]
    means: tuple[str, ...]
    regimes: tuple[str, ...]
    tiny: Callable[[Any], tuple[float, float]]
    axes: tuple[Axis, ...]
    constants: tuple[str, ...]
    branches: tuple[str, ...]
    step: Callable[..., Step]
    depth: int
    undecided: frozenset[str]
    elsewhere: Mapping[str, Elsewhere]
    history: tuple[Event, ...]
    plot: Plot
    shape: Shape
    consistent: bool

    @property
    def name(self) -> str:
        """The name of the class."""
        return self.optimizer.__name__

    @property
    def family(self) -> str:
        """The name of the optimizer under which the formula stands, and whose axes it has."""
        return self.formula.partition("[")[0]
