"""Methods in every kind of space: they train, save and act, or are refused with one message."""

from __future__ import annotations

from functools import partial

import counting  # noqa: F401 registers Spaces-v0
import gymnasium
import lightning
import numpy as np
import pytest
import torch
from gymnasium import spaces

import lit_imitation
from lit_imitation import DemonstrationDataModule, ImitationDataModule, RolloutDataModule, load_policy
from lit_imitation.envs import make
from lit_imitation.errors import ConfigError, UnsupportedSpaceError
from lit_imitation.rollout import collect

TOP = float(np.finfo(np.float32).max)
VECTOR, PAIR = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (2,), np.float32)
OBSERVATIONS = {
    "int32 box": spaces.Box(-5, 5, (3,), np.int32),
    "float16 box": spaces.Box(-1, 1, (3,), np.float16),
    "float64 box": spaces.Box(-0.1, 0.1, (3,), np.float64),
    "bytes": spaces.Box(0, 255, (7, 7, 3), np.uint8),
    "float image": spaces.Box(0, 1, (28, 28, 1), np.float32),
    "stack of images": spaces.Box(0, 255, (2, 28, 28), np.uint8),
    "discrete": spaces.Discrete(4, start=-2),
    "multi-discrete": spaces.MultiDiscrete([2, 3], start=[1, -1]),
    "multi-binary": spaces.MultiBinary([2, 2]),
    "dict": spaces.Dict(a=PAIR, b=spaces.Discrete(3), c=spaces.MultiBinary(2)),
    "dict with image": spaces.Dict(a=PAIR, b=spaces.Discrete(3, start=1), c=spaces.Box(0, 255, (28, 30, 3), np.uint8)),
    "tuple": spaces.Tuple([spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2)]),
}
ACTIONS = {
    "unbounded": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "from 0": spaces.Box(0, np.inf, (2,), np.float32),
    "up to 5": spaces.Box(-np.inf, 5, (2,), np.float32),
    "float32's largest": spaces.Box(-TOP, TOP, (2,), np.float32),
    "1e10": spaces.Box(-1e10, 1e10, (2,), np.float64),
    "float64 bounds": spaces.Box(-0.1, 0.1, (2,), np.float64),
    "float16": spaces.Box(-0.1, 0.1, (2,), np.float16),
    "matrix": spaces.Box(-2, 1, (2, 1), np.float32),
    "discrete": spaces.Discrete(3, start=5),
}
WIDE = ("unbounded", "from 0", "up to 5", "float32's largest", "1e10")
CASES = {f"obs {name}": (space, PAIR) for name, space in OBSERVATIONS.items()}
CASES |= {f"act {name}": (VECTOR, space) for name, space in ACTIONS.items()}
METHODS = ("bc", "deterministic", "ensemble", "ppo", "sac", "gail", "gail-sac", "airl", "gcl", "dagger")


def kwargs(observation_space, action_space):
    return {"observation_space": observation_space, "action_space": action_space}


def actor(action_space):
    """Actions of a few units, clipped to the bounds."""
    rng = np.random.default_rng(0)

    def act(observation):
        count = len(observation)
        if isinstance(action_space, spaces.Discrete):
            return action_space.start + rng.integers(action_space.n, size=count)
        drawn = rng.normal(size=(count, *action_space.shape))
        return np.clip(drawn, action_space.low.astype(np.float64), action_space.high.astype(np.float64))

    return act


def demonstrated(observation_space, action_space):
    from lit_imitation.experts import checked

    envs = make("Spaces-v0", 2, 0, **kwargs(observation_space, action_space))
    transitions = collect(envs, checked(actor(action_space), observation_space, action_space, "mine"), 6, 0)
    envs.close()
    return transitions


