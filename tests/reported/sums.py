"""Wrong programs of SGD, RMSprop and Adagrad that somebody reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.reported.program import Reported

# --- SGD ---------------------------------------------------------------------------------------------------------


def _decayed(h: Any, w: Any, g: Any) -> Any:
    """The gradient with the weight decay in it."""
    return g + h.weight_decay * w if h.weight_decay != 0 else g


def _stepped(h: Any, rate: float, w: Any, g: Any, v: Any) -> Any:
    """What SGD does with a gradient."""
    if h.momentum == 0:
        return w - rate * g, v
    v = h.momentum * v + (1 - h.dampening) * g
    return w - rate * (g + h.momentum * v if h.nesterov else v), v


def arguments_in_another_order(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    # called with (momentum, dampening, weight_decay), declared as (weight_decay, momentum, damping)
    weight_decay, momentum, damping = h.momentum, h.dampening, h.weight_decay
    if weight_decay != 0:
        g = g + weight_decay * w
    if momentum != 0:
        v = momentum * v + (1 - damping) * g if t > 1 else g
        g = g + momentum * v if h.nesterov else v
    return w - h.learning_rate * g, v


def decay_subtracted(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    g = g - h.weight_decay * w
    return _stepped(h, h.learning_rate, w, g, v)


def decay_without_the_weight(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    if h.momentum != 0:
        v = g if t == 1 else h.momentum * v + (1 - h.dampening) * g
        g = g + h.momentum * v if h.nesterov else v
    w = w - h.learning_rate * g
    if h.weight_decay != 0:
        w = w - np.float32(h.learning_rate * h.weight_decay)
    return w, v


def coefficient_on_the_gradient(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    v = v + h.momentum * _decayed(h, w, g)
    return w - h.learning_rate * v, v


def buffer_of_the_step_before(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    g = _decayed(h, w, g)
    new = h.momentum * v + (1 - h.momentum) * g
    return w - (1 - h.momentum) * h.learning_rate * v, new


def gradient_times_one_minus_momentum(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    g = _decayed(h, w, g)
    v = h.momentum * v - (1 - h.momentum) * g
    return w + h.learning_rate * (h.momentum * v - g if h.nesterov else v), v


def nesterov_without_parentheses(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    g = _decayed(h, w, g)
    if h.momentum == 0:
        return w - h.learning_rate * g, v
    v = h.momentum * v + (1 - h.dampening) * g
    if h.nesterov:
        return w - g * h.learning_rate + h.momentum * v * h.learning_rate, v
    return w - h.learning_rate * v, v


def velocity_of_the_other_sign(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    g = _decayed(h, w, g)
    velocity = v * h.momentum + h.learning_rate * g
    w = w + h.momentum * velocity - h.learning_rate * g
    return w, velocity


def velocity_and_gradient(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    g = _decayed(h, w, g)
    if h.momentum == 0:
        return w - h.learning_rate * g, v
    velocity = v * h.momentum - (1 - h.dampening) * (h.learning_rate * g)
    w = w + h.momentum * velocity - h.learning_rate * g
    return w, velocity


def only_the_last_gradient(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    g = _decayed(h, w, g)
    w = w - h.learning_rate * g
    w = w - h.momentum * v
    return w, g


def zero_gradients_left_out(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    there = g != 0
    new_w, new_v = _stepped(h, h.learning_rate, w, _decayed(h, w, g), v)
    return np.where(there, new_w, w), np.where(there, new_v, v)


def nesterov_before_the_buffer(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    g = _decayed(h, w, g)
    if h.momentum == 0:
        return w - h.learning_rate * g, v
    if h.nesterov:
        g = g + h.momentum * v
    v = h.momentum * v + (1 - h.momentum) * g
    return w - h.learning_rate * v, v


def nesterov_in_place(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    g = _decayed(h, w, g)
    if h.momentum == 0:
        return w - h.learning_rate * g, v
    v = h.momentum * v + (1 - h.dampening) * g
    if h.nesterov:
        v = h.momentum * v + g  # written over the buffer itself
    return w - h.learning_rate * v, v


def rate_from_the_decay(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    return _stepped(h, h.weight_decay, w, _decayed(h, w, g), v)


# --- RMSprop -----------------------------------------------------------------------------------------------------


def average_for_the_gradient(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    v = h.alpha * v + (1 - h.alpha) * (g * g)
    x = v / (np.sqrt(v) + h.eps)
    return w - h.learning_rate * x, v


def rate_that_grows_and_shrinks() -> Callable[..., Any]:
    before = [np.float32(0)]

    def step(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
        delta = h.alpha
        v = np.where(g * before[0] > 0, v + np.float32(delta), v * (1 - delta))
        before[0] = g
        return w - h.learning_rate * v, v

    return step


def average_from_one(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    if t == 1:
        v = np.ones_like(v)
    v = h.alpha * v + (1 - h.alpha) * (g * g)
    return w - h.learning_rate * (g / (np.sqrt(v) + h.eps)), v


def average_of_the_plain_gradient(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    v = v * 0.9 + (1 - 0.9) * g
    return w - h.learning_rate * g / np.sqrt(v + h.eps), v


def corrected_in_place(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    steps = 0  # read from one counter, written to another
    v = h.alpha * v + (1 - h.alpha) * (g * g)
    v = v / (1 - h.alpha ** (steps + 1))
    return w - h.learning_rate * (g / np.sqrt(v + h.eps)), v


def square_not_weighted(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    v = v * h.alpha + g * g
    return w - h.learning_rate * (g / (np.sqrt(v) + h.eps)), v


def squared_average(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    v = h.alpha * v + (1 - h.alpha) * (g * g)
    return w - h.learning_rate * g / (v * v), v


def variance_below_zero() -> Callable[..., Any]:
    mean = [np.float32(0)]

    def step(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
        v = h.alpha * v + (1 - h.alpha) * (g * g)
        mean[0] = h.alpha * mean[0] + (1 - h.alpha) * g
        variance = v - mean[0] * mean[0]
        return w - h.learning_rate * (g / np.sqrt(variance + h.eps)), v

    return step


# --- Adagrad -----------------------------------------------------------------------------------------------------


def rate_in_the_sum(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    if t == 1:
        v = np.ones_like(v)
    x = h.learning_rate * g
    w = w - x / np.sqrt(v)
    return w, v + x * x


def uphill(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    v = v + g * g
    return w + h.learning_rate * g / np.sqrt(v + h.eps), v


def nothing_in_the_denominator(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    v = v + g * g
    return w + (-h.learning_rate / np.sqrt(v)) * g, v


def gradients_not_cleared() -> Callable[..., Any]:
    left: list[Any] = []

    def step(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
        g = g + left.pop() if left else g  # the new gradient is added to what is left
        v = v + g * g
        w = w - h.learning_rate / np.sqrt(v + h.eps) * g
        kept = g.copy()
        kept[0] = 0  # the index of the array, not that of the element
        left.append(kept)
        return w, v

    return step


def step_without_the_gradient(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    v = v + g * g
    return w - h.learning_rate / np.sqrt(v + h.eps), v


def sum_from_one(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    if t == 1:
        v = np.ones_like(v)
    v = v + g * g
    return w - h.learning_rate * (g / (np.sqrt(v) + h.eps)), v


def square_of_the_mean(h: Any, t: int, w: Any, g: Any, v: Any) -> Any:
    v = v + g.mean(axis=-1, keepdims=True) ** 2
    return w - h.learning_rate * (g / (np.sqrt(v) + h.eps)), v


PROGRAMS = [
    Reported(
        "warp SGD with its arguments in another order",
        "https://github.com/NVIDIA/warp/issues/1143",
        "SGD",
        arguments_in_another_order,
        "The kernel takes momentum for weight decay, dampening for momentum and weight decay for dampening.",
        formula="SGD[dampening=not_first,replaced=dampening:weight_decay,replaced=momentum:dampening,"
        "replaced=weight_decay:momentum]",
        claim="SGD[dampening=not_first]",
    ),
    Reported(
        "chainer weight decay subtracted",
        "https://github.com/chainer/chainer/issues/261",
        "SGD",
        decay_subtracted,
        "The decayed weight is subtracted from the gradient instead of added, so that weights grow.",
        formula="SGD[scaled=weight_decay:-1]",
    ),
    Reported(
        "torch_optimizer SGDW decays by a constant",
        "https://github.com/jettify/pytorch-optimizer/issues/454",
        "SGD",
        decay_without_the_weight,
        "The decoupled weight decay subtracts learning rate times weight decay, without the weight.",
        formula="SGD[dampening=not_first,weight_decay=constant]",
        claim="SGD[dampening=not_first,weight_decay=decoupled]",
    ),
    Reported(
        "AiDotNet momentum on the gradient",
        "https://github.com/ooples/AiDotNet/issues/2008",
        "SGD",
        coefficient_on_the_gradient,
        "The velocity is the old one plus momentum times the gradient: it never decays.",
        told="The buffer never decays and takes in momentum times the gradient; at momentum 0 nothing moves.",
    ),
    Reported(
        "dropout demo steps by the old buffer",
        "https://github.com/mdenil/dropout/issues/4",
        "SGD",
        buffer_of_the_step_before,
        "The step takes the buffer from before this gradient, and 1 - momentum is multiplied twice.",
        told="Each step is late by one gradient, so that the first does not move, and 1 - momentum enters twice.",
    ),
    Reported(
        "autograd SGD with averaged gradients",
        "https://github.com/HIPS/autograd/issues/289",
        "SGD",
        gradient_times_one_minus_momentum,
        "The gradient enters the velocity multiplied by 1 - momentum, whatever the dampening.",
        formula="SGD[replaced=dampening:momentum]",
        same=("SGD[dampening=momentum]",),
    ),
    Reported(
        "Paddle nesterov without parentheses",
        "https://github.com/PaddlePaddle/Paddle/pull/12231",
        "SGD",
        nesterov_without_parentheses,
        "With nesterov the step is minus rate times gradient plus rate times momentum times velocity.",
        formula="SGD[nesterov=opposite]",
        told="Only cases with nesterov: the momentum term of the step has the other sign.",
    ),
    Reported(
        "Chollet's velocity of the other sign",
        "https://github.com/fchollet/deep-learning-with-python-notebooks/issues/19",
        "SGD",
        velocity_of_the_other_sign,
        "The velocity adds up rate times gradient, and momentum times it is then added to the weight.",
        told="Only cases with momentum: the velocity, which holds the learning rate, pushes uphill.",
    ),
    Reported(
        "Chollet's velocity and gradient",
        "https://github.com/fchollet/deep-learning-with-python-notebooks/issues/289",
        "SGD",
        velocity_and_gradient,
        "What is called momentum steps by momentum times the velocity and by the gradient again.",
        formula="SGD[buffer=scaled,nesterov=always]",
    ),
    Reported(
        "Boltzmann.jl remembers one gradient",
        "https://github.com/dfdx/Boltzmann.jl/issues/16",
        "SGD",
        only_the_last_gradient,
        "Momentum times the gradient before is subtracted from the weight and is not kept in what is remembered.",
        told="The buffer holds the last gradient alone, and its part of the step has no learning rate in it.",
    ),
    Reported(
        "CNTK momentum skips zero gradients",
        "https://github.com/microsoft/CNTK/issues/2411",
        "SGD",
        zero_gradients_left_out,
        "Where a gradient is zero neither the weight nor the momentum is updated.",
        formula="SGD[gradients=nonzero]",
    ),
    Reported(
        "MLX nesterov before the buffer",
        "https://github.com/ml-explore/mlx/pull/87",
        "SGD",
        nesterov_before_the_buffer,
        "With nesterov momentum times the old buffer goes into the gradient, which enters times 1 - momentum.",
        formula="SGD[nesterov=before,replaced=dampening:momentum]",
        told="The gradient enters times 1 - momentum; with nesterov the old buffer is added to it before, not after.",
    ),
    Reported(
        "Shampoo writes nesterov over the buffer",
        "https://github.com/google-research/google-research/issues/1711",
        "SGD",
        nesterov_in_place,
        "The direction of nesterov is formed in place, so that the momentum buffer is lost.",
        formula="SGD[nesterov=stored]",
        told="Only cases with nesterov, from the second step on: the buffer has taken each gradient in twice.",
    ),
    Reported(
        "evo-design takes weight decay for the rate",
        "https://github.com/offbit/evo-design/issues/3",
        "SGD",
        rate_from_the_decay,
        "The optimizer is made with the weight decay where the learning rate belongs.",
        formula="SGD[replaced=learning_rate:weight_decay]",
    ),
    Reported(
        "nntrainer RMSprop steps by the average",
        "https://github.com/nntrainer/nntrainer/pull/2587",
        "RMSprop",
        average_for_the_gradient,
        "The average of squares is divided by its root where the gradient should be.",
        told="v stands where the gradient belongs in the step, so that no step depends on the gradient's sign.",
    ),
    Reported(
        "Caffe's tutorial on RMSprop",
        "https://github.com/BVLC/caffe/issues/3930",
        "RMSprop",
        rate_that_grows_and_shrinks,
        "The update grows by rms_decay where a gradient keeps its sign and shrinks by 1 - rms_decay else.",
        told="Only signs of gradients matter: v grows where one repeats and shrinks else, and the step is v itself.",
        make=True,
    ),
    Reported(
        "torch7 RMSprop from one",
        "https://github.com/torch/optim/pull/117",
        "RMSprop",
        average_from_one,
        "The mean square starts at 1 instead of 0.",
        formula="RMSprop[ignored=initial:1]",
    ),
    Reported(
        "interview RMSprop averages plain gradients",
        "https://github.com/Devinterview-io/gradient-descent-interview-questions/issues/1",
        "RMSprop",
        average_of_the_plain_gradient,
        "The running average takes the gradient without squaring it, with a decay of 0.9 whatever is given.",
        told="The gradient is not squared in v: NaN where v is negative; alpha is 0.9 and eps inside the root.",
    ),
    Reported(
        "nadir RMSprop corrected in place",
        "https://github.com/OptimalFoundation/nadir/pull/25",
        "RMSprop",
        corrected_in_place,
        "The bias correction is divided into the state itself, at every step as in the first.",
        told="v is divided by 1 - alpha and stored at each step: the squared gradient at first, then far too large.",
        claim="RMSprop[eps=inside_sqrt]",
    ),
    Reported(
        "fastbook RMSprop without one minus alpha",
        "https://github.com/fastai/fastbook/pull/342",
        "RMSprop",
        square_not_weighted,
        "The square of the gradient is added without the factor 1 - alpha.",
        formula="RMSprop[alpha=unweighted]",
        told="The squared gradient enters v without the factor 1 - alpha, at every step.",
    ),
    Reported(
        "lesson notes with RMSprop's square",
        "https://github.com/hiromis/notes/issues/52",
        "RMSprop",
        squared_average,
        "The step divides by the square of the average instead of its root.",
        told="The step divides by v squared where the root of v belongs, without eps.",
    ),
    Reported(
        "FastNN centred RMSprop below zero",
        "https://github.com/CanReader/FastNN/issues/12",
        "RMSprop",
        variance_below_zero,
        "The centred variant takes the root of variance plus eps, which may be negative.",
        formula="RMSprop[centred=true,eps=inside_sqrt]",
        make=True,
    ),
    Reported(
        "GloVe Adagrad with the rate in the sum",
        "https://github.com/stanfordnlp/GloVe/issues/134",
        "Adagrad",
        rate_in_the_sum,
        "Rate times gradient is squared into the sum, after the step, and the sum starts at 1.",
        told="The sum starts at 1, holds squares of rate times gradient, and is read before the new one is added.",
    ),
    Reported(
        "Paddle Adagrad uphill",
        "https://github.com/PaddlePaddle/Paddle/issues/4184",
        "Adagrad",
        uphill,
        "The step is added instead of subtracted; eps is inside the root.",
        formula="Adagrad[eps=inside_sqrt,scaled=learning_rate:-1]",
        same=("Adagrad[eps=inside_sqrt,scaled=gradient:-1]",),
    ),
    Reported(
        "pylearn2 Adagrad without eps",
        "https://github.com/lisa-lab/pylearn2/issues/1496",
        "Adagrad",
        nothing_in_the_denominator,
        "The rate is divided by the root alone: NaN where all gradients so far are zero.",
        formula="Adagrad[ignored=eps:0]",
    ),
    Reported(
        "ConvNetSharp Adagrad clears one gradient",
        "https://github.com/cbovar/ConvNetSharp/issues/29",
        "Adagrad",
        gradients_not_cleared,
        "Only element i, the number of the array, is set to zero after the step, so that the others add up.",
        told="All elements but the first, from the second step on: the gradient is the sum of all so far.",
        claim="Adagrad[eps=inside_sqrt]",
        make=True,
    ),
    Reported(
        "PyMLViz Adagrad without a gradient",
        "https://github.com/PyMLVizard/PyMLViz/issues/3",
        "Adagrad",
        step_without_the_gradient,
        "The adjusted learning rate is subtracted without being multiplied by the gradient.",
        told="The gradient is missing in the step: every element goes down, by the rate over the root alone.",
    ),
    Reported(
        "nd4j Adagrad from one",
        "https://github.com/deeplearning4j/deeplearning4j/issues/953",
        "Adagrad",
        sum_from_one,
        "The sum of squared gradients starts at 1.",
        formula="Adagrad[ignored=initial:1]",
    ),
    Reported(
        "torchrec rowwise Adagrad squares the mean",
        "https://github.com/meta-pytorch/torchrec/pull/2015",
        "Adagrad",
        square_of_the_mean,
        "A row shares one sum, which takes the square of the mean gradient instead of the mean of the squares.",
        told="All elements of a row share one v, which adds up the square of the row's mean gradient.",
    ),
]
