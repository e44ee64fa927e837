"""RL: sources of the reward, starting policies, and invalid settings."""

from __future__ import annotations

import inspect
import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from lightning import Trainer
from suites import arguments
from torch.utils._python_dispatch import TorchDispatchMode

from lit_imitation import PPO, RL, RewardModel, RolloutDataModule, load_policy
from lit_imitation.cli import main
from lit_imitation.methods.rounds import RoundMethod
from lit_imitation.policies.checkpoints import read_checkpoint

pytestmark = pytest.mark.integration

QUICK = ["--trainer.max_epochs=1", "--data.test_episodes=4"]


class StayLeft(RewardModel):
    """Rewards only states left of the center."""

    seen: list = []  # noqa: RUF012 of the process

    def reward(self, transitions):
        self.seen.append(transitions.reward.clone())
        return -transitions.next_observation[..., 0]


def run(method, directory, *more):
    main(arguments(method, directory, *QUICK, *more))
    return json.loads((directory / "summary.json").read_text())


def fails(capsys, method, directory, *more):
    with pytest.raises(SystemExit) as stop:
        run(method, directory, *more)
    assert stop.value.code == 1
    return capsys.readouterr().err


def test_summary_counts_steps(tmp_path):
    summary = run("ppo-continuous", tmp_path, "--model.learner.batch_size=16", "--model.learner.epochs=2")
    rows = 3 * 24 * 3  # rounds, steps, environments
    assert summary["method"] == "ppo"
    assert summary["env_steps"] == rows  # none of Pendulum's 200-step episodes ends within an epoch of 72 steps
    assert summary["gradient_steps"] == 3 * 2 * (24 * 3 // 16)
    header, *lines = (tmp_path / "metrics.csv").read_text().splitlines()
    logged = [line for line in lines if line.split(",")[header.split(",").index("train/loss")]]
    assert len(logged) == 3  # one row per round


@pytest.mark.slow
def test_env_steps_set_the_number_of_epochs(tmp_path):
    more = ["--data.env_steps=600", "--trainer.check_val_every_n_epoch=3", "--trainer.max_epochs=-1"]
    assert run("ppo-continuous", tmp_path, *more)["env_steps"] == 3 * (3 * 24 * 3)


@pytest.mark.grid(every=3)
@pytest.mark.parametrize(
    ("limits", "rounds", "said"),
    [
        ({"max_epochs": 2}, 6, "trainer.max_epochs 2 ends the run after 432 environment steps, before data"),
        ({"max_epochs": 5}, 9, ""),
        ({"max_epochs": -1}, 9, ""),
        ({"max_epochs": None}, 9, ""),
        ({"max_epochs": 5, "max_steps": 4}, 4, "trainer.max_steps 4 ends the run after 288 environment steps"),
        ({"max_epochs": 1, "max_steps": 4}, 3, "trainer.max_epochs 1 ends the run after 216 environment steps"),
    ],
)
def test_first_limit_ends_run_and_annealing(limits, rounds, said, tmp_path, monkeypatch):
    """The learning rate falls linearly over the rounds up to the first limit."""
    progress, lines, update = [], [], PPO.update
    monkeypatch.setattr(PPO, "update", lambda self, *given: (progress.append(given[1]), update(self, *given))[1])
    monkeypatch.setattr("lit_imitation.data.rollout_module.rank_zero_info", lines.append)
    data = RolloutDataModule(
        "Pendulum-v1", env_steps=600, steps_per_round=24, rounds_per_epoch=3, num_envs=3, eval_episodes=0
    )
    trainer = fitted(RL(partial(PPO, epochs=1)), data, tmp_path, **limits)
    assert progress == [i / rounds for i in range(rounds)]
    assert len(lines) == bool(said)
    assert said in "".join(lines)
    assert trainer.max_epochs == (limits["max_epochs"] or 1000)


@pytest.mark.slow
def test_env_steps_may_exceed_lightnings_default_epochs(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr("lit_imitation.data.rollout_module.rank_zero_info", lines.append)
    data = RolloutDataModule(
        "Pendulum-v1", env_steps=1002, steps_per_round=1, rounds_per_epoch=1, num_envs=1, eval_episodes=0
    )
    model = RL(partial(PPO, epochs=1, batch_size=1))
    assert fitted(model, data, tmp_path, max_epochs=None).global_step == 1002
    assert lines == [
        "data.env_steps 1002 ends the run after 1002 epochs; trainer.max_epochs 1000, Lightning's default, does not"
    ]


def fitted(model, data, directory, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", default_root_dir=directory, enable_checkpointing=False, **quiet, **options)
    trainer.fit(model, data)
    return trainer


@pytest.mark.slow
def test_reward_model_replaces_environment_reward(tmp_path):
    StayLeft.seen.clear()
    more = ["--model.reward=methods.test_rl.StayLeft", "--data.steps_per_round=256", "--data.rounds_per_epoch=12"]
    more += [
        "--model.learner.learning_rate=3e-3",
        "--model.learner.optimization.schedule=constant",
        "--model.learner.epochs=5",
    ]
    more += ["--model.learner.batch_size=64"]
    summary = run("ppo-discrete", tmp_path, *more)
    assert all((reward <= 1.0).all() for reward in StayLeft.seen)  # the environment's reward was not replaced in place
    assert summary["return_mean"] >= 8  # the environment's return is reported
    policy = load_policy(tmp_path)
    from lit_imitation.envs import make
    from lit_imitation.rollout import collect

    envs = make("CartPole-v1", 8, 0)
    data = collect(envs, policy.actor(deterministic=False), 40, 0)
    envs.close()
    torch.manual_seed(0)
    # CartPole itself gives no reason to go left: by chance half of all episodes would end there.
    assert float((data.next_observation[data.done, 0] < 0).float().mean()) > 0.9


@pytest.mark.slow
def test_start_initializes_policy_and_file_may_be_deleted(tmp_path):
    clone, tuned = tmp_path / "clone", tmp_path / "tuned"
    main(arguments("bc-continuous", clone, "--trainer.max_epochs=2", "--model.policy.dropout=0"))
    start = load_policy(clone).state_dict()
    fine = ["fit", "--model=lit_imitation.RL", f"--model.start={clone}", "--model.learner=lit_imitation.PPO"]
    fine += ["--model.learner.warmup_rounds=2", "--model.learner.kl_coefficient=0.1"]
    fine += ["--data=lit_imitation.RolloutDataModule", "--data.env_id=Pendulum-v1", "--data.num_envs=2"]
    fine += ["--data.steps_per_round=16", "--data.rounds_per_epoch=2", "--data.test_episodes=2"]
    fine += ["--data.eval_episodes=2", "--trainer.accelerator=cpu", f"--trainer.default_root_dir={tuned}"]
    main([*fine, "--trainer.max_epochs=1"])
    warm = load_policy(tuned).state_dict()
    assert all(torch.equal(warm[name], start[name]) for name in start)  # only the value function was trained so far
    shutil.rmtree(clone)
    main([*fine, "--trainer.max_epochs=2", "--ckpt_path=last"])
    moved = load_policy(tuned).state_dict()
    changed = {name for name in start if not torch.equal(moved[name], start[name])}
    assert changed
    assert not any("standardize" in name for name in changed)
    kept = read_checkpoint(tuned / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(torch.equal(kept[f"learner.start.{name}"], start[name]) for name in start)
    main(["test", f"--ckpt_path={tuned}", f"--trainer.default_root_dir={tuned}"])
    main(["predict", f"--ckpt_path={tuned}", f"--trainer.default_root_dir={tuned}"])
    assert np.load(tuned / "trajectories.npz")["observations"].shape[1] == 3


@pytest.mark.slow
def test_multi_discrete_clone_can_be_fine_tuned(tmp_path):
    """Demonstrations are collected, a policy is cloned, and PPO improves the clone."""
    clone, tuned = tmp_path / "clone", tmp_path / "tuned"
    data = ["--data.env_id=multi_discrete:MatchTargets-v0", "--data.test_episodes=8", "--data.eval_episodes=0"]
    bc = ["fit", "--model=lit_imitation.BC", "--data=lit_imitation.DemonstrationDataModule", *data]
    bc += ["--data.expert=multi_discrete:expert", "--data.num_trajectories=20", "--trainer.max_epochs=20"]
    main([*bc, "--trainer.accelerator=cpu", f"--trainer.default_root_dir={clone}"])
    cloned = json.loads((clone / "summary.json").read_text())["return_mean"]
    assert cloned > 0.7 * 8
    policy = load_policy(clone)
    assert type(policy).__name__ == "MultiCategoricalPolicy"
    rl = ["fit", "--model=lit_imitation.RL", f"--model.start={clone}", "--data=lit_imitation.RolloutDataModule", *data]
    rl += ["--data.rounds_per_epoch=4", "--data.steps_per_round=64", "--trainer.max_epochs=1"]
    main([*rl, "--trainer.accelerator=cpu", f"--trainer.default_root_dir={tuned}"])
    assert json.loads((tuned / "summary.json").read_text())["return_mean"] > 0.7 * 8


class Reads(TorchDispatchMode):
    """Counts operations that copy a value from the device to the host."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.is_nonzero)
        return func(*args, **(kwargs or {}))


def test_round_reads_from_device_once(tmp_path, monkeypatch):
    """The one read is `tolist` of the counts, which bypasses the dispatcher and is counted by name."""
    reads, lists = [], []
    step, tolist = RL.training_step, torch.Tensor.tolist

    def counted(self, batch, batch_idx):
        lists.append(0)
        # The logger reads numbers that are already on the host, or waits until the end of the round.
        monkeypatch.setattr(self, "log_dict", lambda *args, **kwargs: None)
        with Reads() as mode:
            step(self, batch, batch_idx)
        reads.append(mode.count)

    def listed(tensor):
        lists[-1:] = [lists[-1] + 1] if lists else []
        return tolist(tensor)

    counted.__signature__ = inspect.signature(step)
    monkeypatch.setattr(RL, "training_step", counted)
    monkeypatch.setattr(torch.Tensor, "tolist", listed)
    run("ppo-continuous", tmp_path, "--data.eval_episodes=0", "--trainer.callbacks=null")
    assert reads == [0, 0, 0]
    assert lists == [1, 1, 1]


def test_start_for_other_spaces_is_refused(tmp_path, capsys):
    main(arguments("bc-discrete", tmp_path / "clone", "--trainer.max_epochs=1"))
    fit = ["fit", "--model=lit_imitation.RL", f"--model.start={tmp_path / 'clone'}", "--trainer.accelerator=cpu"]
    fit += ["--data=lit_imitation.RolloutDataModule", "--data.env_id=Pendulum-v1"]
    with pytest.raises(SystemExit):
        main([*fit, f"--trainer.default_root_dir={tmp_path / 'run'}"])
    assert "was made for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--trainer.gradient_clip_val=1.0"],
            "set model.learner.optimization.max_grad_norm 1.0 in place of",
        ),
        (["--data.steps_per_round=0"], "data.steps_per_round is 0"),
        (["--model.start=somewhere", "--model.policy=lit_imitation.GaussianPolicy"], "leave one out"),
        (["--model.learner.gae_lambda=2"], "learner.gae_lambda is 2.0"),
    ],
)
def test_invalid_settings_are_refused(more, message, tmp_path, capsys):
    assert message in fails(capsys, "ppo-continuous", tmp_path, *more)


def test_demonstration_data_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(arguments("bc-continuous", tmp_path, "--model=lit_imitation.RL", "--trainer.max_epochs=1"))
    assert "RL learns from rollouts" in capsys.readouterr().err


def test_infinite_loss_ends_run_and_keeps_checkpoint(tmp_path, capsys):
    run("ppo-continuous", tmp_path)
    before = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    more = ["--model.learner.learning_rate=1e30", "--trainer.max_epochs=3", "--ckpt_path=last"]
    message = fails(capsys, "ppo-continuous", tmp_path, *more)
    assert "not finite" in message or "the loss is" in message
    assert "last good checkpoint" in message
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == before


def test_learning_rate_anneals_to_zero(tmp_path, monkeypatch):
    """Counted over the rounds of all epochs: round k of n uses 1 - k/n of the rate."""
    rates = []
    update = PPO.update

    def noting(self, experience, progress):
        logged = update(self, experience, progress)
        rates.append(self.descent.optimizer.param_groups[0]["lr"])
        return logged

    monkeypatch.setattr(PPO, "update", noting)
    run("ppo-discrete", tmp_path, "--model.learner.learning_rate=0.01", "--trainer.max_epochs=2")
    np.testing.assert_allclose(rates, [0.01 * (1 - k / 6) for k in range(6)])


@pytest.mark.slow
def test_warm_up_is_skipped_for_fresh_policy(tmp_path, monkeypatch):
    moved = []
    update = PPO.update

    def noting(self, experience, progress):
        before = [parameter.detach().clone() for parameter in self.policy.parameters()]
        logged = update(self, experience, progress)
        moved.append(any(not torch.equal(a, b) for a, b in zip(before, self.policy.parameters(), strict=True)))
        return logged

    monkeypatch.setattr(PPO, "update", noting)
    warm = "--model.learner.warmup_rounds=2"
    own = ["--model.policy=lit_imitation.CategoricalPolicy", "--model.policy.hidden_sizes=[8]"]
    run("ppo-discrete", tmp_path / "own", warm, *own)
    run("ppo-discrete", tmp_path / "default", warm)
    assert moved == [True] * 6
    moved.clear()
    run("ppo-discrete", tmp_path / "started", warm, f"--model.start={tmp_path / 'own'}")
    assert moved == [False, False, True]


@pytest.mark.grid(every=5)
@pytest.mark.parametrize(
    "method", ["sac-continuous", "ppo-continuous", "gail-continuous", "airl-discrete", "gcl-by-sac"]
)
def test_bf16_run_updates_in_float32(method, tmp_path, monkeypatch):
    """Results are bit-identical to those without autocast."""
    ends = {}
    fit_end = RoundMethod.on_fit_end
    for precision in ("32-true", "bf16-mixed"):

        def noting(self, precision=precision):
            ends[precision] = {name: value.clone() for name, value in self.state_dict().items()}
            fit_end(self)

        monkeypatch.setattr(RoundMethod, "on_fit_end", noting)
        run(method, tmp_path / precision, f"--trainer.precision={precision}", "--data.eval_episodes=0",
            "--trainer.callbacks=null")  # fmt: skip
    for name, value in ends["32-true"].items():
        assert torch.equal(ends["bf16-mixed"][name], value), name
