"""Spaces, batches and small runs of offline reinforcement learning."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from lightning import LightningModule, Trainer, seed_everything

from lit_imitation import OfflineDataModule
from lit_imitation.transitions import Transitions

OBSERVATION = Box(-np.inf, np.inf, (3,), np.float32)
BOX = Box(np.float32([-1, -2]), np.float32([1, 6]))
CENTER, SCALE = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 4.0])
ACTIONS = {"continuous": BOX, "discrete": Discrete(4, start=-1)}


def make_batch(kind: str, count: int = 20) -> tuple[torch.Tensor, ...]:
    """Observations, actions, rewards, successors and terminations `[count]` at random."""
    generator = np.random.default_rng(1)
    if kind == "continuous":
        action = torch.from_numpy(generator.uniform(BOX.low, BOX.high, (count, 2)).astype(np.float32))
    else:
        action = torch.from_numpy(generator.integers(-1, 3, count))
    numbers = torch.from_numpy(generator.normal(size=(count, 7)).astype(np.float32))
    return numbers[:, :3], action, numbers[:, 3], numbers[:, 4:], torch.from_numpy(generator.random(count) < 0.3)


def walk(episodes: int, good: float, seed: int = 0) -> Transitions:
    """Episodes on a line of 6 places that end with reward 1 at its right end, or are cut off after 20 steps.

    Right is action 1. A share `good` of the actions goes right, the others left.
    """
    generator, rows = np.random.default_rng(seed), []
    for _ in range(episodes):
        place = 0
        for step in range(20):
            action = int(generator.random() < good)
            after = max(place + 2 * action - 1, 0)
            rows.append((place, action, float(after == 5), after, after == 5, step == 19 and after < 5))
            place = after
            if place == 5:
                break
    observation, action, reward, following, over, cut = map(np.array, zip(*rows, strict=True))
    return Transitions.from_numpy(
        {
            "observation": observation,
            "action": action,
            "reward": reward,
            "next_observation": following,
            "terminated": over,
            "truncated": cut,
        }
    )


def bandit(count: int = 3000, seed: int = 0) -> Transitions:
    """One-step episodes with actions around 0 in [−1, 1] and reward 1 − (a − 0.6)²; few are near the best."""
    generator = np.random.default_rng(seed)
    action = np.clip(0.35 * generator.normal(size=(count, 1)), -1, 1).astype(np.float32)
    state = generator.normal(size=(count, 2)).astype(np.float32)
    return Transitions.from_numpy(
        {
            "observation": state,
            "action": action,
            "reward": 1 - (action[:, 0] - 0.6) ** 2,
            "next_observation": state,
            "terminated": np.ones(count, bool),
            "truncated": np.zeros(count, bool),
        }
    )


LINE = {"observation_space": {"type": "Discrete", "n": 6}, "action_space": {"type": "Discrete", "n": 2}}
ONE_ACTION = {"action_space": {"type": "Box", "low": [-1.0], "high": [1.0]}}


def fit(model: LightningModule, data: OfflineDataModule, directory, epochs: int) -> None:
    """Train without evaluation."""
    seed_everything(0, verbose=False)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, max_epochs=epochs,
        enable_checkpointing=False, num_sanity_val_steps=0, default_root_dir=directory,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
