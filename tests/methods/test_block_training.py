"""Training on blocks: the same steps as a plain loop for every block length, and Trainer options."""

from __future__ import annotations

import ast
from pathlib import Path

import counting  # noqa: F401 - registers Spaces-v0
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    ModelCheckpoint,
    StochasticWeightAveraging,
)

import lit_imitation
from lit_imitation import BC, DemonstrationDataModule
from lit_imitation.data import blocks
from lit_imitation.errors import ConfigError
from lit_imitation.optim import gradients
from lit_imitation.optim.optimization import Optimization
from lit_imitation.transitions import Transitions

pytestmark = pytest.mark.integration

SPACES = {"observation_space": Box(-np.inf, np.inf, (3,), np.float32), "action_space": Discrete(3)}
COUNT, BATCH = 46, 8  # 42 for training: 5 minibatches per epoch


def demonstrations():
    seed_everything(0, verbose=False)
    done = torch.arange(COUNT) % 2 == 1
    return Transitions(
        observation=torch.randn(COUNT, 3),
        action=torch.randint(3, (COUNT,)),
        reward=torch.zeros(COUNT),
        terminated=done,
        truncated=torch.zeros_like(done),
        batch_size=[COUNT],
    )


def fit(directory, callbacks=(), module=None, resume=None, batch_size=BATCH, **options):
    """A short run; returns the module with its Trainer."""
    data = DemonstrationDataModule(
        "Spaces-v0",
        demonstrations=demonstrations(),
        env_kwargs=SPACES,
        batch_size=batch_size,
        eval_episodes=0,
        val_fraction=0.1,
    )
    module = module or BC(learning_rate=1e-2)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=2,
        default_root_dir=directory,
        callbacks=list(callbacks),
        **{"enable_checkpointing": any(isinstance(one, ModelCheckpoint) for one in callbacks), "max_epochs": 3}
        | options,
    )
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True if resume else None)
    return module


def state(module):
    """Weights and Adam's moments."""
    moments = module.trainer.optimizers[0].state_dict()["state"][0]
    return [module.descent.vector.detach(), *moments.values()]


def assert_same(one, other):
    for mine, theirs in zip(state(one), state(other), strict=True):
        assert torch.equal(mine, theirs)


class Noting(Callback):
    """Records the counters at the end of each block."""

    def __init__(self):
        self.steps, self.sizes, self.batches = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append(trainer.global_step)
        self.sizes.append(len(batch))
        self.batches.append(batch)


@pytest.mark.grid(every=2)
@pytest.mark.parametrize("length", [1, 2, 3, 5, 64])
def test_block_length_changes_no_bit(length, tmp_path, monkeypatch):
    whole = fit(tmp_path)
    monkeypatch.setattr(blocks.Blocks, "longest", length)
    noting = Noting()
    cut = fit(tmp_path, [noting])
    assert_same(cut, whole)
    assert max(noting.sizes) == min(length, 5)
    assert noting.steps[-1] == 15


