"""Notes about discriminators: batch norm where penalties look at single samples, and what augmentations leave out."""

from torch.nn.modules.batchnorm import _BatchNorm

from ganrun.adversary import Adversary
from ganrun.training.build import Parts


def per_sample_penalties(adversary: Adversary) -> list[str]:
    return [name for name, penalty in adversary.penalties.items() if getattr(penalty, "per_sample", False)]


def mixes_samples(adversary: Adversary) -> bool:
    return any(isinstance(module, _BatchNorm) for module in adversary.discriminator.modules())


def norm_notes(parts: Parts) -> tuple[list[str], list[str]]:
    """(notes, warnings)."""
    notes, warnings = [], []
    for adversary in [module for module in parts.module.recipe.modules() if isinstance(module, Adversary)]:
        names = per_sample_penalties(adversary)
        looks = f"penalty {' and '.join(names)} {'looks' if len(names) == 1 else 'look'} at single samples"
        if names and mixes_samples(adversary):
            advice = "; discriminator.norm=none leaves it out" if "norm" in parts.cfg.discriminator else ""
            warnings.append(f"{looks}, which the discriminator's batch norm mixes{advice}")
        elif names and parts.cfg.discriminator.get("norm") == "none":
            notes.append(f"critic.norm=none: {looks}")
        if adversary.gradient_norm:
            notes.append(
                "critic.gradient_norm: logits are divided by their gradient's length plus their size; no compilation"
            )
        said = [
            f"augment.{name}: {note}" for name, part in adversary.augment.items() for note in getattr(part, "notes", ())
        ]
        notes += [note for note in said if note not in notes]
    return notes, warnings
