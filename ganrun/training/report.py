"""What a user reads on the terminal: the summary before a run and the table after it."""

import shlex
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.table import Table

from ganrun.attributes import KEY as ATTRIBUTES
from ganrun.callbacks.samples import classes_in_grid
from ganrun.config.typed import is_ramp
from ganrun.metrics.protocol import short as short_protocol
from ganrun.module import GANModule
from ganrun.optim import PlayerOptimizer
from ganrun.training.build import Parts
from ganrun.training.hardware import precision_of
from ganrun.training.norm import norm_notes
from ganrun.training.trainer import rows_a_pass

SHOWN = 3  # skipped files that the summary names


def plain_table() -> Table:
    """Two columns; long values are wrapped, never cut."""
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    return table


def add_players(table: Table, module: GANModule) -> None:
    """Each player's networks, and what they say of themselves."""
    for name, player in module.players.items():
        networks = ", ".join(short(f"{type(n).__module__}.{type(n).__qualname__}") for n in player.networks)
        table.add_row(name, f"{networks}, {sum(p.numel() for p in player.parameters()):,} parameters")
        for note in [note for network in player.networks for note in getattr(network, "notes", ())]:
            table.add_row("", note)


def summary(parts: Parts, run_dir: Path, device: str, processes: int = 1) -> Table:
    """The summary of what is about to be trained."""
    cfg, module = parts.cfg, parts.module
    table = plain_table()
    add_data(table, parts)
    add_players(table, module)
    conditional = cfg.conditional.key or "none"
    loss = short(cfg.loss.get("_target_", "none"))
    table.add_row("loss", loss + (f", conditional on {conditional}" if cfg.conditional.key else ""))
    for name, node in (cfg.conditional.get("terms") or {}).items():
        table.add_row("conditional", f"{name} {values(node)}")
    for group in ("penalty", "augment", "presentation", "head", "term", "callbacks", "logger"):
        if cfg.get(group):
            table.add_row(group, "; ".join(f"{name} {values(node)}" for name, node in cfg[group].items()))
    if module.frozen:
        count = sum(p.numel() for p in module.frozen)
        table.add_row("frozen", f"{count:,} parameters of the first {cfg.freeze_discriminator} layers or blocks")
    for note in norm_notes(parts)[0]:
        table.add_row("", note)
    moves = ", then ".join(f"{cfg.schedule[name]} {name}" for name in cfg.schedule if name in module.players)
    fresh = "" if cfg.schedule.get("share", True) else ", each with fresh noise"
    lazy = ", lazy penalties and terms in moves of their own" if module.lazy_moves else ""
    table.add_row("schedule", f"{moves}{fresh}{lazy}; ema {values(cfg.ema) or 'none'}")
    for name in module.players:
        node = cfg.optimizer[name]
        told = f"{short(node.optimizer)} {values(node, skip=('optimizer', 'decay_steps'))}"
        table.add_row(f"  {name}", told + corrected(module.player_optimizers[name]))
    more = f", {module.batch_size + module.further[0]} where one generates" if module.further else ""
    table.add_row("steps", f"{cfg.steps:,} of batch {cfg.batch_size}{more}, seed {cfg.seed}")
    table.add_row("device", f"{device}, precision {precision_of(cfg)}")
    rows = rows_a_pass(cfg, processes)
    table.add_row(
        "memory", f"up to {parts.activation_bytes * rows / 2**20:,.0f} MiB of activations in fp32, {rows} images a pass"
    )
    table.add_row("run", str(run_dir))
    return table


def add_data(table: Table, parts: Parts) -> None:
    """Adds rows about the data set and about what pictures show of it."""
    cfg, data = parts.cfg, parts.data
    classes = f", {data.num_classes} classes" if data.num_classes else ""
    classes += f", {len(data.attributes)} attributes" if data.attributes else ""
    table.add_row("dataset", f"{data.name}: {len(data):,} x {list(data.shape)}{classes}")
    if data.skipped:
        shown = "; ".join(f"{name}: {reason}" for name, reason in data.skipped[:SHOWN])
        more = "; ... all of them are in result.json" if len(data.skipped) > SHOWN else ""
        table.add_row("skipped", f"{len(data.skipped)} ({shown}{more})")
    for note in data.notes:
        table.add_row("", note)
    if cfg.conditional.key == ATTRIBUTES:
        table.add_row("pictures", f"a column for each of some values of {data.attributes[0].name}")
    shown = len(classes_in_grid(data, cfg.num_samples)) if cfg.conditional.key else data.num_classes
    if shown < data.num_classes:
        table.add_row("pictures", f"{shown} of {data.num_classes} classes, evenly spaced")


def short(target: str) -> str:
    """ganrun.networks.dcgan.Generator -> dcgan.Generator"""
    return ".".join(target.split(".")[-2:]) if "networks" in target else target.rpartition(".")[2]


def values(node: DictConfig, skip: tuple[str, ...] = ()) -> str:
    items = {k: v for k, v in node.items() if not str(k).startswith("_") and k not in skip and v is not None}
    return " ".join(f"{k}={value(v)}" for k, v in items.items())


def corrected(optimizer: PlayerOptimizer) -> str:
    """The learning rate and betas that Adam starts with, if lazy moves correct them."""
    if optimizer.share == 1:
        return ""
    first = optimizer.optimizer.param_groups[0]
    return f": lr {first['lr']:.4g} and betas {', '.join(f'{beta:.4g}' for beta in first['betas'])} by lazy moves"


def value(node: Any) -> Any:
    """A ramp as Python writes it: Linear(start=10, end=1, over=1000, unit=steps)."""
    if is_ramp(node):
        return f"{short(node._target_)}({values(node).replace(' ', ', ')})"
    if isinstance(node, ListConfig):
        return f"[{', '.join(str(value(each)) for each in node)}]"
    return OmegaConf.to_container(node) if OmegaConf.is_config(node) else node


def result_table(result: dict[str, Any], sample: Path, tensorboard: Path) -> Table:
    """How the run ended and where to look."""
    table = plain_table()
    ended = f": {result['ended']}" if result.get("ended") else ""
    table.add_row("status", f"{result['status']} after {result['steps']:,} steps{ended}")
    table.add_row("time", f"{result['seconds']:.0f} s, {result['images_per_second']:,.0f} images/s")
    for name, score in result["scores"].items():
        best = "" if score["best"] is None else f" ({score['best']:.5f} at the best step, {score['best_step']:,})"
        table.add_row(name, f"{score['final']:.5f}{best}, {score['better']} is better")
        table.add_row("", short_protocol(score["protocol"]))
    table.add_row("samples", str(sample))
    table.add_row("curves", f"tensorboard --logdir {shlex.quote(str(tensorboard.parent))}")
    return table
