"""What the hardware is asked for."""

import pytest
import torch
from omegaconf import OmegaConf
from test_configs import composed

from ganrun.errors import UserError
from ganrun.experiment import hardware
from ganrun.experiment.hardware import compile_settings, multiplies_bf16, precision_of, tune

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
