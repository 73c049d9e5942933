"""Training leaves nothing behind in the process of its caller, and takes nothing from it but its CPU threads."""

import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from hydra.core.global_hydra import GlobalHydra
from pytorch_lightning.utilities import rank_zero_only


@contextmanager
def as_before(environ: dict[str, str]) -> Iterator[None]:
    """Within it settings that act on results have their defaults; afterwards all is as it was before.

    That is: torch's settings and random numbers, NumPy's and Python's, warnings, loggers, sys.path, the working
    directory, a Hydra of the caller. environ: the environment variables to restore.
    """
    with ExitStack() as stack:
        stack.callback(_restore_environment, environ)
        for restoring in (_torch, _random, _loggers, _places, _hydra, _rank, warnings.catch_warnings):
            stack.enter_context(restoring())
        yield


def _restore_environment(before: dict[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@contextmanager
def _torch() -> Iterator[None]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    flags = [(cudnn, name, getattr(cudnn, name)) for name in ("benchmark", "deterministic", "allow_tf32")]
    flags += [(matmul, "allow_tf32", matmul.allow_tf32)]
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    precision, dtype, threads = torch.get_float32_matmul_precision(), torch.get_default_dtype(), torch.get_num_threads()
    device = torch.get_default_device()
    torch.set_default_dtype(torch.float32)
    if device.type != "cpu":
        torch.set_default_device(None)
    try:
        with torch.enable_grad():
            yield
    finally:
        if device.type != "cpu":
            torch.set_default_device(device)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        for place, name, value in flags:
            setattr(place, name, value)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


@contextmanager
def _random() -> Iterator[None]:
    used = torch.cuda.is_initialized()
    devices = range(torch.cuda.device_count()) if used else []
    own, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        if torch.cuda.is_initialized() and not used:
            torch.cuda.manual_seed_all(torch.initial_seed())  # as the caller's first use would have done
        random.setstate(own)
        np.random.set_state(numpy)


@contextmanager
def _loggers() -> Iterator[None]:
    every = [logging.root, *(each for each in logging.root.manager.loggerDict.values() if hasattr(each, "handlers"))]
    before = [(each, each.level, each.handlers[:], each.propagate, each.disabled) for each in every]
    try:
        yield
    finally:
        for each, level, handlers, propagate, disabled in before:
            each.setLevel(level)
            each.handlers[:], each.propagate, each.disabled = handlers, propagate, disabled


@contextmanager
def _places() -> Iterator[None]:
    path, folder = sys.path[:], os.getcwd()
    try:
        yield
    finally:
        sys.path[:] = path
        os.chdir(folder)


@contextmanager
def _hydra() -> Iterator[None]:
    its = GlobalHydra.instance()
    before, its.hydra = its.hydra, None
    try:
        yield
    finally:
        its.hydra = before


@contextmanager
def _rank() -> Iterator[None]:
    before: Any = getattr(rank_zero_only, "rank", None)
    try:
        yield
    finally:
        rank_zero_only.rank = before
