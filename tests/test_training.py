"""The training loop of the page with each optimizer and with MLX's own: the same bits after an epoch of the digits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import mlx_optimizers as ours
from tests.expected import CLASSES, EXPECTED, NAMES, each_name, each_of_eight
from tests.support import require

mx = require("mlx.core")
nn = require("mlx.nn")
theirs = require("mlx.optimizers")
datasets = require("sklearn.datasets")

BATCH = 50


class MLP(nn.Module):
    def __init__(self, num_layers, input_dim, hidden_dim, output_dim):
        super().__init__()
        sizes = [input_dim] + [hidden_dim] * num_layers + [output_dim]
        self.layers = [nn.Linear(inputs, outputs) for inputs, outputs in itertools.pairwise(sizes)]

    def __call__(self, x):
        for layer in self.layers[:-1]:
            x = nn.relu(layer(x))
        return self.layers[-1](x)


def loss_fn(model, images, labels):
    return nn.losses.cross_entropy(model(images), labels, reduction="mean")


@pytest.fixture(scope="module", autouse=True)
def on_the_cpu():
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    yield
    mx.set_default_device(before)


@pytest.fixture(scope="module")
def digits():
    images, labels = datasets.load_digits(return_X_y=True)
    assert len(images) == 1797
    return mx.array(images / 16, dtype=mx.float32), mx.array(labels)


def trained(optimizer, digits):
    """Train for one epoch: the model, and the loss of each batch."""
    mx.random.seed(0)
    images, labels = digits
    model = MLP(2, images.shape[-1], 32, 10)
    mx.eval(model.parameters())
    loss_and_grad = nn.value_and_grad(model, loss_fn)
    order = np.random.default_rng(0).permutation(len(labels))
    losses = []
    for start in range(0, len(order), BATCH):
        batch = mx.array(order[start : start + BATCH])
        loss, gradients = loss_and_grad(model, images[batch], labels[batch])
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
        losses.append(loss.item())
    return model, losses


def bits(tree, path=""):
    """Read the bit pattern of every float array in a tree, by path."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {place: found for key, child in items for place, found in bits(child, f"{path}.{key}").items()}
    return {path: np.array(tree).tobytes()}


@each_of_eight
def test_an_epoch_of_training_ends_with_the_bits_of_mlx(name, digits):
    """The hyperparameters that a record leaves out stay at each side's defaults, which must be the same."""
    optimizers = [getattr(library, name)(**EXPECTED[name].training) for library in (ours, theirs)]
    (mine, losses), (reference, their_losses) = (trained(optimizer, digits) for optimizer in optimizers)
    assert bits(mine.parameters()) == bits(reference.parameters())
    assert losses == their_losses
    states = [{path: x for path, x in bits(optimizer.state).items() if "layers" in path} for optimizer in optimizers]
    assert states[0] == states[1]
    assert len(states[0]) == 6 * len(getattr(ours, name).slots), "weights and biases of three layers"


@each_name
def test_an_epoch_of_training_reduces_the_loss(name, digits):
    _, losses = trained(getattr(ours, name)(**EXPECTED[name].training), digits)
    assert sum(losses[-5:]) < sum(losses[:5])


def test_every_optimizer_is_trained_with():
    assert tuple(optimizer.__name__ for optimizer in CLASSES) == NAMES
