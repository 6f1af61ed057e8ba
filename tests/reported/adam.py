"""Wrong programs of Adam and AdamW that somebody reported."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reported.program import Reported

ADAM = "Adam[bias_correction=true]"
ADAMW = "AdamW[bias_correction=true]"


def means(h: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any]:
    """Both moments, as everybody has them."""
    b1, b2 = h.betas
    return b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g


def folded(h: Any, t: int) -> float:
    """The learning rate with both bias corrections in it."""
    return h.learning_rate * (1 - h.betas[1] ** t) ** 0.5 / (1 - h.betas[0] ** t)


# --- Adam ------------------------------------------------------------------------------------------------------------


def convnetjs(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    m, v = means(h, g, m, v)
    first = m * (1 - h.betas[0] ** t)  # divide is meant
    second = v * (1 - h.betas[1] ** t)
    return w - h.learning_rate * first / (np.sqrt(second) + h.eps), m, v


def ml_from_scratch(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    m, v = means(h, g, m, v)
    first = m / (1 - h.betas[0])
    second = v / (1 - h.betas[1])
    return w - h.learning_rate * first / (np.sqrt(second) + h.eps), m, v


def accumulated(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    m, v = means(h, g, m, v)
    m = m / (1 - h.betas[0] ** t)
    v = v / (1 - h.betas[1] ** t)
    return w - h.learning_rate * m / (np.sqrt(v) + h.eps), m, v


def tribuo(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    m, v = means(h, g, m, v)
    update = m * folded(h, t)
    update = update * (np.sqrt(v) + h.eps)  # hadamardProductInPlace
    return w - update, m, v


def flux(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    if t == 1:
        v = v + h.eps
    m, v = means(h, g, m, v)
    b1, b2 = h.betas
    factor = (1 - b2**t) ** 0.5 / (1 - b1**t) ** 0.5
    return w - h.learning_rate * (factor * m / np.sqrt(v)), m, v


def downhill(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    b1 = h.betas[0] * (1 - 1e-6) ** (t - 1)
    b2 = h.betas[1]
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    above = m / (1 - b1)
    below = np.sqrt(v / (1 - b2))
    return w - h.learning_rate * above / (below + h.eps), m, v


def blocks(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    b1, b2 = h.betas  # the parametrization of the paper's first version
    rate = h.learning_rate * np.sqrt(np.float32(1 - (1 - b2) ** t)) / np.float32(1 - (1 - b1) ** t)
    m = b1 * g + (1 - b1) * m
    v = b2 * g * g + (1 - b2) * v
    return w - rate * m / (np.sqrt(v) + h.eps), m, v


def rust_autograd(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    new_m, new_v = means(h, g, m, v)
    first = new_m / (1 - h.betas[0] ** t)
    second = new_v / (1 - h.betas[1] ** t)
    return w - h.learning_rate * first / (np.sqrt(second) + h.eps), m, v  # the copies are thrown away


def tensorflow_minus(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    m, v = means(h, g, m, v)
    return w - m * folded(h, t) / (np.sqrt(v) - h.eps), m, v


def pennylane(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    if t == 1:
        m, v = g, g * g
    else:
        m, v = means(h, g, m, v)
    return w - folded(h, t) * m / (np.sqrt(v) + h.eps), m, v


def cut(x: float) -> float:
    """The upper 16 bits of a float32."""
    bits = np.float32(x).view(np.uint32) & np.uint32(0xFFFF0000)
    return float(np.uint32(bits).view(np.float32))


def moreh(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    b1, b2 = cut(h.betas[0]), cut(h.betas[1])
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    first = m / (1 - b1**t)
    second = v / (1 - b2**t)
    return w - cut(h.learning_rate) * first / (np.sqrt(second) + cut(h.eps)), m, v


def pysyft(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    eps = round(h.eps, 6)  # 1e-8 has too many digits
    m, v = means(h, g, m, v)
    first = m / (1 - h.betas[0] ** t)
    second = v / (1 - h.betas[1] ** t)
    return w - h.learning_rate * first / (np.sqrt(second) + eps), m, v


def lazy(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    new_m, new_v = means(h, g, m, v)
    new_w = w - folded(h, t) * new_m / (np.sqrt(new_v) + h.eps)
    there = g != 0
    return np.where(there, new_w, w), np.where(there, new_m, m), np.where(there, new_v, v)


def shared_adam(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    step = (t - 1) // 4 + 1  # four processes share the moments, each has a step of its own
    m, v = means(h, g, m, v)
    return w - folded(h, step) * m / (np.sqrt(v) + h.eps), m, v


def skip_thoughts(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    b1, b2 = 1 - h.betas[0], 1 - h.betas[1]
    fix1 = np.float32(1 - b1**t)
    fix2 = np.float32(1 - b2**t)
    rate = h.learning_rate * (np.sqrt(fix2) / fix1)
    m = b1 * g + (1 - b1) * m
    v = b2 * g * g + (1 - b2) * v
    return w - rate * (m / (np.sqrt(v) + h.eps)), m, v


def arctic(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    lr0, b1, b2, e = 0.0002, 0.1, 0.001, 1e-8
    rate = lr0 * (1 - b2**t) ** 0.5 / (1 - b1**t)
    m = b1 * g + (1 - b1) * m
    v = b2 * g * g + (1 - b2) * v
    return w - rate * (m / (np.sqrt(v) + e)), m, v


def tensorflow_rl() -> Any:
    kept: dict[str, float] = {}

    def step(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
        rate = kept.get("lr", h.learning_rate)
        kept["lr"] = rate * (1 - h.betas[1] ** t) ** 0.5 / (1 - h.betas[0] ** t)
        m, v = means(h, g, m, v)
        return w - kept["lr"] * m / (np.sqrt(v) + h.eps), m, v

    return step


# --- AdamW -----------------------------------------------------------------------------------------------------------


def machina(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    m, v = means(h, g, m, v)
    w = w - h.weight_decay * w
    return w - folded(h, t) * m / (np.sqrt(v) + h.eps), m, v


def egg_west(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    m, v = means(h, g, m, v)
    change = w * h.weight_decay + -folded(h, t) * (m / (np.sqrt(v) + h.eps))
    return w + change, m, v


def keras_kept(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    w = w - w * (1 - h.learning_rate * h.weight_decay)  # assign_sub of what should remain
    m, v = means(h, g, m, v)
    return w - m * folded(h, t) / (np.sqrt(v) + h.eps), m, v


def torchopt(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    m, v = means(h, g, m, v)
    if h.weight_decay != 0:
        w = w - h.weight_decay * h.learning_rate  # without the parameter
    return w - folded(h, t) * m / (np.sqrt(v) + h.eps), m, v


def tensorli(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    m, v = means(h, np.clip(g, -1.0, 1.0), m, v)
    first = m / (1 - h.betas[0] ** t)
    second = v / (1 - h.betas[1] ** t)
    return w - (h.learning_rate * first / (np.sqrt(second) + h.eps) + h.weight_decay * w), m, v


def transformers(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    m, v = means(h, g, m, v)
    w = w - folded(h, t) * m / (np.sqrt(v) + h.eps)
    if h.weight_decay > 0:
        w = w + w * (-h.learning_rate * h.weight_decay)
    return w, m, v


def olmo(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    step = 0  # skipped by mistake: step += step_factor
    w = w * (1 - h.learning_rate * h.weight_decay)
    m, v = means(h, g, m, v)
    c1, c2 = 1 - h.betas[0] ** (step + 1), 1 - h.betas[1] ** (step + 1)
    return w - h.learning_rate / c1 * m / (np.sqrt(v) / c2**0.5 + h.eps), m, v


def paddle(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    m, v = means(h, g, m, v)
    return w - ((m + h.weight_decay * w) * folded(h, t)) / (np.sqrt(v) + h.eps), m, v


def nlpdl(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    b1, b2 = h.betas
    m, v = means(h, g, m, v)
    rate = h.learning_rate * ((1 - b2**t) / (1 - b1**t)) ** 0.5
    w = w - rate * m / (np.sqrt(v) + h.eps)
    return w - h.learning_rate * h.weight_decay * w, m, v


def oneflow(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> Any:
    m, v = means(h, g, m, v)
    return w - folded(h, t) * (m / (np.sqrt(v) + h.eps) + h.weight_decay * w), m, v


PROGRAMS = [
    Reported(
        "bias correction multiplies",
        "https://github.com/karpathy/convnetjs/pull/70",
        "Adam",
        convnetjs,
        "Both moments are multiplied by 1-beta^t where they should be divided.",
        formula="Adam[bias_correction=multiplied]",
        told="Both bias corrections multiply by 1-beta^t where they should divide, in every step.",
        claim=ADAM,
    ),
    Reported(
        "bias correction without the power",
        "https://github.com/eriklindernoren/ML-From-Scratch/issues/35",
        "Adam",
        ml_from_scratch,
        "The bias corrections divide by 1-beta, not by 1-beta^t.",
        formula="Adam[bias_correction=true,step=1]",
        claim=ADAM,
    ),
    Reported(
        "corrected moments are accumulated",
        "https://gptteams.ai/developer/algorithm-understand-adam-optimizer-intuitively",
        "Adam",
        accumulated,
        "The bias-corrected moments overwrite the moments and go into the next step.",
        formula="Adam[bias_correction=true,state=corrected]",
        claim=ADAM,
    ),
    Reported(
        "multiplied by the root of the second moment",
        "https://github.com/oracle/tribuo/pull/401",
        "Adam",
        tribuo,
        "The update is multiplied by sqrt(v)+eps where it should be divided by it.",
        told="The step is m times (sqrt(v)+eps) instead of m over it, in every step.",
        claim=ADAM,
    ),
    Reported(
        "root of the first correction",
        "https://github.com/FluxML/Flux.jl/pull/119",
        "Adam",
        flux,
        "The root is taken of the first bias correction too; v starts at eps, which is nowhere else.",
        told="The step carries sqrt(1-beta_1^t) for 1-beta_1^t in every step, and eps is what v starts from.",
        claim=ADAM,
    ),
    Reported(
        "beta_1 decays and corrections stand still",
        "https://github.com/lmjohns3/downhill/issues/18",
        "Adam",
        downhill,
        "beta_1 shrinks by 1-1e-6 a step, and the bias corrections divide by 1-beta without a power.",
        told="The first step is right; later ones are corrected with 1-beta, and beta_1 shrinks by 1-1e-6 a step.",
        claim=ADAM,
    ),
    Reported(
        "both betas the other way round",
        "https://github.com/mila-iqia/blocks/issues/1175",
        "Adam",
        blocks,
        "1-beta stands for beta everywhere, and eps is added before the bias correction.",
        formula="Adam[bias_correction=true,eps=before_correction,replaced=beta_1:1-beta_1,replaced=beta_2:1-beta_2]",
        claim=ADAM,
    ),
    Reported(
        "new moments are copies",
        "https://github.com/raskr/rust-autograd/issues/16",
        "Adam",
        rust_autograd,
        "The new moments are copies that are thrown away: every step starts from zeros.",
        formula="Adam[bias_correction=true,state=dropped]",
        claim=ADAM,
    ),
    Reported(
        "epsilon is subtracted",
        "https://github.com/tensorflow/tensorflow/pull/61411",
        "Adam",
        tensorflow_minus,
        "The divisor is sqrt(v)-eps, with both bias corrections in the learning rate.",
        formula="Adam[bias_correction=true,eps=before_correction,scaled=eps:-1]",
        claim=ADAM,
    ),
    Reported(
        "first moments without their factors",
        "https://github.com/PennyLaneAI/pennylane/issues/1928",
        "Adam",
        pennylane,
        "The first step's moments are g and g^2 without 1-beta; the corrections sit in the learning rate.",
        formula="Adam[bias_correction=true,eps=before_correction,initial=gradient]",
        claim=ADAM,
    ),
    Reported(
        "hyperparameters cut to bfloat16",
        "https://github.com/tenstorrent/tt-metal/issues/55935",
        "Adam",
        moreh,
        "Every hyperparameter loses the lower 16 bits of its float32: beta_2 0.999 is 0.99609375.",
        told="Every hyperparameter is cut to bfloat16, so the betas and rates used lie just below those given.",
        claim=ADAM,
    ),
    Reported(
        "epsilon has too many digits",
        "https://github.com/OpenMined/PySyft/pull/740",
        "Adam",
        pysyft,
        "An eps of 1e-8 becomes 0, so that zero gradients give NaN; 1e-6 is kept.",
        told="Only the cases whose eps is below 1e-6: there eps is 0, and elements of zero gradient become NaN.",
        claim=ADAM,
    ),
    Reported(
        "zero gradients are skipped",
        "https://github.com/tensorflow/tensorflow/issues/23668",
        "Adam",
        lazy,
        "Where the gradient is 0 neither m nor v nor the parameter changes; the corrections sit in the learning rate.",
        formula="Adam[bias_correction=true,eps=before_correction,gradients=nonzero]",
        claim=ADAM,
    ),
    Reported(
        "timesteps are not shared",
        "https://github.com/ikostrikov/pytorch-a3c/issues/12",
        "Adam",
        shared_adam,
        "Four processes share the moments but count steps each for itself, so the step number is a quarter.",
        told="The step number of the bias correction goes up with every fourth step only.",
        claim=ADAM,
    ),
    Reported(
        "correction with one minus beta",
        "https://github.com/ryankiros/skip-thoughts/issues/82",
        "Adam",
        skip_thoughts,
        "The moments are right, but the bias corrections take 1-beta for beta: 1-(1-beta)^t.",
        formula="Adam[bias_correction=complement,eps=before_correction]",
        told="The moments are right; the bias corrections are of 1-beta instead of beta, nearly none.",
        claim=ADAM,
    ),
    Reported(
        "learning rate is fixed inside",
        "https://github.com/kelvinxu/arctic-captions/issues/34",
        "Adam",
        arctic,
        "The learning rate is 0.0002 whatever is given, the betas and eps are constants, and corrections take 1-beta.",
        told="No hyperparameter has an effect: 0.0002, 0.9, 0.999, 1e-8 always; the bias corrections are of 1-beta.",
        claim=ADAM,
    ),
    Reported(
        "learning rate is overwritten each step",
        "https://github.com/steveKapturowski/tensorflow-rl/issues/20",
        "Adam",
        tensorflow_rl,
        "The corrected learning rate is stored as the learning rate, so the factors of all steps multiply up.",
        told="All steps after the first: the factors of the earlier steps' bias corrections stay in the learning rate.",
        claim=ADAM,
        make=True,
    ),
    Reported(
        "decay without the learning rate, eps uncorrected",
        "https://github.com/DeepX-inc/machina/issues/3",
        "AdamW",
        machina,
        "The decay is not multiplied by the learning rate, and eps is added before the bias correction.",
        formula="AdamW[bias_correction=true,eps=before_correction,weight_decay=unscaled]",
        claim=ADAMW,
    ),
    Reported(
        "decay makes weights grow",
        "https://github.com/egg-west/AdamW-pytorch/issues/1",
        "AdamW",
        egg_west,
        "The decay is added, and without the learning rate: weights grow.",
        formula="AdamW[bias_correction=true,eps=before_correction,scaled=weight_decay:-1,weight_decay=unscaled]",
        claim=ADAMW,
    ),
    Reported(
        "subtracts what should remain",
        "https://github.com/keras-team/keras/pull/16274",
        "AdamW",
        keras_kept,
        "(1-lr*wd)*w is subtracted from w, so lr*wd*w is left.",
        told="Nearly all of the parameter is lost each step: lr*wd*w is kept instead of (1-lr*wd)*w.",
        claim=ADAMW,
    ),
    Reported(
        "decay is a constant",
        "https://github.com/e-sensing/torchopt/pull/14",
        "AdamW",
        torchopt,
        "lr*wd is subtracted without the parameter as a factor, and eps is added before the bias correction.",
        formula="AdamW[bias_correction=true,eps=before_correction,weight_decay=constant]",
        claim=ADAMW,
    ),
    Reported(
        "clipped gradients and decay without the rate",
        "https://github.com/joennlae/tensorli/issues/1",
        "AdamW",
        tensorli,
        "The decay is not multiplied by the learning rate, and gradients are clipped to [-1, 1].",
        formula="AdamW[bias_correction=true,ignored=clip:1,weight_decay=unscaled]",
        claim=ADAMW,
    ),
    Reported(
        "decay of the updated weights, eps uncorrected",
        "https://github.com/huggingface/transformers/issues/14539",
        "AdamW",
        transformers,
        "The decay is taken of the parameter after the step, and eps is added before the bias correction.",
        formula="AdamW[bias_correction=true,eps=before_correction,weight_decay=after]",
        claim=ADAMW,
    ),
    Reported(
        "step is never incremented",
        "https://github.com/allenai/OLMo-core/pull/317",
        "AdamW",
        olmo,
        "The step number is never incremented: every bias correction is the first step's.",
        formula="AdamW[bias_correction=true,step=1]",
        claim=ADAMW,
    ),
    Reported(
        "decay beside the first moment",
        "https://github.com/PaddlePaddle/Paddle/pull/2097",
        "AdamW",
        paddle,
        "The decay is added to m (not kept in it), so it is divided by sqrt(v)+eps and corrected as m is.",
        told="The decay is divided by sqrt(v)+eps and bias-corrected, though no moment has it.",
        claim=ADAMW,
    ),
    Reported(
        "root over both corrections",
        "https://github.com/linhaowei1/NLPDL-2025Fall/issues/8",
        "AdamW",
        nlpdl,
        "The step's factor is sqrt((1-beta_2^t)/(1-beta_1^t)), the root over both; the decay comes after the step.",
        told="Every step carries sqrt(1-beta_1^t) for 1-beta_1^t; eps is uncorrected and the decay comes after.",
        claim=ADAMW,
    ),
    Reported(
        "decay is bias-corrected",
        "https://github.com/Oneflow-Inc/oneflow/pull/5960",
        "AdamW",
        oneflow,
        "The corrected learning rate multiplies the decay too, and eps is added before the bias correction.",
        formula="AdamW[bias_correction=true,eps=before_correction,weight_decay=corrected]",
        claim=ADAMW,
    ),
]