def test_steps_are_those_of_a_plain_torch_loop(tmp_path, monkeypatch):
    noting = Noting()
    module = fit(tmp_path, [noting])
    seed_everything(0, verbose=False)
    reference = fit(tmp_path, max_steps=1, module=BC(learning_rate=1e-30)).policy  # fresh weights, fitted inputs
    optimizer = torch.optim.Adam(reference.parameters(), 1e-2)
    for block in noting.batches:
        for batch in block:
            optimizer.zero_grad()
            reference.loss(batch.observation, batch.action).mean().backward()
            optimizer.step()
    for mine, theirs in zip(module.policy.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.grid(every=2)
@pytest.mark.parametrize("steps", [1, 4, 5, 7, 11])
def test_max_steps_ends_inside_a_block(steps, tmp_path):
    module = fit(tmp_path, max_steps=steps, max_epochs=-1)
    assert module.trainer.global_step == steps
    assert module.descent.optimizer.state[module.descent.vector]["step"] == steps


def test_limit_train_batches_counts_minibatches(tmp_path):
    assert fit(tmp_path, limit_train_batches=3).trainer.global_step == 9


@pytest.mark.grid(every=2)
@pytest.mark.parametrize("every", [1, 2, 5, 7, 10])
def test_checkpoints_every_n_steps_fall_between_blocks(every, tmp_path):
    fit(tmp_path, [ModelCheckpoint(tmp_path, every_n_train_steps=every, save_top_k=-1, filename="{step}")])
    assert sorted(int(one.stem.partition("=")[2]) for one in tmp_path.glob("*.ckpt")) == list(range(every, 16, every))


@pytest.mark.grid(every=2)
@pytest.mark.parametrize("length", [1, 2, 3, 64])
def test_run_resumes_exactly_from_a_checkpoint_within_an_epoch(length, tmp_path, monkeypatch):
    whole = fit(tmp_path)
    fit(tmp_path, [ModelCheckpoint(tmp_path, every_n_train_steps=7, save_top_k=-1, filename="{step}")])
    monkeypatch.setattr(blocks.Blocks, "longest", length)
    resumed = fit(tmp_path, resume=tmp_path / "step=7.ckpt")
    assert resumed.trainer.global_step == 15
    assert_same(resumed, whole)


def test_accumulated_minibatches_are_one_large_one(tmp_path):
    one = fit(tmp_path, module=BC(learning_rate=1e-2), batch_size=40)
    many = fit(tmp_path, module=BC(learning_rate=1e-2, optimization=Optimization(accumulate_batches=5)), batch_size=8)
    assert many.trainer.global_step == 3
    for mine, theirs in zip(many.policy.parameters(), one.policy.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "linear"}, [1 - i / 15 for i in range(15)]),
        ({"schedule": "cosine"}, [0.5 * (1 + np.cos(np.pi * i / 15)) for i in range(15)]),
        ({"warmup_steps": 4}, [min(1, (i + 1) / 5) for i in range(15)]),
    ],
)
def test_schedule_sets_the_rate_of_every_step(settings, expected, tmp_path, monkeypatch):
    rates = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self, *args: (rates.append(self.param_groups[0]["lr"]), step(self, *args))[1]
    )
    fit(tmp_path, module=BC(learning_rate=1e-2, optimization=Optimization(**settings)))
    np.testing.assert_allclose(rates, 1e-2 * np.array(expected), rtol=1e-6)