def fit(method, observation_space, action_space, directory):
    given = {"env_id": "Spaces-v0", "env_kwargs": kwargs(observation_space, action_space), "num_envs": 2}
    given |= {"eval_episodes": 0, "test_episodes": 2, "seed": 0}
    torch.manual_seed(0)
    ppo = partial(lit_imitation.PPO, epochs=1, hidden_sizes=[8])
    sac = partial(lit_imitation.SAC, learning_starts=8, batch_size=8, buffer_size=100, hidden_sizes=[8])
    small = {"hidden_sizes": [8]}
    callbacks = []
    rounds = {"env_steps": 24, "steps_per_round": 6, "rounds_per_epoch": 2}
    if method in ("bc", "deterministic", "ensemble", "dagger"):
        given["demonstrations"] = demonstrated(observation_space, action_space)
        data = DemonstrationDataModule(**given, batch_size=8)
        cls = {"deterministic": lit_imitation.DeterministicPolicy, "ensemble": lit_imitation.EnsemblePolicy}
        model = lit_imitation.BC(partial(cls[method], **small) if method in cls else None)
        if method == "dagger":
            callbacks = [lit_imitation.DAggerCallback(expert=actor(action_space), rounds=1, epochs_per_round=1)]
            data.eval_episodes = 2
    elif method in ("ppo", "sac"):
        data = RolloutDataModule(**given, **rounds)
        model = lit_imitation.RL(learner={"ppo": ppo, "sac": sac}[method])
    else:
        given["demonstrations"] = demonstrated(observation_space, action_space)
        data = ImitationDataModule(**given, **rounds)
        cls = {"gail": lit_imitation.GAIL, "airl": lit_imitation.AIRL, "gcl": lit_imitation.GCL}[method.split("-")[0]]
        model = cls(learner=sac if method.endswith("sac") else ppo)
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=directory,
        callbacks=callbacks,
    )
    trainer.fit(model, data)
    trainer.save_checkpoint(directory / "c.ckpt")
    return load_policy(directory / "c.ckpt")


# Every method in some spaces, and two methods in every space: all of both would take minutes.
SOME = ("obs multi-discrete", "obs dict", "obs int32 box", "act unbounded", "act float32's largest")
PAIRS = [(method, case) for method in METHODS for case in CASES if case in SOME or method in ("bc", "ppo")]
PAIRS += [("dagger", "act 1e10"), ("gail", "obs multi-binary"), ("gcl", "act from 0"), ("gail-sac", "act discrete")]
PAIRS += [("sac", "act float64 bounds"), ("airl", "obs float image"), ("dagger", "obs bytes"), ("sac", "act discrete")]
PAIRS += [("deterministic", "act up to 5"), ("ensemble", "act from 0"), ("deterministic", "act discrete")]
FAST = {("bc", "obs dict"), ("bc", "act float32's largest"), ("sac", "act unbounded"), ("ppo", "obs multi-discrete")}
FAST |= {("gail", "obs multi-binary"), ("dagger", "act unbounded")}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("method", "case"),
    [pytest.param(*pair, marks=pytest.mark.integration if pair in FAST else pytest.mark.slow) for pair in PAIRS],
)
def test_method_trains_and_acts_in_its_spaces(method, case, tmp_path):
    observation_space, action_space = CASES[case]
    needs_box = method in ("deterministic",) and isinstance(action_space, spaces.Discrete)
    if needs_box or (method.endswith("sac") and case.removeprefix("act ") in WIDE):
        text = "needs a Box action space" if needs_box else "finite bounds.*use GaussianPolicy, or rescale"
        with pytest.raises(UnsupportedSpaceError, match=text):
            fit(method, observation_space, action_space, tmp_path)
        return
    policy = fit(method, observation_space, action_space, tmp_path)
    assert all(value.isfinite().all() for value in policy.state_dict().values())
    env = gymnasium.make("Spaces-v0", **kwargs(observation_space, action_space))
    observation, _ = env.reset(seed=0)  # raw: a dictionary for a Dict space
    for deterministic in (True, False):
        action = policy(observation, deterministic)
        if isinstance(action_space, spaces.Discrete):
            assert type(action) is int
            assert action_space.contains(action)
        else:
            assert action_space.contains(action.astype(action_space.dtype))
            assert np.abs(action).max() < 100.0
        env.reset()
        env.step(action)


