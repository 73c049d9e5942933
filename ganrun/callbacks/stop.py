"""A noted signal ends training after its step."""

import signal

import pytorch_lightning as pl

from ganrun.signals import Signals


class StopOnSignal(pl.Callback):
    """In a run of several processes it is enough that one of them got a signal: all stop after the same step."""

    def __init__(self, signals: Signals):
        self.signals = signals

    def setup(self, trainer, pl_module, stage) -> None:
        trainer._signal_connector.register_signal_handlers = lambda: None  # Lightning's would end a run elsewhere

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.strategy.reduce_boolean_decision(self.signals.received is not None, all=False):
            trainer.should_stop = True
            self.signals.received = self.signals.received or signal.SIGTERM
