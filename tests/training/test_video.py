"""Videos: environments that cannot render cause a warning, and training continues."""

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from lit_imitation import BC, RolloutDataModule
from lit_imitation.training.video import VideoLogger


class Blind(gym.Env):
    """Accepts no `render_mode`."""

    observation_space, action_space = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(3, np.float32), {}

    def step(self, action):
        return np.zeros(3, np.float32), 0.0, False, False, {}


class Silent(Blind):
    """Accepts `render_mode`, but renders nothing."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode=None):
        self.render_mode = render_mode


class Shown(Silent):
    def render(self):
        return np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("cls", "says"),
    [(Blind, "Blind-v0 cannot be made with the arguments"), (Silent, "NotImplementedError"), (Shown, "")],
)
def test_environment_that_cannot_render_warns(cls, says, tmp_path, monkeypatch, recwarn):
    monkeypatch.delitem(gym.registry, "Blind-v0", raising=False)
    monkeypatch.setitem(gym.registry, "Blind-v0", gym.envs.registration.EnvSpec("Blind-v0", entry_point=cls))
    trainer = SimpleNamespace(
        fast_dev_run=False,
        sanity_checking=False,
        is_global_zero=True,
        default_root_dir=tmp_path,
        global_step=7,
        loggers=[],
        datamodule=RolloutDataModule("Blind-v0"),
    )
    module = BC()
    module._trainer = trainer
    monkeypatch.setattr(module, "actor", lambda: lambda observation: np.zeros(len(observation), int))
    logger = VideoLogger(every_n_validations=1, max_steps=3)
    for _ in range(2):
        logger.on_validation_end(trainer, module)
    told = [str(one.message) for one in recwarn if "VideoLogger" in str(one.message)]
    assert len(told) == bool(says)
    assert all("no more videos of Blind-v0 in this run" in text and says in text for text in told)
    assert (tmp_path / "videos" / "step_00000007.gif").is_file() == (not says)