REFUSED = {
    "obs of shape ()": (spaces.Box(-1, 1, (), np.float32), PAIR, r"observation space .* has shape \[\]"),
    "obs of shape (0,)": (spaces.Box(-1, 1, (0,), np.float32), PAIR, r"observation space .* has shape \[0\]"),
    "act of shape ()": (VECTOR, spaces.Box(-1, 1, (), np.float32), r"action space .* has shape \[\]"),
    "act of shape (0,)": (VECTOR, spaces.Box(-1, 1, (2, 0), np.float32), r"action space .* has shape \[2, 0\]"),
    "act of MultiBinary": (VECTOR, spaces.MultiBinary(3), r"action space MultiBinary\(3\) is not supported"),
    "act of integers": (VECTOR, spaces.Box(0, 3, (2,), np.int64), r"is a Box of int64, which is not supported"),
    "act of Dict": (VECTOR, spaces.Dict(a=PAIR), r"action space Dict.* is not supported"),
    "obs of Text": (spaces.Text(3), PAIR, r"observation space Text.* is not supported"),
    "obs of Dict of Text": (spaces.Dict(a=spaces.Text(3)), PAIR, r"observation space Dict.*Text.* is not supported"),
    "obs of Sequence": (spaces.Sequence(PAIR), PAIR, r"observation space Sequence.* is not supported"),
    "obs of Graph": (spaces.Graph(PAIR, None), PAIR, r"observation space Graph.* is not supported"),
    "obs of an empty Dict": (spaces.Dict(), PAIR, r"observation space Dict\(\) is not supported"),
}


@pytest.mark.grid
@pytest.mark.parametrize("backend", ["auto", "sync", "async"])
@pytest.mark.parametrize("case", REFUSED)
def test_unsupported_space_is_refused_in_one_line(case, backend):
    observation_space, action_space, text = REFUSED[case]
    data = RolloutDataModule("Spaces-v0", env_kwargs=kwargs(observation_space, action_space), backend=backend)
    for use in (lambda: data.spaces, lambda: make("Spaces-v0", 2, 0, backend, **data.env_kwargs)):
        with pytest.raises(UnsupportedSpaceError, match=text) as caught:
            use()
        assert "\n" not in str(caught.value)
        assert "Spaces-v0" in str(caught.value)


@pytest.mark.slow
def test_wide_bounds_leave_cloning_unchanged(tmp_path):
    """The same demonstrations with bounds of ±1, ±1e4 and none give clones that act the same."""
    transitions = demonstrated(VECTOR, PAIR)
    acted = {}
    for bound in (1.0, 1e4, np.inf):
        space = spaces.Box(-bound, bound, (2,), np.float32)
        given = {"env_kwargs": kwargs(VECTOR, space), "eval_episodes": 0, "num_envs": 1, "seed": 0}
        data = DemonstrationDataModule("Spaces-v0", demonstrations=transitions, **given, batch_size=8, val_fraction=0.0)
        torch.manual_seed(0)
        trainer = lightning.Trainer(
            max_epochs=30,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        model = lit_imitation.BC()
        trainer.fit(model, data)
        acted[bound] = model.policy(transitions.observation).numpy()
    assert np.abs(acted[1.0] - acted[1e4]).max() < 0.2
    assert np.abs(acted[1e4] - acted[np.inf]).max() < 0.2


def test_impossible_initial_std_is_named():
    with pytest.raises(ConfigError, match=r"learner.initial_std: the standard deviation 9.0 is outside its range"):
        lit_imitation.PPO(VECTOR, PAIR, initial_std=9.0)
