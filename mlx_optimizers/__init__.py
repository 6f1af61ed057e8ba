"""The MLX optimizers, exactly: each a float32 NumPy class beside an exact step of the same formula."""

from mlx_optimizers.state import OptimizerState  # isort: skip
from mlx_optimizers.optimizer import Optimizer  # isort: skip
from mlx_optimizers.sgd import SGD  # isort: skip
from mlx_optimizers.rmsprop import RMSprop  # isort: skip
from mlx_optimizers.adagrad import Adagrad  # isort: skip
from mlx_optimizers.adadelta import AdaDelta  # isort: skip
from mlx_optimizers.adam import Adam  # isort: skip
from mlx_optimizers.adamw import AdamW  # isort: skip
from mlx_optimizers.adamax import Adamax  # isort: skip
from mlx_optimizers.lion import Lion  # isort: skip
from mlx_optimizers.biascorrectedadam import BiasCorrectedAdam  # isort: skip
from mlx_optimizers.biascorrectedadamw import BiasCorrectedAdamW  # isort: skip
from mlx_optimizers.adafactor import Adafactor  # isort: skip
from mlx_optimizers.muon import Muon  # isort: skip
from mlx_optimizers.multi import MultiOptimizer  # isort: skip
from mlx_optimizers.clip import clip_grad_norm  # isort: skip
from mlx_optimizers.schedulers import (  # isort: skip
    cosine_decay,
    exponential_decay,
    join_schedules,
    linear_schedule,
    step_decay,
)
from mlx_optimizers import checkpoint as checkpoint  # isort: skip

__version__ = "0.2.0"

__all__ = [  # noqa: RUF022 - in the order of the table
    "OptimizerState",
    "Optimizer",
    "SGD",
    "RMSprop",
    "Adagrad",
    "AdaDelta",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "OPTIMIZERS",
    "BiasCorrectedAdam",
    "BiasCorrectedAdamW",
    "Adafactor",
    "Muon",
    "LATER",
    "MultiOptimizer",
    "clip_grad_norm",
    "exponential_decay",
    "step_decay",
    "cosine_decay",
    "linear_schedule",
    "join_schedules",
]

OPTIMIZERS: tuple[type[Optimizer], ...] = (SGD, RMSprop, Adagrad, AdaDelta, Adam, AdamW, Adamax, Lion)
"""The eight optimizers, in the order of the table."""

LATER: tuple[type[Optimizer], ...] = (BiasCorrectedAdam, BiasCorrectedAdamW, Adafactor, Muon)
"""The optimizers that MLX added later."""
