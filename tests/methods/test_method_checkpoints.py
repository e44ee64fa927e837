"""Methods loaded from checkpoints, and settings that a resumed run changes."""

from __future__ import annotations

import re
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from lightning import Trainer
from suites import arguments, every_method

from lit_imitation import (
    AIRL,
    BC,
    GAIL,
    GCL,
    PPO,
    RL,
    SAC,
    CategoricalPolicy,
    DemonstrationDataModule,
    DeterministicPolicy,
    Discriminator,
    GaussianPolicy,
    ImitationDataModule,
    LinearReward,
    MaxEntIRL,
    RolloutDataModule,
    TabularDataModule,
    load_policy,
    load_reward,
)
from lit_imitation.cli import main
from lit_imitation.errors import ConfigError, LitImitationError
from lit_imitation.experts import load_expert
from lit_imitation.methods import Method
from lit_imitation.optim.optimization import Optimization
from lit_imitation.policies.checkpoints import read_checkpoint
from lit_imitation.training.lightning_cli import CLI

pytestmark = pytest.mark.integration

COUNTERS = {"env_steps", "rounds", "gradient_steps", "training", "trained", "keeps_normalizer", "source", "fresh"}


def settings(module):
    """Every plain attribute of all parts, except counters."""
    plain = (int, float, bool, str, type(None))

    def scalars(value):
        return all(map(scalars, value)) if isinstance(value, list | tuple) else type(value) in plain

    own = [(name, part) for name, part in module.named_modules() if type(part).__module__.startswith("lit_imitation.")]
    return {
        f"{name}.{key}": list(value) if isinstance(value, tuple) else value
        for name, part in own
        for key, value in vars(part).items()
        if scalars(value) and not key.startswith(("_", "on_")) and key not in COUNTERS and "statistics" not in name
    }


def outcome(file):
    checkpoint = torch.load(file, weights_only=True)
    weights = {key: value.numpy().tobytes() for key, value in checkpoint["state_dict"].items()}
    keys = ("optimizer_states", "random_states", "global_step", "env_steps", "method", "policy")
    return weights | {key: str(checkpoint[key]) for key in keys}


@pytest.mark.parametrize("method", every_method({"bc-discrete", "gail-discrete"}))
def test_loaded_method_is_identical_and_trains_identically(method, tmp_path, monkeypatch):
    """Equals the uninterrupted run, which `test_resume` compares with a resumed one."""
    last, first = tmp_path / "checkpoints" / "last.ckpt", tmp_path / "checkpoints" / "first.ckpt"
    models = []
    prepare = CLI._prepare_subcommand_kwargs

    def prepared(self, subcommand):
        kwargs = prepare(self, subcommand)
        if models:
            self.model = kwargs["model"] = Method.load_from_checkpoint(first)
        models.append(kwargs["model"])
        return kwargs

    monkeypatch.setattr(CLI, "_prepare_subcommand_kwargs", prepared)
    keep = ["--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint", "--trainer.callbacks.filename={epoch}"]
    keep += ["--trainer.callbacks.save_top_k=-1", "--trainer.callbacks.every_n_epochs=1"]
    keep += ["--trainer.callbacks.save_on_train_epoch_end=true", f"--trainer.callbacks.dirpath={tmp_path / 'each'}"]
    line = arguments(method, tmp_path, "--trainer.max_epochs=2", "--data.test_episodes=3", *keep)
    main(line)
    wanted = outcome(last)
    shutil.copy(tmp_path / "each" / "epoch=0.ckpt", first)
    main([*line, f"--ckpt_path={first}"])
    original, loaded = models
    assert type(loaded) is type(original)
    assert settings(loaded) == settings(original)
    assert loaded.description() == read_checkpoint(first)["method"]
    found = outcome(last)
    for key, value in wanted.items():
        assert found[key] == value, key


# Loading in Python

ROUNDS = {"rounds_per_epoch": 2, "steps_per_round": 16, "num_envs": 2, "eval_episodes": 0}


def shown(env_id="Pendulum-v1"):
    return DemonstrationDataModule(env_id, expert="scripted", num_trajectories=2, eval_episodes=0, seed=0)


def played(env_id="Pendulum-v1"):
    return RolloutDataModule(env_id, seed=0, **ROUNDS)


def both(env_id="Pendulum-v1", **more):
    return ImitationDataModule(env_id, expert="scripted", expert_trajectories=2, seed=0, **ROUNDS, **more)


def frozen_lake():
    return TabularDataModule("FrozenLake-v1", expert_trajectories=4, steps_per_trajectory=5, eval_episodes=0, seed=0)


