"""Lightning's training loop, with a short way through a step around which nobody does anything."""

from __future__ import annotations

from collections import OrderedDict
from types import FrameType
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loops.optimization.automatic import Closure, ClosureResult, _AutomaticOptimization
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer import call
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.optim import Optimizer

from lit_imitation.data.demonstration_module import Batches
from lit_imitation.methods.base import BATCH_HOOKS, ImitationModule
from lit_imitation.utils.distributed import all_reduce


class PlainEpochLoop(_TrainingEpochLoop):
    """An epoch whose steps call what Lightning's would, in the same order, without asking who else wants to be called.

    On its way to `training_step`, `backward` and the optimizer Lightning enters strategy, precision plugin and a dozen
    hooks, names and profiles each, and prepares for accumulation and restarts: for a small network a quarter of a step.
    Where `_is_plain` does not find all of these to be Lightning's empty ones, the step is Lightning's own.
    """

    automatic_optimization: PlainOptimization

    def __init__(self, trainer: Trainer, min_steps: int | None = None, max_steps: int = -1) -> None:
        super().__init__(trainer, min_steps, max_steps)
        self.automatic_optimization = PlainOptimization(trainer)
        self.plain = False

    def on_run_start(self, data_fetcher: Any) -> None:
        """Look once an epoch, after the hooks that may change what is looked at."""
        super().on_run_start(data_fetcher)
        self.plain = self._is_plain()

    def _is_plain(self) -> bool:
        trainer = self.trainer
        module, strategy = trainer.lightning_module, trainer.strategy
        callbacks: list[Any] = trainer.callbacks
        return (
            isinstance(module, ImitationModule)
            and module.automatic_optimization
            and type(strategy) is SingleDeviceStrategy
            and strategy.model is module  # and not compiled
            and type(trainer.precision_plugin) is Precision
            and isinstance(trainer.profiler, PassThroughProfiler)
            and trainer.accumulate_grad_batches == 1
            and not self.automatic_optimization._skip_backward
            # so that a batch is never None, and stays what and where it is
            and type(trainer.train_dataloader) is Batches
            and type(module)._apply_batch_transfer_handler is ImitationModule._apply_batch_transfer_handler
            and not any(is_overridden("on_before_batch_transfer", owner) for owner in (module, trainer.datamodule))
            and not any(
                callable(getattr(owner, hook))  # not so where `skip_empty_hooks` found nobody to call
                for hook in BATCH_HOOKS
                for owner in (module, *callbacks)
                if hook != "on_train_batch_end"
            )
            and not any(is_overridden(hook, module, LightningModule) for hook in ("backward", "optimizer_step"))
            and "batch_idx" in self._build_kwargs(OrderedDict(), None, 0)
        )

    def _broadcast_sigterm_tensor(self) -> None:
        """Stop all processes before the same batch, whichever of them SIGTERM came to; Lightning asks the first one."""
        told = getattr(self.trainer, "told_to_stop", False)
        if all_reduce(torch.tensor(float(told), device=self.trainer.strategy.root_device)).item():
            raise SIGTERMException

    def advance(self, data_fetcher: Any) -> None:
        """One batch."""
        if self.restarting or not self.plain:
            super().advance(data_fetcher)
            return
        trainer, progress, connector = self.trainer, self.batch_progress, self.trainer._logger_connector
        self.val_loop.restarting = False
        batch, _, _ = next(data_fetcher)
        batch_idx = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        progress.increment_ready()
        connector.on_batch_start(batch)
        progress.increment_started()
        output = self.automatic_optimization.run_plain(trainer.optimizers[0], batch, batch_idx)
        progress.increment_processed()
        if trainer.lr_scheduler_configs:
            self.update_lr_schedulers("step", update_plateau_schedulers=False)
            if self._num_ready_batches_reached():
                self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        call._call_callback_hooks(trainer, "on_train_batch_end", output, batch, batch_idx)
        call._call_lightning_module_hook(trainer, "on_train_batch_end", output, batch, batch_idx)
        connector.on_batch_end()
        progress.increment_completed()
        connector.update_train_step_metrics()


class PlainOptimization(_AutomaticOptimization):
    """Forward, backward and update, with Lightning's counters and nothing in between but clipping."""

    def run_plain(self, optimizer: Optimizer, batch: Any, batch_idx: int) -> dict[str, Any]:
        """As `run`, where `PlainEpochLoop` found the step to be plain."""
        trainer, progress = self.trainer, self.optim_progress.optimizer
        module = trainer.lightning_module

        def training_step() -> ClosureResult:
            output = call._call_lightning_module_hook(trainer, "training_step", batch, batch_idx)
            # Lightning would divide the loss by the one batch that it accumulates.
            return ClosureResult(output) if type(output) is Tensor else ClosureResult.from_training_step_output(output)

        def zero_grad() -> None:
            progress.zero_grad.increment_ready()
            progress.zero_grad.increment_started()
            call._call_lightning_module_hook(
                trainer, "optimizer_zero_grad", trainer.current_epoch, batch_idx, optimizer
            )
            progress.zero_grad.increment_completed()

        def clipped() -> Any:
            loss = closure()
            call._call_lightning_module_hook(
                trainer,
                "configure_gradient_clipping",
                optimizer,
                gradient_clip_val=trainer.gradient_clip_val,
                gradient_clip_algorithm=trainer.gradient_clip_algorithm,
            )
            return loss

        closure = Closure(training_step, module.backward, zero_grad)
        progress.step.increment_ready()
        optimizer.step(clipped)
        progress.step.increment_completed()
        result = closure.consume_result()
        return {} if result.loss is None else result.asdict()


class Signals(_SignalConnector):
    """Takes note of SIGTERM to one of several processes, and leaves it to them to agree on where to stop.

    Lightning's handler sends a message to the other processes. In the middle of another message they would take it for
    that one, and wait for each other without end.
    """

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer)
        self.told = False

    def _sigterm_notifier_fn(self, signum: Any, frame: FrameType | None) -> None:
        if self.trainer.world_size == 1:
            super()._sigterm_notifier_fn(signum, frame)  # type: ignore[arg-type]
            return
        launcher = self.trainer.strategy.launcher
        if launcher is not None and not self.told:
            launcher.kill(signum)  # sends the signal to the processes that Lightning started
        self.told = True