def test_weight_decay_is_that_of_adamw(tmp_path):
    noting = Noting()
    module = fit(tmp_path, [noting], module=BC(learning_rate=1e-2, optimization=Optimization(weight_decay=0.5)))
    reference = fit(tmp_path, max_steps=1, module=BC(learning_rate=1e-30)).policy
    optimizer = torch.optim.AdamW(reference.parameters(), 1e-2, weight_decay=0.5)
    for batch in (batch for block in noting.batches for batch in block):
        optimizer.zero_grad()
        reference.loss(batch.observation, batch.action).mean().backward()
        optimizer.step()
    for mine, theirs in zip(module.policy.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


class Weights(Callback):
    """Records the weights after every step and in every validation."""

    def __init__(self):
        self.steps, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.steps.append(pl_module.descent.vector.detach().clone())

    def on_validation_epoch_start(self, trainer, pl_module):
        self.validated.append(pl_module.descent.vector.detach().clone())


def test_moving_average_is_evaluated_saved_and_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks.Blocks, "longest", 1)
    weights, averaging = Weights(), Optimization(ema_decay=0.5)
    module = fit(tmp_path, [weights], module=BC(learning_rate=1e-2, optimization=averaging))
    plain = Weights()
    fit(tmp_path, [plain])
    for mine, theirs in zip(weights.steps, plain.steps, strict=True):  # training continues with the last weights
        assert torch.equal(mine, theirs)
    average = weights.steps[0]
    for step, one in enumerate(weights.steps[1:], 2):
        average = 0.5 * average + 0.5 * one
        if step % 5 == 0:
            torch.testing.assert_close(weights.validated[step // 5 - 1], average)
    module.trainer.save_checkpoint(tmp_path / "end.ckpt")
    loaded = BC.load_from_checkpoint(tmp_path / "end.ckpt")
    found = torch.cat([parameter.detach().flatten() for parameter in loaded.policy.parameters()])
    torch.testing.assert_close(found, average)
    again = BC(learning_rate=1e-2, optimization=averaging)
    fit(tmp_path, [ModelCheckpoint(tmp_path, every_n_train_steps=7, save_top_k=-1, filename="{step}")], module=again)
    resumed = BC(learning_rate=1e-2, optimization=averaging)
    assert_same(fit(tmp_path, module=resumed, resume=tmp_path / "step=7.ckpt"), module)


@pytest.mark.parametrize(
    ("callbacks", "options", "text"),
    [
        ([], {"gradient_clip_val": 0.5}, r"set model.optimization.max_grad_norm 0.5 in place of trainer.gradient_clip"),
        ([], {"accumulate_grad_batches": 2}, r"set model.optimization.accumulate_batches 2 in place of"),
        ([GradientAccumulationScheduler({1: 2})], {}, r"set model.optimization.accumulate_batches in place of"),
        ([], {"val_check_interval": 2}, r"validated at the end of epochs, not by trainer.val_check_interval 2"),
        ([], {"limit_train_batches": 0.5}, r"trainer.limit_train_batches is 0.5; for BC give a whole number"),
        ([EMAWeightAveraging(decay=0.9)], {}, r"EMAWeightAveraging .* set model.optimization.ema_decay"),
        ([StochasticWeightAveraging(1e-2)], {}, r"StochasticWeightAveraging .* set model.optimization.ema_decay"),
    ],
)
def test_trainer_option_that_blocks_cannot_honor_is_refused(callbacks, options, text, tmp_path):
    with pytest.raises(ConfigError, match=text):
        fit(tmp_path, callbacks, **options)


def test_bf16_mixed_precision_trains(tmp_path):
    module = fit(tmp_path, precision="bf16-mixed")
    assert module.descent.vector.dtype == torch.float32
    assert module.trainer.global_step == 15


def test_package_uses_no_private_name_of_lightning():
    wrong = []
    for path in Path(lit_imitation.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "lightning":
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [
                    part for alias in node.names if alias.name.startswith("lightning") for part in alias.name.split(".")
                ]
            wrong += [f"{path.name}: {name}" for name in names if name.startswith("_")]
    assert not wrong


def test_package_overrides_no_private_method_of_lightning():
    import lightning.pytorch.cli

    bases = (
        lightning.LightningModule,
        lightning.LightningDataModule,
        lightning.Callback,
        lightning.Trainer,
        lightning.pytorch.loggers.Logger,
        lightning.pytorch.cli.LightningCLI,
        lightning.pytorch.callbacks.TQDMProgressBar,
    )
    import importlib
    import inspect
    import pkgutil

    wrong = []
    for module in pkgutil.walk_packages(lit_imitation.__path__, "lit_imitation."):
        if module.name.endswith("__main__") or ".configs" in module.name:
            continue
        for _, cls in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if not cls.__module__.startswith("lit_imitation"):
                continue
            for base in bases:
                if issubclass(cls, base):
                    private = {name for name in vars(cls) if name.startswith("_") and not name.startswith("__")}
                    of_lightning = {
                        name
                        for ancestor in cls.__mro__
                        if ancestor.__module__.startswith("lightning")
                        for name in vars(ancestor)
                    }
                    wrong += [f"{cls.__qualname__}.{name}" for name in private & of_lightning if name != "_abc_impl"]
    assert not sorted(set(wrong))


@pytest.mark.grid(every=2)
@pytest.mark.parametrize("length", [1, 64])
def test_traced_run_resumes_exactly_and_matches_eager_run(length, tmp_path, monkeypatch):
    eager = fit(tmp_path)
    monkeypatch.setattr(gradients, "TRACE_AFTER", 4)
    monkeypatch.setattr(blocks.Blocks, "longest", length)
    whole = fit(tmp_path, [ModelCheckpoint(tmp_path, every_n_train_steps=7, save_top_k=-1, filename="{step}")])
    assert whole.descent.block.loops
    torch.testing.assert_close(whole.descent.vector, eager.descent.vector, rtol=1e-4, atol=1e-5)
    for step in (7, 14):
        assert_same(fit(tmp_path, resume=tmp_path / f"step={step}.ckpt"), whole)
