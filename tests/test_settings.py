"""What is set for the whole process: the number of threads; tests/test_compiled.py has the compiled path."""

from __future__ import annotations

import os

import pytest

from mlx_optimizers.settings import set_threads, threads


@pytest.fixture(autouse=True)
def threads_found_anew(monkeypatch):
    monkeypatch.delenv("MLX_OPTIMIZERS_THREADS", raising=False)
    set_threads(None)
    yield
    set_threads(None)


def test_the_number_of_threads_is_the_argument_or_the_variable_or_the_cores(monkeypatch):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert threads() == cores
    monkeypatch.setenv("MLX_OPTIMIZERS_THREADS", "5")
    assert threads() == 5
    set_threads(3)
    assert threads() == 3


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", " "])
def test_a_variable_that_is_no_number_of_threads_is_refused(monkeypatch, text):
    monkeypatch.setenv("MLX_OPTIMIZERS_THREADS", text)
    with pytest.raises(ValueError, match=f"MLX_OPTIMIZERS_THREADS must be a whole number of at least 1, not '{text}'"):
        threads()


@pytest.mark.parametrize(("count", "error"), [(0, ValueError), (-2, ValueError), (1.0, TypeError), (True, TypeError)])
def test_an_argument_that_is_no_number_of_threads_is_refused(count, error):
    with pytest.raises(error, match=f"count must be .*{count!r}"):
        set_threads(count)
