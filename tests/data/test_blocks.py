"""Blocks: every row once a pass, shared out over processes, resumed where the epoch was left."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_imitation.data.blocks import LONGEST, Blocks
from lit_imitation.errors import ConfigError
from lit_imitation.transitions import Transitions


def trainer(epoch, rank=0, world_size=1):
    """What `Blocks` asks of a Trainer."""
    return SimpleNamespace(
        current_epoch=epoch,
        global_rank=rank,
        world_size=world_size,
        limit_train_batches=1.0,
        max_steps=-1,
        checkpoint_callbacks=[],
        lightning_module=SimpleNamespace(accumulate_batches=1),
    )


def numbers(n: int) -> Transitions:
    """Transitions `[n]`, identified by their reward."""
    return Transitions(
        observation=torch.arange(n)[:, None].float(),
        action=torch.arange(n),
        reward=torch.arange(n).float(),
        terminated=torch.ones(n, dtype=torch.bool),
        truncated=torch.zeros(n, dtype=torch.bool),
        batch_size=[n],
    )


def epoch_of(blocks: Blocks) -> list[list[int]]:
    """The rows of each minibatch."""
    return [batch.action.tolist() for block in blocks for batch in block]


SIZES = {"n": st.integers(1, 60), "size": st.integers(1, 70), "passes": st.integers(1, 3), "epoch": st.integers(0, 5)}


@settings(deadline=None, max_examples=60)
@given(**SIZES)
def test_pass_uses_each_index_at_most_once(n, size, passes, epoch):
    batches = Blocks(numbers(n), size, passes, 0, trainer(epoch))
    given_out = epoch_of(batches)
    size = min(size, n)
    assert len(given_out) == passes * (n // size)
    assert len(batches) == -(-len(given_out) // LONGEST)
    assert {len(batch) for batch in given_out} == {size}
    for number in range(passes):
        one = list(itertools.chain(*given_out[number * (n // size) : (number + 1) * (n // size)]))
        assert len(set(one)) == len(one) == n // size * size
    for batch in batches:  # fields of a row stay together
        assert torch.equal(batch.action.float(), batch.reward)


@settings(deadline=None, max_examples=40)
@given(world_size=st.integers(1, 5), **SIZES)
def test_processes_share_the_batches_of_one_process(world_size, n, size, passes, epoch):
    if min(n, size) % world_size:
        with pytest.raises(ConfigError, match="cannot be divided equally"):
            Blocks(numbers(n), size, passes, 0, trainer(epoch, 0, world_size))
        return
    alone = epoch_of(Blocks(numbers(n), size, passes, 0, trainer(epoch)))
    shares = [
        epoch_of(Blocks(numbers(n), size, passes, 0, trainer(epoch, rank, world_size))) for rank in range(world_size)
    ]
    assert [sorted(itertools.chain(*parts)) for parts in zip(*shares, strict=True)] == [sorted(b) for b in alone]
    assert {len(part) for share in shares for part in share} == {len(alone[0]) // world_size}


@settings(deadline=None, max_examples=40)
@given(data=st.data(), **SIZES)
def test_resumed_epoch_continues_with_the_next_batch(data, n, size, passes, epoch):
    whole = epoch_of(Blocks(numbers(n), size, passes, 0, trainer(epoch)))
    interrupted = Blocks(numbers(n), size, passes, 0, trainer(epoch))
    stop = data.draw(st.integers(0, len(interrupted) - 1))
    seen = [batch.action.tolist() for block in itertools.islice(interrupted, stop) for batch in block]
    assert seen == whole[: len(seen)]
    resumed = Blocks(numbers(n), size, passes, 0, trainer(epoch))
    resumed.load_state_dict(interrupted.state_dict())
    assert epoch_of(resumed) == whole[len(seen) :]


def test_position_is_ignored_in_the_next_epoch():
    batches = Blocks(numbers(10), 2, 1, 0, trainer(3))
    first = epoch_of(batches)
    resumed = Blocks(numbers(10), 2, 1, 0, trainer(3))
    resumed.load_state_dict(batches.state_dict())
    assert epoch_of(resumed) == []  # that epoch is complete
    for one in (batches, resumed):
        one.trainer = trainer(4)
    assert len(epoch_of(resumed)) == 5
    assert epoch_of(batches) != first


def test_order_depends_on_pass_epoch_and_seed():
    first, second = (epoch_of(Blocks(numbers(40), 8, 2, 0, trainer(0))) for _ in range(2))
    assert first == second
    orders = [first[:5], first[5:]]
    orders += [epoch_of(Blocks(numbers(40), 8, 1, seed, trainer(epoch))) for seed, epoch in ((0, 1), (1, 0))]
    assert all(a != b for a, b in itertools.combinations(orders, 2))


def test_dropped_remainder_changes_between_passes():
    batches = epoch_of(Blocks(numbers(11), 4, 20, 0, trainer(0)))
    left_out = [set(range(11)) - set(a) - set(b) for a, b in zip(batches[::2], batches[1::2], strict=True)]
    assert len(left_out) == 20
    assert set().union(*left_out) == set(range(11))