def fit(model, data, directory, resume=None, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = {"max_epochs": 1, "enable_checkpointing": False, **options}
    trainer = Trainer(accelerator="cpu", default_root_dir=directory, num_sanity_val_steps=0, **quiet, **options)
    trainer.fit(model, data, ckpt_path=resume, weights_only=True if resume else None)
    return trainer


def saved(model, data, file):
    fit(model, data, file.parent).save_checkpoint(file)
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Checkpoints of several methods."""
    directory = tmp_path_factory.mktemp("trained")
    ppo = partial(PPO, epochs=1)
    return {
        "bc": saved(BC(), shown("CartPole-v1"), directory / "bc.ckpt"),
        "gail": saved(GAIL(learner=ppo), both("CartPole-v1"), directory / "gail.ckpt"),
        "pendulum": saved(BC(), shown(), directory / "pendulum.ckpt"),
        "ppo": saved(RL(ppo), played("CartPole-v1"), directory / "ppo.ckpt"),
    }


def a_policy(observation_space, action_space):
    return GaussianPolicy(observation_space, action_space, hidden_sizes=[np.int64(5)])


class OwnBC(BC):
    """A user's method with one more argument."""

    def __init__(self, extra, **more):
        super().__init__(**more)
        self.extra = extra


def test_own_factories_and_classes_are_restored(tmp_path):
    model = OwnBC(np.arange(3), policy=lambda *spaces: a_policy(*spaces), learning_rate=torch.tensor(3e-3))
    file = saved(model, shown(), tmp_path / "c.ckpt")
    with pytest.raises(ConfigError, match=r"names .*test_method_checkpoints\.OwnBC, which is not part of"):
        BC.load_from_checkpoint(file)
    loaded = BC.load_from_checkpoint(file, trust=True)
    assert type(loaded) is OwnBC
    assert type(loaded.learning_rate) is float
    np.testing.assert_array_equal(loaded.extra, [0, 1, 2])
    assert loaded.policy.network.layers[0].weight.shape == (5, 3)
    assert loaded.description() == model.description()
    assert OwnBC.load_from_checkpoint(file, extra=7, learning_rate=0.5).learning_rate == 0.5
    with pytest.raises(ConfigError, match=r"is of OwnBC with GaussianPolicy on Pendulum-v1, which does not fit"):
        OwnBC.load_from_checkpoint(file, policy=GaussianPolicy)


@pytest.mark.grid(every=2)
@pytest.mark.parametrize("part", ["reward", "discriminator", "learner", "policy"])
def test_own_part_resumes_and_loads_without_trust(part, tmp_path):
    """The caller passes the class, which may be one that a file cannot name."""
    method, base, data = {
        "reward": (MaxEntIRL, LinearReward, frozen_lake),
        "discriminator": (GAIL, Discriminator, lambda: both("CartPole-v1")),
        "learner": (GAIL, PPO, lambda: both("CartPole-v1")),
        "policy": (BC, CategoricalPolicy, lambda: shown("CartPole-v1")),
    }[part]

    class Own(base):
        pass

    def make():
        return method(**{part: Own})

    first = fit(make(), data(), tmp_path)
    first.save_checkpoint(tmp_path / "c.ckpt")
    resumed = make()
    assert fit(resumed, data(), tmp_path, tmp_path / "c.ckpt", max_epochs=2).current_epoch == 2
    assert type(getattr(resumed, part)) is Own
    loaded = method.load_from_checkpoint(tmp_path / "c.ckpt", **{part: Own})
    for name, value in first.lightning_module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    with pytest.raises(ConfigError, match=r"<locals>.Own, which is not part of this package"):
        method.load_from_checkpoint(tmp_path / "c.ckpt")


@pytest.mark.slow
@pytest.mark.grid
@pytest.mark.parametrize("learner", [PPO, SAC])
@pytest.mark.parametrize("start", ["fresh", "factory", "checkpoint"])
def test_source_of_the_policy_is_restored(learner, start, trained, tmp_path):
    """The source decides on divergence references, normalizers and random steps; its file may be deleted."""
    given = {"fresh": {}, "factory": {"policy": a_policy}, "checkpoint": {"start": str(tmp_path / "start.ckpt")}}[start]
    if start == "checkpoint":
        shutil.copy(trained["pendulum"], tmp_path / "start.ckpt")
    more = {"normalize_observations": True, "kl_coefficient": 0.1, "gamma": 0.9, "hidden_sizes": np.array([8])}
    model = RL(lambda *spaces: learner(*spaces, **more), **given)
    file = saved(model, played(), tmp_path / "c.ckpt")
    (tmp_path / "start.ckpt").unlink(missing_ok=True)
    loaded = RL.load_from_checkpoint(tmp_path / "c.ckpt")
    assert (loaded.learner.start is None) == (start != "checkpoint")
    assert (loaded.learner.moments is None) == (learner is SAC and start == "checkpoint")
    assert settings(loaded) == settings(model)
    fit(loaded, played(), tmp_path, resume=file, max_epochs=2)


def test_reward_of_another_run_is_restored_without_its_file(tmp_path):
    reward = saved(AIRL(learner=partial(PPO, epochs=1)), both(), tmp_path / "airl.ckpt")
    model = RL(partial(PPO, epochs=1), reward=str(reward))
    file = saved(model, played(), tmp_path / "c.ckpt")
    reward.unlink()
    loaded = RL.load_from_checkpoint(file)
    assert settings(loaded.reward) == settings(model.reward)
    for name, value in loaded.reward.state_dict().items():
        assert torch.equal(value, model.reward.state_dict()[name]), name


# Settings on resumption


def rates(trainer):
    return [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]


RATES = {
    "bc": (lambda rate: BC(learning_rate=rate), shown),
    "ppo": (lambda rate: RL(partial(PPO, epochs=1, learning_rate=rate, optimization=Optimization())), played),
    "ppo-annealed": (lambda rate: RL(partial(PPO, epochs=1, learning_rate=rate)), played),
    "sac": (lambda rate: RL(partial(SAC, learning_starts=30, updates_per_step=0.1, learning_rate=rate)), played),
    "gail": (lambda rate: GAIL(learner=partial(PPO, epochs=1), discriminator_learning_rate=rate), both),
    "gcl": (
        lambda rate: GCL(learner=partial(PPO, epochs=1), reward_learning_rate=rate),
        lambda: both(env_kwargs={"max_episode_steps": 8}),
    ),
    "maxent": (lambda rate: MaxEntIRL(learning_rate=rate), frozen_lake),
}


@pytest.mark.slow
@pytest.mark.grid(every=3)
@pytest.mark.parametrize("method", RATES)
def test_learning_rate_set_on_resumption_applies_and_is_shown(method, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr("lit_imitation.methods.checkpoints.rank_zero_info", lines.append)
    make, data = RATES[method]
    file = saved(make(1e-3), data(), tmp_path / "c.ckpt")
    found = rates(fit(make(1e-3), data(), tmp_path, resume=file, max_epochs=2))
    assert lines == []
    changed = rates(fit(make(1e-5), data(), tmp_path, resume=file, max_epochs=2))
    assert len(lines) == 1
    assert "learning_rate 0.001 -> 1e-05" in lines[0]
    factors = [1.0 if one == other else other / one for one, other in zip(found, changed, strict=True)]
    learners = method in ("gail", "gcl")  # the learner's rate stays
    np.testing.assert_allclose(factors, [1.0, 0.01] if learners else [0.01] * len(found))


def test_annealing_set_off_on_resumption_ends(tmp_path):
    make = lambda schedule: RL(  # noqa: E731
        partial(PPO, epochs=1, learning_rate=1e-3, optimization=Optimization(schedule=schedule))
    )
    file = saved(make("linear"), played(), tmp_path / "c.ckpt")
    assert torch.load(file, weights_only=True)["optimizer_states"][0]["param_groups"][0]["lr"] == 5e-4
    assert rates(fit(make("constant"), played(), tmp_path, resume=file, max_epochs=2)) == [1e-3]


class Decayed(BC):
    """A method with a user's optimizer."""

    def __init__(self, decay=0.0, beta=0.9, **more):
        super().__init__(**more)
        self.decay, self.beta = decay, beta

    def build_optimizer(self, parameters):
        return torch.optim.AdamW(parameters, self.learning_rate, (self.beta, 0.999), weight_decay=self.decay)


def test_decay_and_betas_set_on_resumption_apply(tmp_path):
    trainer = fit(Decayed(learning_rate=1e-3), shown(), tmp_path, max_epochs=3)
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    model = Decayed(decay=0.1, beta=0.5, learning_rate=8e-3)
    resumed = fit(model, shown(), tmp_path, resume=tmp_path / "c.ckpt", max_epochs=4)
    group = resumed.optimizers[0].param_groups[0]
    assert (group["weight_decay"], group["betas"], group["lr"]) == (0.1, (0.5, 0.999), 8e-3)


def test_schedule_set_on_resumption_applies(tmp_path):
    def model(schedule):
        return BC(learning_rate=1e-3, optimization=Optimization(schedule=schedule))

    file = saved(model("linear"), shown(), tmp_path / "c.ckpt")
    assert rates(fit(model("constant"), shown(), tmp_path, resume=file, max_epochs=2)) == [1e-3]
    assert 0 < rates(fit(model("linear"), shown(), tmp_path, resume=file, max_epochs=2))[0] < 5e-4


def test_constant_temperature_set_on_resumption_applies(tmp_path):
    def make(value):
        return RL(partial(SAC, learning_starts=1000, learn_temperature=False, temperature=value))

    file = saved(make(0.5), played(), tmp_path / "c.ckpt")
    resumed = make(0.125)
    fit(resumed, played(), tmp_path, resume=file, max_epochs=2)
    assert float(resumed.learner.temperature()) == pytest.approx(0.125)


# Other checkpoints

GAIL_ON_CARTPOLE = r"gail\.ckpt is of GAIL with CategoricalPolicy on CartPole-v1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "make", "data", "message"),
    [
        (
            "gail",
            BC,
            lambda: shown("CartPole-v1"),
            rf"{GAIL_ON_CARTPOLE}; this run is BC with CategoricalPolicy on Car",
        ),
        ("gail", BC, shown, rf"{GAIL_ON_CARTPOLE}; this run is BC with GaussianPolicy on Pendulum-v1"),
        (
            "bc",
            lambda: BC(CategoricalPolicy),
            lambda: shown("Acrobot-v1"),
            r"on CartPole-v1; this run is BC .* on Acrobot",
        ),
        (
            "pendulum",
            lambda: BC(DeterministicPolicy),
            shown,
            r"BC with GaussianPolicy .* is BC with DeterministicPolicy",
        ),
        (
            "bc",
            lambda: BC(partial(CategoricalPolicy, hidden_sizes=[8])),
            lambda: shown("CartPole-v1"),
            r"policy.hidden_sizes \(256, 256\) -> \[8\]",
        ),
        ("ppo", lambda: RL(SAC), lambda: played("CartPole-v1"), r"RL by PPO with .*; this run is RL by SAC with"),
        ("ppo", lambda: GAIL(learner=PPO), lambda: both("CartPole-v1"), r"RL by PPO with .*; this run is GAIL with"),
        ("bc", MaxEntIRL, frozen_lake, r"bc.ckpt is of BC with .*; this run is MaxEntIRL with"),
    ],
)
@pytest.mark.parametrize("stage", ["fit", "test"])
def test_checkpoint_without_a_method_is_refused(stage, file, make, data, message, trained, tmp_path):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", default_root_dir=tmp_path, max_epochs=1, enable_checkpointing=False, **quiet)
    with pytest.raises(ConfigError, match=message) as caught:
        getattr(trainer, stage)(make(), datamodule=data(), ckpt_path=trained[file], weights_only=True)
    assert "\n" not in str(caught.value)


def test_checkpoint_without_the_part_is_refused(trained, tmp_path):
    def fails(message, call):
        with pytest.raises(LitImitationError, match=message):
            call()

    gail, bc = str(trained["gail"]), str(trained["bc"])
    fails(rf"{GAIL_ON_CARTPOLE}; GAIL.load_from_checkpoint", lambda: BC.load_from_checkpoint(gail))
    fails(r"bc.ckpt is of BC with CategoricalPolicy on CartPole-v1 and contains no learned", lambda: load_reward(bc))
    fails(rf"model.start: .*{GAIL_ON_CARTPOLE}; it was made for", lambda: fit(RL(start=gail), played(), tmp_path))
    fails(rf"model.reward: .*{GAIL_ON_CARTPOLE}; it was made", lambda: fit(RL(reward=gail), played(), tmp_path))
    spaces = load_policy(trained["pendulum"]).observation_space, load_policy(trained["pendulum"]).action_space
    name = f"checkpoint:{gail}"
    fails(rf"expert checkpoint:.* reads Box.*; .*{GAIL_ON_CARTPOLE}", lambda: load_expert(name, "Pendulum-v1", *spaces))
    torch.save({"state_dict": {}, "epoch": 1}, tmp_path / "other.ckpt")
    other = tmp_path / "other.ckpt"
    fails(
        "other.ckpt is not a checkpoint of a method of this package: it lacks 'method'",
        lambda: BC.load_from_checkpoint(other),
    )
    fails("other.ckpt is of no method of this package", lambda: load_reward(other))


def test_missing_class_is_named_by_its_path(trained, tmp_path):
    checkpoint = torch.load(trained["bc"], weights_only=True)
    checkpoint["method"]["class"] = "my.methods.Clone"
    torch.save(checkpoint, tmp_path / "c.ckpt")
    with pytest.raises(ConfigError, match=re.escape("names my.methods.Clone, which is not part of this package")):
        BC.load_from_checkpoint(tmp_path / "c.ckpt")
    with pytest.raises(ConfigError, match=re.escape("names my.methods.Clone, which cannot be imported")):
        BC.load_from_checkpoint(tmp_path / "c.ckpt", trust=True)
