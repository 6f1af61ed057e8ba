"""Optimizers of the user's own: torch classes, optax functions, plain functions, in a module of any folder."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import textwrap

import pytest

from mlx_optimizers.backends import Unavailable, open_backend
from mlx_optimizers.cli import main
from mlx_optimizers.conformance import Unsupported, cases_of, check, matching, parse
from mlx_optimizers.conformance.frame import frame_of
from mlx_optimizers.conformance.verdict import judge_widening
from tests.support import require

FUNCTIONS = """
    import numpy as np

    def steps(parameter, gradients, learning_rate, betas, eps, corrected):
        rates = learning_rate if isinstance(learning_rate, list) else [learning_rate] * len(gradients)
        (b1, b2), w, rows = betas, parameter, []
        m = v = np.zeros_like(w)
        for t, (rate, g) in enumerate(zip(rates, gradients), start=1):
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            c1, c2 = (1 - b1**t, 1 - b2**t) if corrected else (1, 1)
            w = w - rate * (m / np.float32(c1)) / (np.sqrt(v / np.float32(c2)) + np.float32(eps))
            rows.append(w)
        return np.stack(rows)

    def adam(parameter, gradients, *, learning_rate, betas, eps):
        return steps(parameter, gradients, learning_rate, betas, eps, False)

    def corrected(parameter, gradients, *, learning_rate, betas, eps):
        return steps(parameter, gradients, learning_rate, betas, eps, True)

    def raises(parameter, gradients, **h):
        raise RuntimeError("out of order")

    def shapes(parameter, gradients, **h):
        return parameter

    def masked(parameter, gradients, **h):
        return np.ma.array(adam(parameter, gradients, **h), mask=False)

    def doubles(parameter, gradients, **h):
        return adam(parameter, gradients, **h).astype(float)

    number = 3
