"""Imports run one way, and only the rooms that may know Lightning or Hydra do."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ganrun"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
LIGHTNING = ("module.py", "loggers.py", "data/datamodule.py", "callbacks/", "collapse/callback.py", "training/")
HYDRA = ("api/", "commands/", "config/", "training/")
FOLDERS = {  # folder -> the folders that it may import; all may import the core, the files beside them
    "augment": set(),
    "regularisers": {"augment"},
    "networks": set(),
    "recipes": set(),
    "config": set(),
    "files": {"config"},
    "explaining": {"collapse", "config", "files"},
    "data": {"files"},
    "metrics": {"data", "files"},
    "sampling": {"config", "files", "networks"},
    "callbacks": {"data", "files", "metrics"},
    "collapse": {"callbacks", "data", "metrics"},
    "training": {"callbacks", "collapse", "config", "data", "files", "metrics", "sampling"},
    "commands": {
        "callbacks",
        "collapse",
        "config",
        "data",
        "explaining",
        "files",
        "metrics",
        "networks",
        "sampling",
        "training",
    },
    "api": {"commands", "config", "explaining", "files", "sampling", "training"},
}
CORE = {  # file -> the modules of ganrun it may import
    "game.py": set(),
    "losses.py": set(),
    "errors.py": set(),
    "seeding.py": set(),
    "modules.py": {"game"},
    "standing.py": {"modules", "seeding"},
    "ema.py": {"errors", "game", "ramps", "standing"},
    "ramps.py": {"errors", "game"},
    "power_ema.py": {"ema", "errors", "game"},
    "freezing.py": {"errors", "game"},
    "lazy.py": {"game", "ramps"},
    "styles.py": {"errors"},
    "path_length.py": {"adversary", "errors", "game", "lazy", "ramps", "styles"},
    "schedule.py": {"errors"},
    "optim.py": {"errors", "game", "ramps"},
    "noise.py": {"game", "errors"},
    "penalties.py": {"game", "lazy"},
    "terms.py": {"adversary", "errors", "game", "lazy", "ramps"},
    "adversary.py": {"errors", "game", "gradient_norm", "losses"},
    "gradient_norm.py": {"game"},
    "latents.py": {"adversary", "errors", "game", "lazy", "ramps"},
    "recipes/gan.py": {"game", "adversary"},
    "recipes/logan.py": {"adversary", "errors", "game", "recipes"},
    "recipes/fastgan.py": {"adversary", "errors", "game", "recipes"},
    "reconstruction.py": {"adversary", "errors", "game", "lazy", "ramps"},
    "gradients.py": set(),
    "activations.py": set(),
    "module.py": {"game", "schedule", "ema", "gradients", "lazy", "modules", "noise", "optim", "seeding", "standing"},
    "adaptive.py": {"errors", "game", "ramps"},
    "presentations.py": {"adaptive", "errors", "game"},
    "augment/instance_noise.py": {"errors", "game", "ramps"},
    "augment/drawing.py": {"errors", "game"},
    "augment/ada.py": {"adaptive", "augment", "errors", "ramps"},
    "augment/diffaugment.py": {"augment", "errors"},
}


def imports(module):
    """Names of everything that a module imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("module", MODULES)
def test_only_their_rooms_know_lightning_and_hydra(module):
    roots = {name.split(".")[0] for name in imports(module)}
    assert "pytorch_lightning" not in roots or module.startswith(LIGHTNING), module
    assert not roots & {"hydra", "omegaconf"} or module.startswith(HYDRA), module


@pytest.mark.parametrize("module", [m for m in MODULES if "/" in m])
def test_folders_import_one_way(module):
    folder = module.split("/")[0]
    own = {name.split(".")[1] for name in imports(module) if name.startswith("ganrun.")} & FOLDERS.keys()
    assert own - {folder} <= FOLDERS[folder], f"{module} imports {own - {folder} - FOLDERS[folder]}"


@pytest.mark.parametrize("module", [m for m in MODULES if "/" not in m and m not in ("cli.py", "__init__.py")])
def test_the_core_imports_no_folder(module):
    own = {name.split(".")[1] for name in imports(module) if name.startswith("ganrun.")}
    assert not own & FOLDERS.keys(), module


@pytest.mark.parametrize("module", CORE)
def test_the_core_imports_one_way(module):
    own = {name.split(".")[1] for name in imports(module) if name.startswith("ganrun.")}
    assert own <= CORE[module], f"{module} imports {own - CORE[module]}"


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("networks/")])
def test_networks_know_torch_and_the_vocabulary_only(module):
    own = {name for name in imports(module) if name.startswith("ganrun.")}
    vocabulary = ("ganrun.game", "ganrun.errors", "ganrun.styles", "ganrun.networks")
    assert all(name.startswith(vocabulary) for name in own)
