"""Hardware settings: the precision of the networks, TF32, and cuDNN's search for the fastest kernels."""

import os
import shutil
from pathlib import Path

import torch
from omegaconf import DictConfig

from ganrun.errors import UserError, one_of

PRECISIONS = ("auto", "32-true", "bf16-mixed")  # fp16 would need a loss scaler, which exact steps rule out
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
COMPILERS = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
CPUINFO = Path("/proc/cpuinfo")
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # Linux's names for x86 and ARM features that multiply bf16


def precision_of(cfg: DictConfig) -> str:
    """The value of `precision` on this machine: 32-true or bf16-mixed. Raises UserError for anything else.

    auto keeps vectors in fp32: bf16 has steps of 1/64 near 2, and their networks are too small to gain from it. It does
    so with 16-bit pixels, since bf16 has 8 bits of precision.
    """
    if cfg.precision not in PRECISIONS:
        raise UserError(f"precision={cfg.precision}; {one_of(PRECISIONS, str(cfg.precision))}")
    if cfg.precision != "auto":
        return cfg.precision
    can_gain = cfg.dataset.get("resolution") is not None and cfg.dataset.get("depth", 8) == 8
    return "bf16-mixed" if can_gain and multiplies_bf16(device_type(cfg.trainer.accelerator)) else "32-true"


def device_type(accelerator: str) -> str:
    """cuda, mps or cpu, as Lightning chooses it."""
    if accelerator not in ("auto", "gpu"):
        return accelerator
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_named(name: str) -> torch.device:
    """The device called auto, cpu, mps, cuda or cuda:<number>. Raises UserError if this machine has none."""
    device = torch.device(device_type(name))
    there = torch.cuda.device_count()
    if device.type == "cuda" and not (device.index or 0) < there:
        have = f"has {there}, numbered from 0" if there else "has none that torch can use; give device=cpu"
        raise UserError(f"device={name}: this machine {have}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device={name}: this machine has none that torch can use; give device=cpu")
    return device


def multiplies_bf16(device: str) -> bool:
    """Does it multiply bf16 natively, not through fp32? CUDA since sm80 (Ampere), and processors with such a flag."""
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    return device == "cpu" and bool(BF16_FLAGS & processor_flags())


def processor_flags() -> set[str]:
    """Feature flags of the first processor; empty if Linux does not list them."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    found = [line for line in lines if line.startswith(("flags", "Features"))]
    return set(found[0].partition(":")[2].split()) if found else set()


def compile_settings(cfg: DictConfig) -> dict[str, str]:
    """torch.compile's arguments; empty = off. Raises UserError for an unknown mode, and without a compiler."""
    if cfg.compile is False:
        return {}
    mode = "default" if cfg.compile is True else cfg.compile
    if mode not in COMPILE_MODES:
        raise UserError(f"compile={mode}; {one_of(('true', 'false', *COMPILE_MODES), str(mode))}")
    if not any(map(shutil.which, COMPILERS)):
        raise UserError(f"compile={cfg.compile}: it needs a C++ compiler: {', '.join(filter(None, COMPILERS))}")
    return {"mode": mode}


def tune(cfg: DictConfig) -> None:
    """Sets TF32 as `tf32` says, for convolutions and matrix products alike; torch's default enables only one."""
    torch.backends.cudnn.allow_tf32 = cfg.tf32
    torch.set_float32_matmul_precision("high" if cfg.tf32 else "highest")
