"""The short way through a training step ends where Lightning's own does, and is left where anything is in its way."""

from __future__ import annotations

import counting  # noqa: F401 - registers Spaces-v0
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, GradientAccumulationScheduler, ModelCheckpoint
from lightning.pytorch.profilers import SimpleProfiler

from lit_imitation import BC, DemonstrationDataModule
from lit_imitation.training.lightning_cli import FastTrainer
from lit_imitation.transitions import Transitions


class Scheduled(BC):
    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class InADict(BC):
    def training_step(self, batch, batch_idx):
        return {"loss": super().training_step(batch, batch_idx), "size": len(batch)}


class NowAndThen(BC):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return None if batch_idx == 2 else loss


class WithoutIndex(BC):
    def training_step(self, batch):
        return super().training_step(batch, 0)


class OwnStep(BC):
    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)


class OwnBackward(BC):
    def backward(self, loss):
        (2 * loss).backward()


class OwnTransfer(BC):
    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch[:5]


class Hook(Callback):
    """One that is called in every step, and does something to it."""

    def __init__(self, name: str) -> None:
        setattr(self, name, self._called)

    def _called(self, trainer, pl_module, *args):
        for parameter in pl_module.policy.parameters():
            parameter.data.mul_(0.99)


class Noting(Callback):
    """What a callback is told, and the counters that it sees, at each step's end."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        loss = None if "loss" not in outputs else outputs["loss"].item()
        self.seen.append((loss, len(batch), batch_idx, trainer.global_step, trainer.fit_loop.state_dict()))


def outcome(trainer_class: type[Trainer], model_class: type[BC], callbacks, options, directory) -> tuple[object, ...]:
    seed_everything(0, verbose=False)
    count = 46
    done = torch.arange(count) % 2 == 1
    data = Transitions(
        observation=torch.randn(count, 3),
        action=torch.randint(3, (count,)),
        reward=torch.zeros(count),
        terminated=done,
        truncated=torch.zeros_like(done),
        batch_size=[count],
    )
    spaces = {"observation_space": Box(-np.inf, np.inf, (3,), np.float32), "action_space": Discrete(3)}
    module, noting = model_class(learning_rate=1e-2), Noting()
    datamodule = DemonstrationDataModule(
        "Spaces-v0", demonstrations=data, env_kwargs=spaces, batch_size=8, eval_episodes=0, val_fraction=0.1
    )
    trainer = trainer_class(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=2,
        default_root_dir=directory,
        callbacks=[noting, *(make() for make in callbacks)],
        **{"profiler": None, "enable_checkpointing": False, "max_epochs": 3, **options},
    )
    trainer.fit(module, datamodule=datamodule)
    weights = torch.cat([parameter.flatten() for parameter in module.policy.parameters()])
    optimizer = [value.tolist() for state in trainer.optimizers[0].state.values() for value in state.values()]
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    loop = trainer.fit_loop.epoch_loop
    return (
        getattr(loop, "plain", None),
        weights.tolist(),
        optimizer,
        metrics,
        noting.seen,
        trainer.fit_loop.state_dict(),
    )


def both(directory, model_class=BC, callbacks=(), **options):
    plain, *ours = outcome(FastTrainer, model_class, callbacks, options, directory / "ours")
    _, *theirs = outcome(Trainer, model_class, callbacks, options, directory / "theirs")
    assert ours == theirs
    return plain


@pytest.mark.parametrize(
    ("model_class", "callbacks", "options"),
    [
        (BC, [], {}),
        (Scheduled, [], {}),
        (InADict, [], {}),
        (NowAndThen, [], {}),
        (BC, [], {"gradient_clip_val": 0.01}),
        (BC, [], {"gradient_clip_val": 0.001, "gradient_clip_algorithm": "value"}),
        (BC, [], {"max_steps": 7, "max_epochs": -1}),
        (BC, [], {"val_check_interval": 2}),
        (BC, [lambda: EMAWeightAveraging(decay=0.9)], {}),
        (BC, [lambda: ModelCheckpoint(every_n_train_steps=2)], {"enable_checkpointing": True}),
    ],
)
def test_the_short_way_gives_the_same_bits_counters_and_metrics(model_class, callbacks, options, tmp_path):
    assert both(tmp_path, model_class, callbacks, **options)


@pytest.mark.parametrize(
    ("model_class", "callbacks", "options"),
    [
        (WithoutIndex, [], {}),
        (OwnStep, [], {}),
        (OwnBackward, [], {}),
        (OwnTransfer, [], {}),
        (BC, [lambda: Hook("on_train_batch_start")], {}),
        (BC, [lambda: Hook("on_before_zero_grad")], {}),
        (BC, [lambda: Hook("on_before_backward")], {}),
        (BC, [lambda: Hook("on_after_backward")], {}),
        (BC, [lambda: Hook("on_before_optimizer_step")], {}),
        (BC, [], {"accumulate_grad_batches": 2}),
        (BC, [lambda: GradientAccumulationScheduler({1: 2})], {}),
        (BC, [], {"precision": "bf16-mixed"}),
        (BC, [], {"profiler": SimpleProfiler()}),
    ],
)
def test_whatever_is_in_its_way_gets_lightnings_own(model_class, callbacks, options, tmp_path):
    assert both(tmp_path, model_class, callbacks, **options) is False


def test_it_goes_on_from_a_checkpoint_within_an_epoch_as_lightning_would(tmp_path):
    """A restart is Lightning's own, the steps after it are not."""
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=7, save_top_k=-1, filename="{step}")
    outcome(FastTrainer, BC, [lambda: checkpoint], {"enable_checkpointing": True}, tmp_path)
    whole = outcome(FastTrainer, BC, [], {}, tmp_path)

    class Resumed(FastTrainer):
        def fit(self, *args, **kwargs):
            super().fit(*args, ckpt_path=tmp_path / "step=7.ckpt", weights_only=True, **kwargs)

    assert outcome(Resumed, BC, [], {}, tmp_path)[:3] == whole[:3]
