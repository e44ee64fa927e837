"""GAIL and AIRL: inputs of the discriminator, rewards of the learner, checkpoints, and invalid settings."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from short_runs import QUICK, column, fails, run
from suites import arguments

from lit_imitation import Discriminator, load_policy, load_reward
from lit_imitation.cli import main
from lit_imitation.data.demonstrations import Demonstrations, write_demonstrations
from lit_imitation.envs import make
from lit_imitation.methods import GAIL, diagnostics
from lit_imitation.policies.checkpoints import read_checkpoint
from lit_imitation.rewards import AdversarialReward
from lit_imitation.rollout import collect

pytestmark = pytest.mark.integration


def recorded(env_id, episodes, path, seed=0):
    envs = make(env_id, 2, seed)
    envs.action_space.seed(seed)
    transitions = collect(envs, lambda observation: np.asarray(envs.action_space.sample()), episodes, seed)
    envs.close()
    write_demonstrations(path, Demonstrations(transitions, transitions.episode_returns(), {"env_id": env_id}))
    return transitions


@pytest.fixture
def watched(monkeypatch):
    """Records the minibatches of the discriminator and the modules that were trained."""
    seen, modules = [], []
    discriminate = GAIL.update_discriminator

    def watching(self, learner):
        modules.append(self)
        steps = self.discriminator_descent.steps
        self.discriminator_descent.steps = lambda *columns: (seen.append(columns), steps(*columns))[1]
        logged = discriminate(self, learner)
        self.discriminator_descent.steps = steps
        return logged

    monkeypatch.setattr(GAIL, "update_discriminator", watching)
    return seen, modules


def test_batch_is_half_expert_and_half_learner(watched, tmp_path):
    seen, modules = watched
    run("gail-continuous", tmp_path, "--model.replay_rounds=0")
    module = modules[0]
    expert = {tuple(row) for row in module.pairs.expert.observation.tolist()}
    for observation, action, *_, log_prob, place in seen:
        assert observation.shape[:2] == action.shape[:2] == (3, 64)
        assert place.shape == (3, 32)
        for batch in observation:
            rows = [tuple(row) in expert for row in batch.tolist()]
            assert all(rows[:32])
            assert not any(rows[32:])
        assert not log_prob.any()  # GAIL does not use it


@pytest.mark.slow
def test_replay_rounds_reuse_past_rounds(watched, tmp_path):
    seen, modules = watched
    run("gail-continuous", tmp_path, "--model.replay_rounds=2", "--data.rounds_per_epoch=5")
    rounds = modules[0].pairs.learner
    assert len(rounds) == 3
    assert [len(one.absorbing) for one in rounds] == [24 * 3] * 3  # steps × environments
    shown = {tuple(row) for batch in seen[-1][0] for row in batch[32:].tolist()}  # in the last round
    assert all(shown & {tuple(row) for row in one.observation.tolist()} for one in rounds)
    alone = tmp_path / "alone"
    run("gail-continuous", alone, "--model.replay_rounds=0", "--data.rounds_per_epoch=5")
    assert len(modules[-1].pairs.learner) == 1


@pytest.mark.grid(every=2)
@pytest.mark.parametrize("batch_size", [4, 512])
def test_airl_uses_log_probs_of_current_policy(watched, tmp_path, monkeypatch, batch_size):
    """Applies to expert actions and to past rounds, with fewer or more draws than rows; rewards use them too."""
    seen, modules = watched
    paid = []
    reward = AdversarialReward.reward

    def paying(self, transitions):
        paid.append(transitions.log_prob)
        return reward(self, transitions)

    monkeypatch.setattr(AdversarialReward, "reward", paying)
    run(
        "airl-discrete",
        tmp_path,
        "--model.learner.learning_rate=1e-12",
        "--model.learner.normalize_observations=false",
        f"--model.discriminator_batch_size={batch_size}",
    )
    policy = modules[0].policy
    observation, action, *_, log_prob, _ = seen[-1]
    head = policy.head(observation.flatten(0, 1))
    torch.testing.assert_close(policy.head_log_prob(head, action.flatten()), log_prob.flatten(), rtol=1e-4, atol=1e-4)
    assert paid
    assert all(one is not None and one.shape == (24, 3) for one in paid)
    paid.clear()
    run("airl-by-sac", tmp_path / "sac")
    assert paid
    assert all(one is None for one in paid)  # its entropy bonus replaces the term


@pytest.mark.slow
def test_airl_uses_clipped_actions_as_played(watched, tmp_path):
    seen, modules = watched
    run(
        "airl-continuous",
        tmp_path,
        "--model.learner.learning_rate=1e-12",
        "--model.learner.normalize_observations=false",
        "--model.learner.initial_std=2",
    )
    policy = modules[0].policy
    observation, action, *_, log_prob, _ = seen[-1]
    head, action = policy.head(observation.flatten(0, 1)), action.flatten(0, 1)
    beyond = (action != policy.clip(action)).any(-1)
    assert beyond.any()
    torch.testing.assert_close(policy.executed_log_prob(head, action), log_prob.flatten(), rtol=1e-4, atol=1e-4)
    assert ((policy.head_log_prob(head, action) - log_prob.flatten())[beyond].abs() > 0.1).any()


@pytest.mark.slow
def test_one_environment_suffices(tmp_path):
    for method in ("gail-continuous", "airl-discrete"):
        assert run(method, tmp_path / method, "--data.num_envs=1")["gradient_steps"] > 0


@pytest.mark.slow
def test_discriminator_adopts_normalizer_of_the_policy(watched, tmp_path, monkeypatch):
    _, modules = watched
    shared = []
    discriminate = GAIL.update_discriminator

    def comparing(self, learner):
        one, other = self.discriminator.features.encoder.standardize, self.policy.encoder.standardize
        shared.append(other.fitted and torch.equal(one.mean, other.mean))
        return discriminate(self, learner)

    monkeypatch.setattr(GAIL, "update_discriminator", comparing)
    run("gail-continuous", tmp_path)
    assert shared == [False, True, True]
    run("gail-continuous", tmp_path / "none", "--model.learner.normalize_observations=false")
    standardize = modules[-1].discriminator.features.encoder.standardize
    torch.testing.assert_close(standardize.mean, modules[-1].datamodule.train.observation.mean(0))


def test_every_round_logs_diagnostics(tmp_path):
    run("gail-continuous", tmp_path, "--data.expert_trajectories=4", "--data.val_fraction=0.25")
    for name in (
        "discriminator_loss",
        "discriminator_accuracy_expert",
        "discriminator_accuracy_learner",
        "discriminator_accuracy_held_out",
        "discriminator_logit_expert",
        "discriminator_logit_learner",
        "jensen_shannon",
        "reward_mean",
        "reward_std",
        "approx_kl",
        "entropy",
        "explained_variance",
    ):
        assert len(column(tmp_path, f"train/{name}")) == 3, name
    for name in ("mmd", "sliced_wasserstein"):  # once per epoch
        (value,) = column(tmp_path, f"train/{name}")
        assert 0 < value < 10


@pytest.mark.slow
def test_wasserstein_critic_logs_no_accuracy(tmp_path):
    critic = ["--model.discriminator.loss=wasserstein", "--model.discriminator.reward=logit"]
    run("gail-continuous", tmp_path, *critic, "--data.expert_trajectories=4", "--data.val_fraction=0.25")
    names = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert len(column(tmp_path, "train/discriminator_loss")) == 3
    assert len(column(tmp_path, "train/discriminator_logit_learner")) == 3
    assert "accuracy" not in names
    assert "jensen_shannon" not in names


@pytest.mark.slow
def test_saturated_discriminator_and_flat_rewards_warn(tmp_path, monkeypatch):
    monkeypatch.setattr(diagnostics, "PATIENCE", 3)
    data = recorded("Pendulum-v1", 4, tmp_path / "fast.npz")
    data.observation[:, 2] = 8.0  # faster than the learner ever spins
    write_demonstrations(tmp_path / "fast.npz", Demonstrations(data, data.episode_returns(), {}))
    fast = [f"--data.demonstrations={tmp_path / 'fast.npz'}", "--model.discriminator_learning_rate=0.003"]
    fast += [
        "--model.discriminator_steps=60",
        "--data.rounds_per_epoch=8",
        "--model.replay_rounds=0",
        "--model.discriminator.spectral_norm=false",
    ]
    with pytest.warns(UserWarning, match="told expert and learner apart without fail for 3 rounds"):
        run("gail-continuous", tmp_path, *fast, "--model.learner.normalize_observations=false")
    monkeypatch.setattr(diagnostics, "FLAT", 10.0)
    with pytest.warns(UserWarning, match="the rewards have been all the same for 3 rounds"):
        run("gail-continuous", tmp_path / "flat", "--data.rounds_per_epoch=5")


def test_reward_is_saved_and_loaded(tmp_path):
    run("airl-continuous", tmp_path)
    data = recorded("Pendulum-v1", 2, tmp_path / "some.npz")
    model = load_reward(tmp_path)
    state = read_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["state_dict"]
    torch.testing.assert_close(
        model.state_dict()["model.reward_network.layers.0.weight"], state["reward.reward_network.layers.0.weight"]
    )
    reward = model.reward(data)
    assert reward.shape == (len(data),)
    moved = data.clone()
    moved.action, moved.next_observation = -moved.action, moved.next_observation + 1
    assert torch.equal(model.reward(moved), reward)  # depends on the state only
    assert not reward.requires_grad
    run("gail-discrete", tmp_path / "gail")
    assert isinstance(load_reward(tmp_path / "gail").model, Discriminator)


@pytest.mark.slow
def test_learned_reward_can_train_another_policy(tmp_path, capsys):
    learned = tmp_path / "airl"
    run("airl-continuous", learned)
    given = [f"--model.reward={learned}"]
    for method in ("ppo-continuous", "sac-continuous"):
        run(method, tmp_path / method, *given)
        load_policy(tmp_path / method)
    state = read_checkpoint(tmp_path / "ppo-continuous" / "checkpoints" / "best.ckpt")["state_dict"]
    was = read_checkpoint(learned / "checkpoints" / "best.ckpt")["state_dict"]
    name = "reward_network.layers.0.weight"
    assert torch.equal(state[f"reward.model.{name}"], was[f"reward.{name}"])  # unchanged
    assert "was made for Box" in fails(capsys, "ppo-discrete", tmp_path / "other", *given)
    run("airl-continuous", tmp_path / "forever", "--model.discriminator.absorbing=true")
    forever = [f"--model.reward={tmp_path}/forever", "--model.learner.gamma=0.9"]
    said = fails(capsys, "ppo-continuous", tmp_path / "gamma", *forever)
    assert "discounted by its gamma 0.99; model.learner has gamma 0.9: set it to the reward's" in said
    assert "no learned reward" in fails(
        capsys, "ppo-continuous", tmp_path / "no", f"--model.reward={tmp_path}/ppo-continuous"
    )


@pytest.mark.slow
def test_load_from_checkpoint_needs_no_trainer(tmp_path):
    from lit_imitation import AIRL

    run("airl-continuous", tmp_path, "--model.learner.hidden_sizes=[64,64]")  # saved in the checkpoint
    module = AIRL.load_from_checkpoint(tmp_path / "checkpoints" / "best.ckpt")
    state = read_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["state_dict"]
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.slow
def test_start_initializes_policy_with_clone(tmp_path):
    clone = tmp_path / "clone"
    main(arguments("bc-continuous", clone, *QUICK))
    run("gail-continuous", tmp_path / "gail", f"--model.start={clone}", "--model.learner.learning_rate=1e-12")
    one, other = load_policy(clone).state_dict(), load_policy(tmp_path / "gail").state_dict()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("successors", [True, False])
@pytest.mark.parametrize("method", ["gail-discrete", "airl-discrete"])
def test_one_truncated_trajectory_suffices(method, successors, tmp_path):
    """One batch needs more pairs than there are, nothing is held out, and the file may lack successors."""
    file = tmp_path / "one.npz"
    data = recorded("CartPole-v1", 1, file)[:5]
    data.terminated[:], data.truncated[-1] = False, True
    if not successors:
        data.next_observation = None
    write_demonstrations(file, Demonstrations(data, data.episode_returns(), {"env_id": "CartPole-v1"}))
    summary = run(method, tmp_path / "run", f"--data.demonstrations={file}")
    assert summary["gradient_steps"] > 0


@pytest.mark.slow
def test_invalid_settings_are_refused_before_training(capsys, tmp_path):
    recorded("Pendulum-v1", 2, tmp_path / "pendulum.npz")
    said = fails(capsys, "gail-discrete", tmp_path, f"--data.demonstrations={tmp_path / 'pendulum.npz'}")
    assert "pendulum.npz" in said
    assert "no demonstrations" in fails(capsys, "gail-discrete", tmp_path, "--data.expert=")
    for data, more in (("RolloutDataModule", []), ("DemonstrationDataModule", ["--data.expert=scripted"])):
        bare = [f"--data=lit_imitation.{data}", "--data.env_id=CartPole-v1", *more]
        with pytest.raises(SystemExit):
            main(["fit", "--model=lit_imitation.GAIL", *bare, f"--trainer.default_root_dir={tmp_path}"])
        assert f"GAIL learns from demonstrations and rollouts; {data} has not both" in capsys.readouterr().err
    ends = recorded("CartPole-v1", 3, tmp_path / "ends.npz")
    ends.next_observation = None  # the last row of each episode is dropped
    write_demonstrations(tmp_path / "ends.npz", Demonstrations(ends, ends.episode_returns(), {}))
    lost = [f"--data.demonstrations={tmp_path / 'ends.npz'}", "--model.discriminator.absorbing=true"]
    said = fails(capsys, "gail-discrete", tmp_path, *lost)
    assert "3 of the demonstrated trajectories terminated, but the end of none" in said
    assert "or record next_observations" in said
    for argument, message in (
        ("--model.discriminator_batch_size=0", "model.discriminator_batch_size is 0"),
        ("--model.discriminator_steps=0", "model.discriminator_steps is 0; it must be at least 1"),
        ("--model.discriminator_learning_rate=0", "model.discriminator_learning_rate is 0"),
    ):
        assert message in fails(capsys, "gail-discrete", tmp_path, argument)
    two_gammas = "--model.learner.gamma=0.9"
    assert "discounts by gamma 0.9, model.discriminator by 0.99" in fails(capsys, "airl-discrete", tmp_path, two_gammas)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.grid(every=2)
@pytest.mark.parametrize(
    ("what", "message"),
    [("loss", "the discriminator loss is nan"), ("logits", "the discriminator logit expert is inf")],
)
def test_diverged_discriminator_stops_run_and_keeps_checkpoint(what, message, capsys, tmp_path, monkeypatch):
    """The loss can stay finite with infinite logits: it is 0 if they have the right sign."""
    count = []
    forward = Discriminator.forward

    def breaking(self, *columns):
        loss, statistics = forward(self, *columns)
        count.append(1)
        if len(count) > 12:
            loss = loss * float("nan") if what == "loss" else loss
            statistics[2] = float("inf") if what == "logits" else statistics[2]
        return loss, statistics

    monkeypatch.setattr(Discriminator, "forward", breaking)
    said = fails(capsys, "gail-continuous", tmp_path, "--trainer.max_epochs=3")
    assert re.search(rf"{message} after round 5 \([1-9]\d* environment steps\)", said)
    assert "last good checkpoint" in said
    load_policy(tmp_path)
    assert load_reward(tmp_path).model.network.layers[0].weight.isfinite().all()


def test_demonstrations_are_sampled_by_weight(watched, tmp_path):
    seen, modules = watched
    path = tmp_path / "weighted.npz"
    data = recorded("CartPole-v1", 8, path)
    often = torch.tensor([1, 5, 1, 0, 3, 1, 2, 1])
    data.weight = often.float()[data.episode_index()]
    write_demonstrations(path, Demonstrations(data, data.episode_returns(), {"env_id": "CartPole-v1"}))
    run("gail-discrete", tmp_path / "run", f"--data.demonstrations={path}", "--data.val_fraction=0",
        "--model.discriminator_batch_size=4096")  # fmt: skip
    lengths = data.episode_lengths() + data.episode_index()[data.terminated].bincount(minlength=8)  # absorbing too
    expected = often * lengths / (often * lengths).sum()
    owner = {tuple(row): int(e) for row, e in zip(data.observation.tolist(), data.episode_index(), strict=True)}
    drawn = [owner[tuple(row)] for row in seen[0][0][:, :4096].flatten(0, 1).tolist()]
    np.testing.assert_allclose(np.bincount(drawn, minlength=8) / len(drawn), expected, atol=0.02)
    assert 3 not in drawn
    assert len(modules[0].pairs.expert_weight) == len(modules[0].pairs.expert.absorbing)


def test_weighted_occupancy_equals_repeated_rows(watched, tmp_path, monkeypatch):
    _, modules = watched
    run("gail-discrete", tmp_path)
    monkeypatch.setattr(diagnostics, "OCCUPANCY", 64)
    encode = modules[0].discriminator.features.encoder, modules[0].action_features
    samples = modules[0].pairs.expert.rows(torch.arange(100))
    often = torch.randint(0, 4, (100,), generator=torch.Generator().manual_seed(0))
    repeated = samples.rows(torch.arange(100).repeat_interleave(often))
    expected = diagnostics.occupancy(repeated, None, *encode)
    weight = often / often.float().mean()
    assert torch.equal(diagnostics.occupancy(samples, weight, *encode), expected)
    assert not torch.equal(diagnostics.occupancy(samples, None, *encode), expected)


def test_return_temperature_weights_demonstrations(watched, tmp_path):
    seen, modules = watched
    path = tmp_path / "some.npz"
    data = recorded("CartPole-v1", 8, path)
    run("gail-discrete", tmp_path / "run", f"--data.demonstrations={path}", "--data.val_fraction=0",
        "--data.return_temperature=0.25")  # fmt: skip
    module = modules[0]
    returns = data.episode_returns()
    expected = torch.exp(returns / (0.25 * returns.std()))[data.episode_index()]
    found = module.pairs.expert_weight[: len(expected)].double()
    torch.testing.assert_close(found / found.sum(), expected / expected.sum(), rtol=1e-4, atol=1e-9)
    assert len(module.pairs.expert_weight) == len(module.pairs.expert.absorbing)
    drawn = [tuple(row) for row in seen[0][0][:, :32].flatten(0, 1).tolist()]
    best = {tuple(row) for row in data.observation[data.episode_index() == int(returns.argmax())].tolist()}
    assert np.mean([row in best for row in drawn]) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("rounds", "warns"), [(3, True), (21, False)])
def test_epoch_shorter_than_an_episode_warns(tmp_path, recwarn, rounds, warns):
    run("ppo-discrete", tmp_path, f"--data.rounds_per_epoch={rounds}")
    said = [str(one.message) for one in recwarn if "an epoch is" in str(one.message)]
    assert bool(said) == warns
    if warns:
        assert "an epoch is 72 steps" in said[0]
        assert "up to 500 steps" in said[0]
        assert "Set data.rounds_per_epoch to 21 or more" in said[0]


@pytest.mark.slow
def test_epoch_shorter_than_demonstrations_warns(tmp_path, recwarn):
    """Applies where the environment has no time limit."""
    data = recorded("counting:Counting-v0", 3, tmp_path / "some.npz")
    longest = int(data.episode_lengths().max())
    task = ["--data.env_id=counting:Counting-v0", f"--data.demonstrations={tmp_path / 'some.npz'}", "--data.expert="]
    run("gail-discrete", tmp_path / "run", *task, "--data.steps_per_round=1", "--data.eval_episodes=0",
        "--data.rounds_per_epoch=2", "--trainer.callbacks=null")  # fmt: skip
    (said,) = [str(one.message) for one in recwarn if "an epoch is" in str(one.message)]
    assert "an epoch is 2 steps" in said
    assert f"up to {longest} steps" in said


@pytest.mark.slow
def test_accumulation_and_schedule_of_the_discriminator_apply(watched, tmp_path):
    _, modules = watched
    options = ["--model.discriminator_optimization={accumulate_batches: 3, schedule: linear}", "--trainer.max_epochs=1"]
    run("gail-continuous", tmp_path, *options)
    descent = modules[-1].discriminator_descent
    assert descent.adam_steps == 3  # of three minibatches in each of three rounds
    assert 0 < descent.optimizer.param_groups[0]["lr"] < modules[-1].discriminator_learning_rate
