"""Feeds rounds of batches: round k is the same whichever process reads it and wherever a run was resumed."""

import signal
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, count, islice

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ganrun.attributes import KEY, as_seen
from ganrun.data.base import Data
from ganrun.errors import UserError
from ganrun.game import Batch
from ganrun.seeding import derive, of_attempt, rng_for
from ganrun.signals import SIGNALS, end_with_parent


class Rounds(Dataset):
    """Maps a round's number to this rank's rows of its batches, stacked (num_batches * rows, ...), then of `further`.

    The stream of positions 0, 1, 2, ... walks through one permutation of the samples after another. The permutation
    of epoch e depends on (seed, e), augmentation on (seed, position). only_index: True = samples are read later.
    unpaired: True = each side of two-sided data is a stream of its own, so that no pair is seen together; its tensors
    are called <side>/<name>. further: sizes, over all ranks, of what a round reads beyond its batches.
    """

    def __init__(
        self,
        data: Data,
        *,
        batch_size: int,
        num_batches: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        only_index: bool = False,
        unpaired: bool = False,
        further: Sequence[int] = (),
    ):
        if batch_size % world_size:
            raise UserError(f"batch_size={batch_size} is over all devices; it must be a multiple of {world_size}")
        streams = data.streams
        if unpaired and len(data.sides) > 1:
            streams = {f"{key}/": side for key, side in data.sides.items()}
        seeds = {prefix: derive(seed, "side", prefix[:-1]) if prefix else seed for prefix in streams}
        self.streams = {prefix: (part, seeds[prefix]) for prefix, part in streams.items()}
        self.only_index = only_index
        sizes = [*[batch_size] * num_batches, *further]
        *starts, self.per_round = accumulate(sizes, initial=0)
        rows = [size // world_size for size in sizes]
        own = [start + rank * num + np.arange(num) for start, num in zip(starts, rows, strict=True)]
        self.offsets = np.concatenate(own)

    def __getitem__(self, index: int) -> Batch:
        positions = index * self.per_round + self.offsets
        return {
            f"{prefix}{name}": value
            for prefix, (data, seed) in self.streams.items()
            for name, value in self._at(positions, data, seed).items()
        }

    def _at(self, positions: np.ndarray, data: Data, seed: int) -> Batch:
        epochs, places = np.divmod(positions, len(data))
        indices = torch.empty(len(positions), dtype=torch.int64)
        for epoch in np.unique(epochs):
            there = torch.from_numpy(epochs == epoch)
            indices[there] = data.order(seed, "epoch", int(epoch))[places[there.numpy()]]
        return data.carried(indices, self.only_index) | data.draw(positions, seed)


class From(Sampler):
    """start, start + 1, ... without end, so it has no length."""

    def __init__(self, start: int):
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return count(self.start)


def worker_init(_: int) -> None:
    """Leaves signals to the training process, which ends its workers; they also end when it is killed."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()  # without it a worker would wait for ever until its last batch is taken


class GANDataModule(pl.LightningDataModule):
    """Loads rounds from the trainer's current step on; on the device samples are augmented and scaled to their range.

    unpaired, further: see Rounds.
    """

    def __init__(
        self,
        data: Data,
        *,
        batch_size: int,
        num_batches: int,
        seed: int,
        channels_last: bool = True,
        unpaired: bool = False,
        further: Sequence[int] = (),
    ):
        super().__init__()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.data = data
        self.batch_size = batch_size
        self.num_batches = num_batches
        self.seed = seed
        self.unpaired = unpaired
        self.further = further
        self.attempt = 0  # rollbacks so far; batches that may have led to a collapse are not repeated

    def train_dataloader(self) -> DataLoader:
        device = self.trainer.strategy.root_device
        self.data.hold_on(device)
        rounds = Rounds(
            self.data,
            batch_size=self.batch_size,
            num_batches=self.num_batches,
            seed=of_attempt(self.seed, self.attempt),
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            only_index=self.data.lies_on(device),
            unpaired=self.unpaired,
            further=self.further,
        )
        num_workers = 0 if self.data.is_resident else self.data.num_workers
        return DataLoader(
            rounds,
            batch_size=None,
            sampler=From(self.trainer.global_step),
            num_workers=num_workers,
            worker_init_fn=worker_init,
            multiprocessing_context="fork" if num_workers else None,  # other ways to start would copy a mapped set
            persistent_workers=num_workers > 0,  # Lightning ends these when training fails; nothing else would
            pin_memory=device.type == "cuda",
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        batch = self.data.in_range(self.data.complete(batch))
        images = [key for key, shape in self.data.parts.items() if len(shape) == 3]
        return batch | {key: batch[key].contiguous(memory_format=self.memory_format) for key in images}

    def reals(self, num: int) -> Batch:
        """The first `num` samples of a fixed shuffle, in the value range: for scores and pictures."""
        (batch,) = self.examples(num, num)
        return batch

    def examples(self, num: int, chunk: int) -> Iterator[Batch]:
        """The same, `chunk` at a time."""
        return (self.data.in_range(batch) for batch in self.data.shuffled(num, chunk))

    def given(self, needs: bool, condition: str | None, num: int, rows: int) -> Iterator[Batch]:
        """`num` batches of what fakes are made from beside noise, the same each time; {} if nothing.

        needs: True = data. condition: key of labels, which are drawn from the data's own; None = unconditional.
        """
        if needs:
            again = (self.examples(num * rows, rows) for _ in range(num))  # small sets are gone through again
            yield from islice(chain.from_iterable(again), num)
            return
        rng, labels = rng_for(self.seed, "labels"), self.data.class_labels
        if condition == KEY:
            labels = as_seen(self.data.attribute_values, self.data.attributes)
        for _ in range(num):
            drawn = labels.cpu()[torch.randint(len(labels), (rows,), generator=rng)] if condition else None
            yield {} if drawn is None else {condition: drawn}
