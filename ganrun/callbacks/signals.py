"""SIGTERM and SIGINT end a run between two steps: the step is finished, the state saved."""

import signal

import pytorch_lightning as pl

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Signals(pl.Callback):
    """`received` is the signal that stopped the run, or None. A second one of them acts at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, object] = {}

    def on_train_start(self, trainer, pl_module) -> None:
        self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}

    def _note(self, number: int, frame) -> None:
        self.received = number
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            trainer.should_stop = True

    def teardown(self, trainer, pl_module, stage) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
