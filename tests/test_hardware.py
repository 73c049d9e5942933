"""What the hardware is asked for."""

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.warnings import PossibleUserWarning
from omegaconf import OmegaConf
from pytorch_lightning.accelerators import CUDAAccelerator
from test_configs import composed

from ganrun.errors import UserError
from ganrun.training import hardware
from ganrun.training.hardware import compile_settings, device_named, multiplies_bf16, precision_of, tune
from ganrun.training.trainer import check_devices, make_trainer, num_devices, picked

FLAGS = {
    "an old processor": ("flags\t\t: fpu sse2 avx2 avx512f", False),
    "x86 with bf16": ("flags\t\t: fpu avx512f avx512_bf16", True),
    "x86 with tiles": ("flags\t\t: fpu amx_bf16 amx_tile", True),
    "ARM with bf16": ("Features\t: fp asimd bf16 i8mm", True),
    "ARM without": ("Features\t: fp asimd", False),
    "none that is told": ("model name\t: avx512_bf16", False),
}


@pytest.mark.parametrize("processor", FLAGS)
def test_bf16_where_the_processor_multiplies_it(processor, monkeypatch, tmp_path):
    line, native = FLAGS[processor]
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n\nprocessor\t: 1\n{line}\n")
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    assert multiplies_bf16("cpu") == native and not multiplies_bf16("mps")
    images, vectors = (composed(f"dataset={name}", "trainer.accelerator=cpu")[0] for name in ("digits", "ring"))
    assert precision_of(images) == ("bf16-mixed" if native else "32-true")
    assert precision_of(vectors) == "32-true"
    images.precision = "32-true"
    assert precision_of(images) == "32-true"


def test_no_file_about_the_processor(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "missing")
    assert not multiplies_bf16("cpu")


@pytest.mark.parametrize(("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bf16_on_gpus_since_ampere(capability, native, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert multiplies_bf16("cuda") == native


def test_tf32_is_for_products_and_convolutions_alike(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    for wanted, name in ((False, "highest"), (True, "high")):
        tune(OmegaConf.create({"tf32": wanted}))
        assert torch.backends.cudnn.allow_tf32 == wanted and torch.get_float32_matmul_precision() == name
    torch.set_float32_matmul_precision("highest")


def test_compile_needs_a_compiler_on_a_cpu(monkeypatch):
    cfg = composed("compile=reduce-overhead", "trainer.accelerator=cpu")[0]
    assert compile_settings(cfg) == {"mode": "reduce-overhead"}
    monkeypatch.setattr(hardware.shutil, "which", lambda _: None)
    with pytest.raises(UserError, match=r"compile=reduce-overhead: it needs a C\+\+ compiler: .*g\+\+"):
        compile_settings(cfg)


@pytest.mark.parametrize(
    "devices, numbers, num",
    [
        *[(1, None, 1), ("1", None, 1), (-1, None, None), ("auto", None, None)],
        *[([1], [1], 1), ("1,", [1], 1), ("0,3", [0, 3], 2), ([0, 1], [0, 1], 2)],
    ],
)
def test_devices_are_read_as_lightning_reads_them(devices, numbers, num):
    assert picked(devices) == numbers and num_devices(devices) == num
    from lightning_fabric.utilities.device_parser import _normalize_parse_gpu_string_input as lightnings

    if devices != "auto":
        assert lightnings(devices) == (numbers or int(devices))


def test_batch_norm_over_all_processes_is_refused_on_the_cpu():
    cfg = composed("trainer=ddp", "trainer.accelerator=cpu", "trainer.sync_batchnorm=true")[0]
    with pytest.raises(UserError, match=r"trainer\.sync_batchnorm=true: torch has it for GPUs alone, .* on the cpu"):
        make_trainer(cfg)


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_devices([0, 1], "cuda")
    check_devices("1,", "cuda")
    for devices in ([2], "0,2", []):
        with pytest.raises(UserError, match="this machine has 2, numbered from 0"):
            check_devices(devices, "cuda")
    assert device_named("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="device=cuda:2: this machine has 2, numbered from 0"):
        device_named("cuda:2")


def test_nobody_is_told_of_a_gpu_that_was_not_asked_for(monkeypatch):
    monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: True)
    cfg = composed("trainer.accelerator=cpu")[0]
    with pytest.warns(PossibleUserWarning, match="GPU available but not used"):
        pl.Trainer(accelerator="cpu", logger=False)
    assert make_trainer(cfg, logger=False).strategy.root_device.type == "cpu"  # warnings are errors here
