"""What the guide "Save and resume" says of the order of parameters, here and in torch."""

from __future__ import annotations

import numpy as np
import pytest

from tests.expected import each_class
from tests.support import require

GRADIENTS = {"a": np.float32([1, 2]), "b": np.float32([-3, 4])}


@each_class
def test_a_state_is_matched_to_parameters_by_their_paths_whatever_their_order(made):
    first = {name: np.ones(2, np.float32) for name in ("a", "b")}
    optimizer = made(0.1)
    optimizer.update(first, GRADIENTS)
    again, second = made(0.1), {name: first[name].copy() for name in ("b", "a")}
    again.state = dict(reversed(optimizer.state.items()))
    optimizer.update(first, GRADIENTS)
    again.update(second, GRADIENTS)
    assert {name: w.tobytes() for name, w in first.items()} == {name: w.tobytes() for name, w in second.items()}


def test_torch_matches_a_state_to_parameters_by_their_order():
    torch = require("torch")
    model = {name: torch.nn.Parameter(torch.ones(2)) for name in GRADIENTS}
    saved = torch.optim.Adam([model["a"], model["b"]], lr=0.1)
    for name, g in GRADIENTS.items():
        model[name].grad = torch.tensor(g)
    saved.step()
    again = torch.optim.Adam([model["b"], model["a"]], lr=0.1)
    again.load_state_dict(saved.state_dict())
    for name, other in (("a", "b"), ("b", "a")):
        assert again.state[model[name]]["exp_avg"].tolist() == saved.state[model[other]]["exp_avg"].tolist()
        # By hand: m = 0.1·g.
        assert again.state[model[name]]["exp_avg"].tolist() == pytest.approx(0.1 * GRADIENTS[other], rel=1e-6)