"""

CLASSES = """
    import torch

    class Adam(torch.optim.Optimizer):
        def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
            super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

        def correction(self, beta, t):
            return 1

        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                b1, b2 = group["betas"]
                for p in group["params"]:
                    s = self.state[p]
                    if not s:
                        s.update(t=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
                    s["t"] += 1
                    s["m"].mul_(b1).add_(p.grad, alpha=1 - b1)
                    s["v"].mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
                    c1, c2 = self.correction(b1, s["t"]), self.correction(b2, s["t"])
                    p.sub_(group["lr"] * (s["m"] / c1) / ((s["v"] / c2).sqrt() + group["eps"]))

    class Corrected(Adam):
        def correction(self, beta, t):
            return 1 - beta**t

    class Raises(Adam):
        def step(self):
            raise RuntimeError("out of order")

    class WithoutEps(Adam):
        def __init__(self, params, lr=1e-3, betas=(0.9, 0.999)):
            super().__init__(params, lr, betas)
"""

AROUND = """
    import torch

    class Right(torch.optim.Optimizer):
        def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
            super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

        def count(self, state):
            state["step"] = state.get("step", 0) + 1
            return state["step"]

        def moments(self, p):
            state = self.state[p]
            if "exp_avg" not in state:
                state.update(exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
            return state["exp_avg"], state["exp_avg_sq"]

        def begin(self, group):
            pass

        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                b1, b2 = group["betas"]
                self.begin(group)
                for p in group["params"]:
                    (m, v), t = self.moments(p), self.count(self.state[p])
                    m.mul_(b1).add_(p.grad, alpha=1 - b1)
                    v.mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
                    divisor = (v.sqrt() / (1 - b2**t) ** 0.5).add_(group["eps"])
                    p.addcdiv_(m, divisor, value=-group["lr"] / (1 - b1**t))

    class CountsInTheGroup(Right):
        def begin(self, group):
            self.now = group["step"] = group.get("step", 0) + 1

        def count(self, state):
            return self.now

    class CountsAsT(Right):
        def count(self, state):
            state["t"] = state.get("t", 0) + 1
            return state["t"]

    class CountsInTheGroupAsK(Right):
        def begin(self, group):
            self.now = group["k"] = group.get("k", 0) + 1

        def count(self, state):
            return self.now

    class SharedStep(Right):
        shared = 0

        def count(self, state):
            self.shared += 1
            return self.shared

    class Outside(Right):
        def moments(self, p):
            kept = self.__dict__.setdefault("kept", {})
            return kept.setdefault(p, (torch.zeros_like(p), torch.zeros_like(p)))

    class StopsAtEmpty(Right):
        def step(self):
            if self.param_groups[0]["params"][-1].numel():
                super().step()

    class GradientWriter(Right):
        @torch.no_grad()
        def step(self):
            super().step()
            for p in self.param_groups[0]["params"]:
                p.grad.mul_(2)

    class Stuck(Right):
        def count(self, state):
            state["step"] = min(state.get("step", 0) + 1, 2048)
            return state["step"]
"""

TRANSFORMATIONS = """
    import jax.numpy as jnp
    import optax

    def momentum(learning_rate, betas):
        return optax.sgd(learning_rate)

    def lion(learning_rate, b1, b2, weight_decay):
        return optax.lion(learning_rate, b1, b2, weight_decay=weight_decay)

    def unsigned(learning_rate, betas, weight_decay):
        return optax.adamw(learning_rate, *betas, weight_decay=weight_decay)

    def raises(learning_rate, betas, weight_decay):
        raise RuntimeError("out of order")

    def counts_as_t(learning_rate, betas, eps):
        inner = optax.adam(learning_rate, *betas, eps=eps)

        def update(updates, state, params=None):
            scale = state["inner"][0]._replace(count=state["t"])
            updates, (scale, *rest) = inner.update(updates, (scale, *state["inner"][1:]), params)
            kept = scale._replace(count=jnp.zeros((), jnp.int32))
            return updates, {"t": scale.count, "inner": (kept, *rest)}

        def init(params):
            return {"t": jnp.zeros((), jnp.int32), "inner": inner.init(params)}

        return optax.GradientTransformation(init, update)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a module into the current folder, which is not on the path beforehand, and forgets it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    names = []

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")
        names.append(name)

    yield write
    for name in names:
        sys.modules.pop(name, None)


def counted(name, optimizer):
    report = check(open_backend(name), cases_of(optimizer))
    return {verdict: count for verdict, count in report.counts().items() if count}, report


def test_a_function(own):
    own("own_functions", FUNCTIONS)
    counts, report = counted("py:own_functions:adam", "Adam")
    assert counts == {"conforms": 29}
    assert (report.name, report.version, report.device) == ("py:own_functions:adam", "unknown", "cpu")
    counts, report = counted("py:own_functions:corrected", "Adam")
    assert counts == {"conforms": 1, "deviates": 28}  # a learning rate of 0 shows nothing
    assert report.diagnoses["Adam"].formulas == ["Adam[bias_correction=true]"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises", "RuntimeError: out of order"),
        ("shapes", "parameter has shape (24,), the case asks for (8, 24)"),
        ("doubles", "parameter has dtype float64, the case asks for float32"),
        (
            "masked",
            (
                "TypeError: what the function returns is a masked array, and no formula has elements that are masked; "
                "x.data are the elements under the mask, x.filled(value) has others in their place"
            ),
        ),
    ],
)
def test_a_function_that_gives_nothing_to_judge_has_failed(own, name, reason):
    own("own_functions", FUNCTIONS)
    counts, report = counted(f"py:own_functions:{name}", "Adam")
    assert counts == {"failed": 29}
    assert {r.reason for r in report.results} == {reason}
    assert report.status == 1


def test_a_function_is_not_asked_for_an_optimizer_whose_hyperparameters_it_does_not_take(own):
    own("own_functions", FUNCTIONS)
    for optimizer in ("SGD", "RMSprop", "AdamW", "Lion"):
        counts, report = counted("py:own_functions:adam", optimizer)
        assert list(counts) == ["unsupported"]
        assert "by keyword" in report.results[0].reason


def test_a_torch_class(own):
    torch = require("torch")
    own("own_classes", CLASSES)
    counts, report = counted("torch:own_classes:Adam", "Adam")
    assert counts == {"conforms": 29}
    assert report.version == torch.__version__
    counts, report = counted("torch:own_classes:Corrected", "Adam")
    assert counts == {"conforms": 1, "deviates": 28}  # a learning rate of 0 shows nothing
    assert report.diagnoses["Adam"].formulas == ["Adam[bias_correction=true]"]
    assert check(open_backend("torch:own_classes:Corrected"), cases_of("Adam"), formula="BiasCorrectedAdam").status == 0
    assert counted("torch:own_classes:Raises", "Adam")[0] == {"failed": 29}
    counts, report = counted("torch:own_classes:WithoutEps", "Adam")
    assert counts == {"unsupported": 29}
    assert report.results[0].reason == "WithoutEps takes no eps"


@pytest.mark.parametrize(
    ("name", "cases"),
    [
        ("Right", ()),
        ("CountsInTheGroup", ()),
        ("SharedStep", ("many/defaults", "many/last=empty", "resume/step=3000", "resume/saved")),
        ("Outside", ("resume/saved",)),
        ("StopsAtEmpty", ("many/last=empty",)),
        ("GradientWriter", ("untouched/defaults",)),
        ("Stuck", ("resume/step=3000",)),
    ],
)
def test_a_torch_class_that_is_wrong_around_its_formula_deviates_there_alone(own, name, cases):
    require("torch")
    own("own_around", AROUND)
    backend, formula = open_backend(f"torch:own_around:{name}"), parse("BiasCorrectedAdam")
    verdicts = []
    for case in frame_of("Adam"):
        with contextlib.suppress(Unsupported):  # gradients in bfloat16, and a state that is not shown
            verdicts.append(judge_widening(backend.run(case), formula, ("double", "float32")))
    assert tuple(v.case.id.removeprefix("adam/") for v in verdicts if not v.conforms) == cases


@pytest.mark.parametrize(("name", "entry"), [("CountsAsT", "t"), ("CountsInTheGroupAsK", "k")])
def test_a_torch_class_whose_count_has_a_name_of_its_own_is_resumed_by_its_own_state_alone(own, name, entry):
    require("torch")
    own("own_around", AROUND)
    cases = matching(["Adam"], "*/resume/*")
    given, saved = check(open_backend(f"torch:own_around:{name}"), cases, formula="BiasCorrectedAdam").results
    assert (given.word, saved.word) == ("unsupported", "conforms")
    assert given.reason == f"what the state of torch:own_around:{name} keeps as {entry} is not known"


def test_an_optax_function_whose_count_has_a_name_of_its_own_is_resumed_by_its_own_state_alone(own):
    require("optax")
    own("own_transformations", TRANSFORMATIONS)
    cases = matching(["Adam"], "*/resume/*")
    backend = open_backend("optax:own_transformations:counts_as_t")
    given, saved = check(backend, cases, formula="BiasCorrectedAdam").results
    assert (given.word, saved.word) == ("unsupported", "conforms")
    assert given.reason == "what the state of optax:own_transformations:counts_as_t counts as t is not known"


def test_an_optax_function(own):
    require("optax")
    own("own_transformations", TRANSFORMATIONS)
    cases = matching(["Lion"], "*/plain/*")
    assert check(open_backend("optax:own_transformations:lion"), cases).status == 0
    assert check(open_backend("optax:own_transformations:unsigned"), cases).counts()["deviates"] == len(cases)
    assert check(open_backend("optax:own_transformations:raises"), cases).counts()["failed"] == len(cases)
    report = check(open_backend("optax:own_transformations:momentum"), cases)
    assert {r.reason for r in report.results} == {"momentum takes no weight_decay"}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nonesuch:adam", "module 'nonesuch' cannot be imported: ModuleNotFoundError"),
        ("own_functions:adan", "module 'own_functions' has no function or class 'adan'"),
        ("own_functions:number", "module 'own_functions' has no function or class 'number'"),
        ("own_broken:adam", "module 'own_broken' cannot be imported: ValueError: not today"),
    ],
)
def test_what_cannot_be_loaded_is_unavailable(own, target, message, capsys):
    own("own_functions", FUNCTIONS)
    own("own_broken", "raise ValueError('not today')")
    with pytest.raises(Unavailable, match=re.escape(message)):
        open_backend(f"py:{target}")
    assert main(["check", f"py:{target}", "--optimizer", "Adam"]) == 3
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["py:own", "py::adam", "py:own:", "py:", "rust:own:adam"])
def test_a_name_without_module_and_attribute_is_a_usage_error(name, capsys):
    with pytest.raises(ValueError, match=re.escape(repr(name))):
        open_backend(name)
    assert main(["check", name, "--optimizer", "Adam"]) == 2
    assert name in capsys.readouterr().err


def test_a_function_runs_on_the_cpu_alone(own):
    own("own_functions", FUNCTIONS)
    with pytest.raises(Unavailable, match="on the CPU alone"):
        open_backend("py:own_functions:adam", "gpu")


def test_the_command_finds_a_module_in_the_current_folder(own, tmp_path):
    own("own_functions", FUNCTIONS)
    program = "import sys; sys.path = [x for x in sys.path if x]; from mlx_optimizers.cli import main; sys.exit(main())"
    arguments = ["check", "py:own_functions:adam", "--as", "Adam", "--case", "*/tiny/*"]
    run = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "11 cases, 11 conforms" in run.stdout
