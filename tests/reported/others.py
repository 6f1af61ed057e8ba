"""Wrong AdaDelta, Adamax, Lion and Adam programs that somebody reported."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reported.program import Reported

# --- AdaDelta -------------------------------------------------------------------------------------------------------


def adadelta_precedence(h: Any, t: int, w: Any, g: Any, v: Any, u: Any) -> Any:
    v = (v * h.rho + (1 - h.rho)) * (g * g)  # msg.muli(rho); msg.addi(1 - rho).muli(gradient.mul(gradient))
    d = np.sqrt(u + 1e-5) / np.sqrt(v + 1e-5) * g  # Nd4j.EPS_THRESHOLD; no learning rate
    u = h.rho * u + (1 - h.rho) * (d * d)
    return w - d, v, u


def adadelta_alias(h: Any, t: int, w: Any, g: Any, v: Any, u: Any) -> Any:
    v = h.rho * v + (1 - h.rho) * (g * g)
    d = np.sqrt(u + h.eps) / np.sqrt(v + h.eps) * g
    u = h.rho * u + (1 - h.rho) * (d * d)
    again = np.sqrt(u + h.eps) / np.sqrt(v + h.eps) * g  # the lazy expression reads the u that was just written
    return w - h.learning_rate * again, v, u


def adadelta_added(h: Any, t: int, w: Any, g: Any, v: Any, u: Any) -> Any:
    v = v + (h.rho * v + (1 - h.rho) * (g * g))  # accum += ..., for accum = ...
    d = np.sqrt(u + h.eps) / np.sqrt(v + h.eps) * g
    u = u + (h.rho * u + (1 - h.rho) * (d * d))
    return w - d, v, u


def adadelta_no_root_above(h: Any, t: int, w: Any, g: Any, v: Any, u: Any) -> Any:
    v = h.rho * v + (1 - h.rho) * (g * g)
    d = (u + h.eps) / np.sqrt(v + h.eps) * g
    u = h.rho * u + (1 - h.rho) * (d * d)
    return w - h.learning_rate * d, v, u


def adadelta_parameter(h: Any, t: int, w: Any, g: Any, v: Any, u: Any) -> Any:
    v = h.rho * v + (1 - h.rho) * (g * g)
    d = np.sqrt((u + h.eps) / (v + h.eps)) * g
    w = w - d
    u = h.rho * u + (1 - h.rho) * (w * w)
    return w, v, u


def adadelta_rate_inside(h: Any, t: int, w: Any, g: Any, v: Any, u: Any) -> Any:
    v = h.rho * v + (1 - h.rho) * (g * g)
    d = h.learning_rate * g * np.sqrt(u + h.eps) / np.sqrt(v + h.eps)
    u = h.rho * u + (1 - h.rho) * (d * d)
    return w - d, v, u


def adadelta_started() -> Any:
    started = False

    def step(h: Any, t: int, w: Any, g: Any, v: Any, u: Any) -> Any:
        nonlocal started
        if not started:
            v, u, started = v + 0.0000001, u + 0.0000001, True
        v = h.rho * v + (1 - h.rho) * (g * g)
        d = np.sqrt(u / v) * g
        u = h.rho * u + (1 - h.rho) * (d * d)
        return w - d, v, u

    return step


# --- Adamax ---------------------------------------------------------------------------------------------------------


def adamax_corrected_twice(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    b1, b2 = h.betas
    size = h.learning_rate * (1 - b2**t) ** 0.5 / (1 - b1**t)
    m = b1 * m + (1 - b1) * g
    v = np.maximum(b2 * v, np.abs(g))
    return w - size / (1 - b1**t) * m / (v + h.eps), m, v


def adamax_of_adam(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    b1, b2 = h.betas
    size = h.learning_rate * (1 - b2**t) ** 0.5 / (1 - b1**t)
    m = b1 * m + (1 - b1) * g
    v = np.maximum(b2 * v, np.abs(g))
    return w - size * m / (v + h.eps), m, v


def adamax_no_eps(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    b1, b2 = h.betas
    m = b1 * m + (1 - b1) * g
    v = np.maximum(b2 * v, np.abs(g))
    return w - h.learning_rate / (1 - b1**t) * m / v, m, v


# --- Lion -----------------------------------------------------------------------------------------------------------


def lion(h: Any, w: Any, g: Any, m: Any) -> Any:
    b1, b2 = h.betas
    c = b1 * m + (1 - b1) * g
    w = w * (1 - h.learning_rate * h.weight_decay)
    return w - h.learning_rate * np.sign(c), b2 * m + (1 - b2) * g


def lion_alias(h: Any, t: int, w: Any, g: Any, m: Any) -> Any:
    b1, b2 = h.betas
    w = w * (1 - h.learning_rate * h.weight_decay)
    m = b1 * m + (1 - b1) * g  # update is exp_avg itself, not a copy
    m = b2 * m + (1 - b2) * g
    return w - h.learning_rate * np.sign(m), m


def lion_new_momentum(h: Any, t: int, w: Any, g: Any, m: Any) -> Any:
    b1, b2 = h.betas
    m = b2 * g + (1 - b2) * m
    c = (b1 - b2) * g + (1 - b1) * m
    return w - h.learning_rate * np.sign(c), m  # the rule has no decay


def lion_scheduled() -> Any:
    initial = None

    def step(h: Any, t: int, w: Any, g: Any, m: Any) -> Any:
        nonlocal initial
        initial = h.learning_rate if initial is None else initial
        b1, b2 = h.betas
        factor = h.learning_rate / initial if initial else 1.0
        c = b1 * m + (1 - b1) * g
        w = w * (1 - factor * h.weight_decay)
        return w - h.learning_rate * np.sign(c), b2 * m + (1 - b2) * g

    return step


def lion_tuned() -> Any:
    tuned = False

    def step(h: Any, t: int, w: Any, g: Any, m: Any) -> Any:
        nonlocal tuned
        # The autotuner runs the kernel in place, here once for each of its two configurations, before the step itself.
        for _ in range(1 if tuned else 3):
            w, m = lion(h, w, g, m)
        tuned = True
        return w, m

    return step


# --- Adam, and what is sold beside it -------------------------------------------------------------------------------


def nadam_first_powers(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    b1, b2 = h.betas
    p1, p2 = h.betas  # from the betas, for the powers that are kept in the state
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * (g * g)
    ahead = b1 * m / (1 - b1 * p1) + (1 - b1) * g / (1 - p1)
    return w - ahead / (np.sqrt(v * b2 / (1 - p2)) + h.eps) * h.learning_rate, m, v


def nadam_in_place(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    b1, b2 = h.betas
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * (g * g)
    m = m * b1 / (1 - b1**t)  # muli: what was to be a term of the step overwrites m
    ahead = m + (1 - b1) * g / (1 - b1**t)
    return w - h.learning_rate * ahead / (np.sqrt(v) + h.eps), m, v


def nadam_product() -> Any:
    product = 1.0

    def step(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
        nonlocal product
        b1, b2 = h.betas
        mu, after = (b1 * (1 - 0.5 * 0.96 ** (n * 0.004)) for n in (t, t + 1))
        product = product * mu
        following = product * mu * after  # mu is in product already
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * (g * g)
        root = np.sqrt(v / (1 - b2**t)) + h.eps
        w = w - h.learning_rate * (1 - mu) / (1 - product) * g / root
        return w - h.learning_rate * after / (1 - following) * m / root, m, v

    return step


def nadam_multiplied_decay() -> Any:
    product = 1.0

    def step(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
        nonlocal product
        b1, b2 = h.betas
        g = g * (1.0 + h.weight_decay * w)  # grad *= rescale_grad + wd * weight
        mu, after = (b1 * (1 - 0.5 * 0.96 ** (n * 0.004)) for n in (t, t + 1))
        product = product * mu
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * (g * g)
        ahead = (1 - mu) * (g / (1 - product)) + after * (m / (1 - product * after))
        return w - h.learning_rate * ahead / (np.sqrt(v / (1 - b2**t)) + h.eps), m, v

    return step


def adabelief_in_place(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    b1, b2 = h.betas
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * ((g - m) * (g - m))
    v = v + h.eps  # exp_avg_var.add_(eps): stored
    root = np.sqrt(v) / (1 - b2**t) ** 0.5 + h.eps
    return w - h.learning_rate / (1 - b1**t) * m / root, m, v


def adabelief_plain(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    b1, b2 = h.betas
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * ((g - m) * (g - m))
    return w - h.learning_rate * m / (np.sqrt(v) + h.eps), m, v


def amsgrad_corrected() -> Any:
    most: Any = None

    def step(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
        nonlocal most
        b1, b2 = h.betas
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * (g * g)
        hat = v / (1 - b2**t)
        most = hat if most is None else np.maximum(most, hat)
        return w - h.learning_rate * (m / (1 - b1**t)) / (np.sqrt(most) + h.eps), m, v

    return step


def amsgrad_uncorrected() -> Any:
    most: Any = None

    def step(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
        nonlocal most
        b1, b2 = h.betas
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * (g * g)
        most = v if most is None else np.maximum(most, v)
        root = np.sqrt(most) / (1 - b2**t) ** 0.5 + h.eps
        return w - h.learning_rate / (1 - b1**t) * m / root, m, v

    return step


def yogi_fourth_power() -> Any:
    started = False

    def step(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
        nonlocal started
        if not started:
            m, v, started = m + 1e-6, v + 1e-6, True  # initial_accumulator_value
        b1, b2 = h.betas
        m = b1 * m + (1 - b1) * g
        signed = np.sign(v - g * g) * (g * g)
        v = b2 * v + (1 - b2) * (signed * signed)  # squared once more
        return w - h.learning_rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + h.eps), m, v

    return step


PROGRAMS = [
    Reported(
        "nd4j AdaDelta, precedence",
        "https://github.com/deeplearning4j/nd4j/issues/1239",
        "AdaDelta",
        adadelta_precedence,
        "v is (rho v + 1 - rho) g^2, epsilon is 1e-5 whatever is given, and no learning rate is used.",
        told="The mean of g^2 is wrong; epsilon and the learning rate make no difference.",
    ),
    Reported(
        "TensorFlow AdaDelta, update read twice",
        "https://github.com/tensorflow/tensorflow/issues/9058",
        "AdaDelta",
        adadelta_alias,
        "The step is computed anew after u was updated, so it uses the u of this step and not of the one before.",
        told="The u above is a step ahead: the step is computed from the u that it has just written; v is right.",
    ),
    Reported(
        "TensorFlow AdaDelta, += for =",
        "https://github.com/tensorflow/tensorflow/pull/644",
        "AdaDelta",
        adadelta_added,
        "Both means are added to the old ones, which so grow by 1 + rho a step; there is no learning rate.",
        told="With learning rate 1 the first step alone is right: both means are kept by 1 + rho for rho.",
    ),
    Reported(
        "TensorFlow AdaDelta, no root above",
        "https://github.com/tensorflow/tensorflow/pull/2157",
        "AdaDelta",
        adadelta_no_root_above,
        "The numerator is u + epsilon and not its square root.",
        formula="AdaDelta[root=ignored_above]",
    ),
    Reported(
        "d2l AdaDelta, mean of the parameter",
        "https://github.com/d2l-ai/d2l-en/pull/1196",
        "AdaDelta",
        adadelta_parameter,
        "u is the mean of the new parameter squared instead of the step squared, and there is no learning rate.",
        formula="AdaDelta[ignored=learning_rate:1,u=parameter]",
    ),
    Reported(
        "Keras AdaDelta, rate in the accumulator",
        "https://github.com/keras-team/keras/pull/11532",
        "AdaDelta",
        adadelta_rate_inside,
        "As the pull request would have it: u is the mean of the step times the learning rate, squared.",
        formula="AdaDelta[u=scaled]",
    ),
    Reported(
        "DeepCL AdaDelta, no epsilon",
        "https://github.com/hughperkins/DeepCL/issues/87",
        "AdaDelta",
        adadelta_started,
        "There is no epsilon and no learning rate; both means start from 1e-7.",
        told="Epsilon and the learning rate make no difference; v and u do not start from 0.",
        make=True,
    ),
    Reported(
        "Swift AdaMax, corrected twice",
        "https://github.com/tensorflow/swift-apis/pull/313",
        "Adamax",
        adamax_corrected_twice,
        "The learning rate is Adam's corrected one, divided by 1 - beta_1^t once more.",
        told="All elements of a step are scaled alike, by sqrt(1 - beta_2^t) / (1 - beta_1^t); the state is right.",
        claim="Adamax[bias_correction=true]",
    ),
    Reported(
        "Swift AdaMax, Adam's step size",
        "https://github.com/tensorflow/swift-apis/pull/741",
        "Adamax",
        adamax_of_adam,
        "The learning rate is multiplied by sqrt(1 - beta_2^t), as in Adam.",
        formula="Adamax[bias_correction=adam]",
        claim="Adamax[bias_correction=true]",
    ),
    Reported(
        "MXNet Adamax, no epsilon",
        "https://github.com/apache/mxnet/pull/18532",
        "Adamax",
        adamax_no_eps,
        "m is divided by the maximum alone, 0/0 where every gradient so far is 0.",
        formula="Adamax[bias_correction=true,ignored=eps:0]",
        claim="Adamax[bias_correction=true]",
    ),
    Reported(
        "pytorch_optimizer Lion, update is the momentum",
        "https://github.com/kozistr/pytorch_optimizer/pull/135",
        "Lion",
        lion_alias,
        "The direction is formed in m's own array, so m gets both interpolations, and the sign is of that m.",
        told="m is kept by beta_1 beta_2 and takes 1 - beta_1 beta_2 of g, and the step is the sign of the new m.",
    ),
    Reported(
        "Optimisers.jl Lion, from the new momentum",
        "https://github.com/FluxML/Optimisers.jl/pull/129",
        "Lion",
        lion_new_momentum,
        "m takes beta_2 of g, the direction is (beta_1 - beta_2) g + (1 - beta_1) m with the new m; no decay.",
        formula="Lion[betas=complement,weight_decay=ignored]",
        told="m has beta_2 and 1 - beta_2 exchanged, the direction is another one of g and the new m; no decay.",
    ),
    Reported(
        "OLMo LionW, decay by the initial rate",
        "https://github.com/allenai/OLMo/pull/119",
        "Lion",
        lion_scheduled,
        "The weights are decayed by lr / initial_lr times the weight decay, and not by lr times it.",
        formula="Lion[weight_decay=schedule]",
        make=True,
    ),
    Reported(
        "lion-pytorch, autotuned in place",
        "https://github.com/lucidrains/lion-pytorch/pull/36",
        "Lion",
        lion_tuned,
        "In the first step the autotuner takes the step a few times, with the same gradient, before it counts.",
        told="Only the first step: it is taken three times with the same gradient.",
        make=True,
    ),
    Reported(
        "Flux NADAM, powers from the betas",
        "https://github.com/FluxML/Flux.jl/issues/789",
        "Adam",
        nadam_first_powers,
        "NAdam that takes beta^t from the betas and not from its state: every step is corrected as the first.",
        told="Nesterov, corrected in every step as in the first, and v times beta_2.",
        claim="Adam[bias_correction=true]",
    ),
    Reported(
        "nd4j Nadam, m overwritten",
        "https://github.com/deeplearning4j/nd4j/pull/1891",
        "Adam",
        nadam_in_place,
        "NAdam whose term beta_1 m / (1 - beta_1^t) is computed in m's own array, and so kept; v is not corrected.",
        told="m is wrong from the first step on: beta_1 / (1 - beta_1^t) of it is kept; v is right.",
        claim="Adam[bias_correction=true]",
    ),
    Reported(
        "PyTorch NAdam, mu twice",
        "https://github.com/pytorch/pytorch/pull/92699",
        "Adam",
        nadam_product,
        "NAdam whose product of the next step has the mu of this step in it twice.",
        told="m and v are right; the step is a sum of g and m with two factors of the step number alone (NAdam).",
        claim="Adam[bias_correction=true]",
        make=True,
    ),
    Reported(
        "MXNet Nadam, gradient times the decay",
        "https://github.com/apache/mxnet/issues/8925",
        "AdamW",
        nadam_multiplied_decay,
        "NAdam whose gradient is multiplied by 1 + wd w where wd w should be added.",
        told="The decay acts on g and where g is 0 it does nothing; besides it is NAdam.",
        claim="AdamW[bias_correction=true,weight_decay=coupled]",
        make=True,
    ),
    Reported(
        "AdaBelief, epsilon accumulated",
        "https://github.com/juntang-zhuang/Adabelief-Optimizer/issues/57",
        "Adam",
        adabelief_in_place,
        "AdaBelief, and in each step epsilon is added in place to the mean of (g - m)^2 that is kept.",
        formula="Adam[bias_correction=true,eps=stored,v=surprise]",
        told="v is the mean of (g - m)^2 (AdaBelief), to which epsilon is added in every step.",
        claim="Adam[bias_correction=true]",
    ),
    Reported(
        "Flux AdaBelief, no correction",
        "https://github.com/FluxML/Flux.jl/issues/1962",
        "Adam",
        adabelief_plain,
        "AdaBelief without the bias correction, and with epsilon outside of the root alone.",
        formula="Adam[v=surprise]",
        claim="Adam[bias_correction=true]",
    ),
    Reported(
        "Optax AMSGrad, greatest corrected",
        "https://github.com/google-deepmind/optax/issues/1389",
        "Adam",
        amsgrad_corrected,
        "AMSGrad whose maximum is of the corrected second moments.",
        formula="Adam[amsgrad=true,bias_correction=true]",
        claim="Adam[bias_correction=true]",
        make=True,
    ),
    Reported(
        "PyTorch AMSGrad, corrected after the maximum",
        "https://github.com/pytorch/pytorch/issues/142323",
        "Adam",
        amsgrad_uncorrected,
        "AMSGrad that corrects the greatest second moment, where its page takes the greatest corrected one.",
        formula="Adam[amsgrad=uncorrected,bias_correction=true]",
        told="Only elements whose v has ever fallen: there the greatest v so far is used.",
        claim="Adam[bias_correction=true]",
        make=True,
    ),
    Reported(
        "Optax Yogi, squared twice",
        "https://github.com/google-deepmind/optax/pull/288",
        "Adam",
        yogi_fourth_power,
        "Yogi whose signed g^2 is squared once more, so that v is the mean of g^4; m and v start from 1e-6.",
        told="v is the mean of g^4, and both moments start from 1e-6.",
        claim="Adam[bias_correction=true]",
        make=True,
    ),
]
