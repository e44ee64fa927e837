"""Every rendered table and page, from the results in `experiments/results` and `docs/figures`.

`python -m experiments render` puts the tables between their markers in README.md and docs/, puts the measured scores
into the recipes' first comments, and writes the studies' pages. It trains nothing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from experiments import reliability
from experiments.markdown import columns, estimate, put_between_markers, put_into_comment, table
from lit_imitation.utils.files import atomic_write

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
STUDIES = ("horizon", "finetune", "sample_efficiency", "transfer", "inverse_rl", "multimodal")
Row = dict[str, Any]


def results(name: str) -> Any:
    """The stored results of one table, comparison or suite."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


# Cells


def score_of(row: Row, bold: bool = False) -> str:
    """The normalized score; a single seed has no interval."""
    score = row["normalized_score"]
    return estimate(score["mean"], score["mean_ci95"] if len(score["values"]) > 1 else None, ".3f", bold)


def return_of(row: Row) -> str:
    """The return; a single seed has no interval."""
    found = row["return_mean"]
    form = ".1f" if abs(found["mean"]) >= 2 else ".3f"
    return estimate(found["mean"], found["mean_ci95"] if len(found["values"]) > 1 else None, form)


def share_of(row: Row, bold: bool = False) -> str:
    """The share of the optimal value that the policy of a recovered reward reaches."""
    return estimate(row["value_share"], row["value_shares"]["ci95"], ".3f", bold)


def seeds_of(row: Row) -> int:
    """Number of seeds."""
    return len(row["seeds"])


def expert_of(row: Row) -> str:
    """The expert and its trajectories."""
    thinned = f", 1 step in {row['subsample']}" if row.get("subsample", 1) > 1 else ""
    return f"{row['expert']}, {row['expert_trajectories']:,}{thinned}"


def recipe_of(row: Row) -> str:
    """The recipe, or where there is none the environment."""
    return f"`{row['recipe']}`" if "recipe" in row else row["env_id"]


def task_of(row: Row) -> str:
    """The recipe, and its expert where that is not the recipe's own."""
    own = row["name"] == row.get("recipe", row["name"])
    return recipe_of(row) if own else f"{recipe_of(row)}, expert {row['expert']}"


def minutes(row: Row) -> str:
    """Minutes of a run."""
    return f"{row['wall_seconds'] / 60:.1f}"


def duration(row: Row) -> str:
    """Seconds of a run, or minutes where there are many."""
    seconds = row["wall_seconds"]
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def listed(values: Sequence[float], form: str) -> str:
    """One value per seed."""
    return ", ".join(f"{value:{form}}" for value in values)


SEEDS = ("seeds", seeds_of)
SCORE = ("normalized score", lambda row: score_of(row, bold=True))
EXPERT = ("expert, trajectories", expert_of)
EXPERTS_RETURN = ("expert's return", lambda row: f"{row['expert_return']:.1f}")
LAST = ("last policy's score", lambda row: f"{np.mean(row['last_score']):.3f}")
MINUTES = ("minutes", minutes)


# Scores


def headline() -> str:
    """One row for each method."""
    found = {
        (name, row["name"]): row
        for name in ("bc_recipes", "dagger_recipes", "adversarial_recipes", "maxent_irl_recipes", "rl_returns")
        for row in results(name)
    }
    shown = [
        ("Behavioral cloning", found["bc_recipes", "bc/lunar_lander"]),
        ("DAgger", found["dagger_recipes", "dagger/lunar_lander"]),
        ("GAIL", found["adversarial_recipes", "gail/hopper"]),
        ("AIRL", found["adversarial_recipes", "airl/hopper"]),
        ("Guided cost learning", found["adversarial_recipes", "gcl/pendulum"]),
        ("Maximum-entropy IRL", found["maxent_irl_recipes", "maxent_irl/frozen_lake"]),
        ("PPO", found["rl_returns", "ppo/lunar_lander"]),
        ("SAC", found["rl_returns", "sac/pendulum"]),
    ]
    return columns(
        shown,
        ("method", lambda pair: pair[0]),
        ("task", lambda pair: pair[1]["env_id"]),
        ("normalized score", lambda pair: score_of(pair[1], True) if "normalized_score" in pair[1] else ""),
        ("return", lambda pair: return_of(pair[1])),
        ("seeds", lambda pair: seeds_of(pair[1])),
        ("training time", lambda pair: duration(pair[1])),
    )


def bc_recipes() -> str:
    return columns(
        results("bc_recipes"),
        ("recipe", recipe_of),
        EXPERT,
        SEEDS,
        EXPERTS_RETURN,
        ("BC's return", lambda row: f"{row['return_mean']['mean']:.1f}"),
        SCORE,
        ("seconds", lambda row: f"{row['wall_seconds']:.0f}"),
    )


def head_recipes() -> str:
    def variation(row: Row) -> str:
        return estimate(row["total_variation"]["mean"], row["total_variation"]["mean_ci95"], ".3f")

    return columns(
        results("head_recipes"),
        ("recipe", recipe_of),
        SEEDS,
        (
            "success",
            lambda row: estimate(row["return_mean"]["mean"], row["return_mean"]["mean_ci95"], ".3f", bold=True),
        ),
        ("total variation of the gates' shares", variation),
        ("seconds", lambda row: f"{row['wall_seconds']:.0f}"),
    )


def push_t() -> str:
    def estimated(part: str) -> Callable[[Row], str]:
        return lambda row: estimate(row[part]["mean"], row[part]["mean_ci95"], ".3f", bold=True)

    return columns(
        results("push_t"),
        ("recipe", recipe_of),
        ("demonstrations", lambda row: "150 and their mirror images" if row["mirrored"] else "150"),
        SEEDS,
        ("largest of the last 10 checkpoints", estimated("max")),
        ("mean of the last 10 checkpoints", estimated("mean")),
        MINUTES,
    )


def dagger(name: str) -> str:
    def at_reach(row: Row, cell: Callable[[], str], otherwise: str) -> str:
        return cell() if row["bc_at_reach"] else otherwise

    return columns(
        results(name),
        ("task", task_of),
        SEEDS,
        ("labels", lambda row: f"{row['labels']:,.0f}"),
        EXPERTS_RETURN,
        ("DAgger's return", return_of),
        ("score", lambda row: score_of(row, bold=True)),
        ("BC's return, same number of labels", lambda row: return_of(row["bc"])),
        ("score", lambda row: score_of(row["bc"])),
        (
            "labels to 0.95",
            lambda row: at_reach(row, lambda: f"{np.mean(row['labels_to_reach']):,.0f}", "not every seed"),
        ),
        ("BC's score with as many", lambda row: at_reach(row, lambda: score_of(row["bc_at_reach"]), "")),
    )


def bc_table() -> str:
    cells = {(row["task"], row["trajectories"]): row for row in results("bc_table") if row["trajectories"] > 1}
    counts = sorted({count for _, count in cells})

    def expert(task: str) -> str:
        row = cells[task, counts[-1]]
        name = row["env_id"].partition("-")[0]
        return f"{name} ({row['theirs']['expert']:.0f}, {row['expert_return']:.0f})"

    def both(count: int) -> tuple[str, Callable[[str], str]]:
        def cell(task: str) -> str:
            row = cells[task, count]
            return f"**{row['return_mean']['mean']:.0f}** / {row['theirs']['mean']:.0f}"

        return f"{count} trajectories: ours / theirs", cell

    tasks = list(dict.fromkeys(task for task, _ in cells))
    return columns(tasks, ("task (expert's return: theirs, here)", expert), *map(both, counts))


def adversarial_recipes(methods: Sequence[str]) -> str:
    return columns(
        [row for row in results("adversarial_recipes") if row["method"] in methods],
        ("recipe", recipe_of),
        EXPERT,
        SEEDS,
        EXPERTS_RETURN,
        ("learner's return", return_of),
        SCORE,
        ("steps of the best policy", lambda row: f"{row['env_steps']:,.0f}"),
        MINUTES,
    )


def gcl_weights() -> str:
    return columns(
        [row for row in results("adversarial_recipes") if "weight_exponent" in row],
        ("recipe", recipe_of),
        ("effective sample size before tempering", lambda row: f"{row['effective_sample_size']:.1f}"),
        ("exponent β", lambda row: f"{row['weight_exponent']:.3f}"),
    )


def reoptimize() -> str:
    return columns(
        sorted(results("reoptimize"), key=lambda row: row["task"]),
        ("task", lambda row: f"`gcl/{row['task']}`"),
        ("reward", lambda row: row["method"].upper()),
        ("seeds", lambda row: len(row["fresh"]["normalized_score"]["values"])),
        ("score of its own learner", score_of),
        ("score of a fresh policy", lambda row: score_of(row["fresh"], bold=True)),
    )


def gail_paper(method: str) -> list[Row]:
    return [row for row in results("gail_table") if row["method"] == method]


def gail_table() -> str:
    cloned = {row["env_id"]: row["return_mean"]["mean"] for row in results("bc_table") if row["trajectories"] in (1, 4)}

    def experts(row: Row) -> str:
        return listed((row["published"]["expert"], row["expert_return"], row["demonstrator_return"]), ".0f")

    return columns(
        gail_paper("gail"),
        ("task", recipe_of),
        SEEDS,
        ("expert: theirs, here by its mode, here sampled", experts),
        ("BC: theirs, ours", lambda row: listed((row["published"]["bc"], cloned[row["env_id"]]), ".0f")),
        ("GAIL: theirs", lambda row: f"{row['published']['gail']:.0f}"),
        ("GAIL: ours", return_of),
        SCORE,
        LAST,
        MINUTES,
    )


def airl_table() -> str:
    return columns(
        gail_paper("airl"),
        ("task", recipe_of),
        SEEDS,
        ("expert's return", lambda row: f"{row['expert_return']:.0f}"),
        ("AIRL's return", return_of),
        SCORE,
        LAST,
        MINUTES,
    )


def gail_sac_table() -> str:
    by_ppo = {row["task"]: row["env_steps_to_0.9"] for row in gail_paper("gail")}

    def reached(steps: Sequence[float | None]) -> str:
        return ", ".join("not reached" if n is None else f"{n / 1000:.0f}k" for n in steps)

    def ratio(row: Row) -> str:
        sac, ppo = row["env_steps_to_0.9"], by_ppo[row["task"]]
        return "–" if None in (*sac, *ppo) else f"1 / {np.mean(ppo) / np.mean(sac):.1f}"

    return columns(
        gail_paper("gail_sac"),
        ("task", recipe_of),
        SEEDS,
        ("steps to 0.9: SAC", lambda row: reached(row["env_steps_to_0.9"])),
        ("PPO", lambda row: reached(by_ppo[row["task"]])),
        ("ratio of means", ratio),
        ("SAC's score", lambda row: score_of(row, bold=True)),
        LAST,
        ("steps of the best policy", lambda row: f"{row['env_steps']:,.0f}"),
        MINUTES,
    )


def termination() -> str:
    pairs: dict[str, dict[str, Row]] = {}
    for row in results("termination"):
        pairs.setdefault(row["method"], {})[row["task"]] = row
    return columns(
        list(pairs.values()),
        ("reward", lambda pair: f"`{pair['ledge']['reward']}`"),
        ("absorbing states", lambda pair: "yes" if pair["ledge"]["absorbing"] else "no"),
        ("the end is success (expert: 5.5 steps)", lambda pair: listed(pair["finish_line"]["lengths"], ".1f")),
        ("the end is failure (expert: 60 steps)", lambda pair: listed(pair["ledge"]["lengths"], ".1f")),
    )


def too_strong() -> str:
    return columns(
        results("too_strong"),
        ("option", lambda row: f"`{row['method']}`"),
        ("return of each seed (the expert's route: −6.6)", lambda row: listed(row["return_mean"]["values"], ".1f")),
        ("Jensen–Shannon divergence (at most 0.693)", lambda row: listed(row["jensen_shannon"], ".3f") or "–"),
        ("mean reward", lambda row: listed(row["reward_mean"], ".2g")),
    )


def modes() -> str:
    def shares(row: Row) -> str:
        return "; ".join(" ".join(f"{share:.2f}" for share in seed) for seed in row["shares"])

    return columns(
        results("modes"), ("learner", lambda row: row["method"]), ("share of each arm, seed by seed", shares)
    )


def maxent_irl_recipes() -> str:
    def maybe(name: str) -> Callable[[Row], str]:
        return lambda row: f"{row[name]:.3f}" if name in row else ""

    return columns(
        results("maxent_irl_recipes"),
        ("recipe", recipe_of),
        EXPERT,
        SEEDS,
        ("value difference", maybe("expected_value_difference")),
        ("share of the optimal value", lambda row: share_of(row, bold=True)),
        ("in fresh worlds", maybe("fresh_value_share")),
        ("reward correlation", maybe("reward_correlation")),
        ("EPIC distance", maybe("epic_distance")),
        ("seconds", lambda row: f"{row['wall_seconds']:.0f}"),
    )


def experts() -> str:
    def returns(row: Row) -> str:
        return f"**{row['return_mean']:.1f}** ± {row['return_std']:.1f}"

    return columns(
        results("experts"),
        ("environment", lambda row: row["env_id"] + (", continuous" if row["env_kwargs"] else "")),
        ("return, mean ± standard deviation", returns),
        ("aim", lambda row: f"{row['aim']}{'' if row['return_mean'] >= row['aim'] else ' (not reached)'}"),
        ("environment steps", lambda row: f"{row['env_steps']:,}"),
        ("recipe, seed", lambda row: f"`{row['recipe']}`, {row['seed']}"),
        ("minutes", lambda row: f"{row['wall_seconds'] / 60:.0f}"),
        ("kB", lambda row: row["kilobytes"]),
    )


def rl_returns() -> str:
    def estimated(side: Row) -> str:
        return estimate(side["return_mean"]["mean"], side["return_mean"]["mean_ci95"], ".1f")

    return columns(
        results("rl_returns"),
        ("task", lambda row: f"{row['method'].upper()}, {row['env_id']}"),
        ("environment steps", lambda row: f"{row['budget']:,}"),
        SEEDS,
        ("ours", estimated),
        ("Stable-Baselines3", lambda row: estimated(row["sb3"])),
    )


# Speed


def shares(runs: Sequence[dict[str, float]], parts: Sequence[str]) -> list[str]:
    """Cells: the share of a round's time that each part takes, as the median over the runs."""
    return [f"{100 * median(run[part] / run['round'] for run in runs):.0f} %" for part in parts]


def speed() -> str:
    dagger, rows = results("dagger"), []
    for size, bc in results("bc")["sizes"].items():
        rows += [
            [
                f"a gradient step of `configs/bc/lunar_lander.yaml`, {size} at batch 64",
                "bare torch loop, fused Adam",
                f"{bc['ours_over_bare']['median']:.2f} × its time; with `compile: true` "
                f"{bc['compiled_over_bare']['median']:.2f} ×",
            ],
            [
                "the same",
                f"`imitation` {bc['imitation_versions']['imitation']}, including the value network that it carries "
                "along",
                f"{bc['imitation_over_ours']['median']:.1f} × as fast",
            ],
        ]
    if (RESULTS / "heads.json").exists():
        rows += heads_rows(results("heads")["heads"])
    ways = {"stream": "step by step", "Episodes": "whole episodes", "collect": "whole episodes, recorded"}
    rows += [
        [
            f"rolling out a 2×64 policy, 64 × {row['env_id']}, {ways[row['rollout']]}",
            f"bare `env.step`, {row['backend']}",
            f"{100 * median(row['share_of_bare']['pairs']):.0f} % of its rate",
        ]
        for row in results("rollout")["rows"]
        if row["auto"]
    ]
    for backend, ratio in dagger["imitation_over_ours"].items():
        found = {name: value["median"] for name, value in ratio["seconds"].items()}
        rows.append(
            [
                f"DAgger, {dagger['rounds']} rounds of {dagger['episodes_per_round']} episodes of LunarLander-v3, "
                f"{backend}",
                f"`imitation` {dagger['imitation_versions']['imitation']}, both with their defaults",
                f"{found['with_evaluation']:.1f} × as fast; without evaluation {found['as_it_is']:.1f} ×; at equal "
                f"counts of labels and gradient steps {found['at_equal_counts']:.1f} ×",
            ]
        )
    rows += [
        [
            "collecting in DAgger: expert and learner asked, recorded, written",
            f"bare `env.step`, {backend}",
            f"{100 * measured['share_of_bare']['median']:.0f} % of its rate",
        ]
        for backend, measured in dagger["collection"].items()
    ]
    return table(["work", "compared with", "ratio"], rows)


def heads_rows(heads: dict[str, Any]) -> list[list[str]]:
    """Rows of policies that plan ahead: the ratio of their steps, and the time of a decision."""
    rows = []
    for name, found in heads.items():
        step = f"{1e3 * median(found['seconds_per_step']['ours']):.2f} ms"
        rows.append(
            [
                f"a gradient step of the head {name}, windows of Push-T's size at batch 256",
                "bare torch loop of the same network and loss",
                f"{found['ours_over_bare']['median']:.2f} × its time ({step}); a decision takes "
                f"{found['decision_ms']:.1f} ms",
            ]
        )
    return rows


def rl_speed() -> str:
    rl, parts = results("rl"), ("rollout", "update", "overhead")
    rows = []
    for name, row in rl["comparisons"].items():
        ratio = f"{row['sb3_over_ours']['median']:.1f} × as fast"
        rows.append([name, *shares(row["seconds"]["ours"], parts), "Stable-Baselines3", ratio])
    share = f"{100 * rl['recipe']['share_of_bare']['median']:.0f} % of its rate"
    rows.append(["`ppo/hopper`, unchanged", *shares(rl["recipe"]["seconds"], parts), "bare `env.step`", share])
    ratio = results("rl_scaling")["two_over_one"]["median"]
    rows.append(
        ["the same on two processes, each with as many environments", "", "", "", "one process",
         f"{ratio:.2f} × its environment steps a second"]
    )  # fmt: skip
    return table(["work, one thread", "rollout", "updates", "overhead", "compared with", "ratio"], rows)


def adversarial_speed(found: Row | None = None) -> str:
    """Speed of GAIL and AIRL, and the time that they need; `found` in place of the stored results."""
    found = results("adversarial") if found is None else found
    parts = ("rollout", "reward", "update", "overhead")
    rows = [
        [
            f"{row['method']}, {row['env_id']}",
            *shares(row["runs"]["ours"], parts),
            f"`imitation` {row['imitation_versions']['imitation']}, equal work",
            f"{row['ours_over_imitation']['median']:.1f} × as fast",
        ]
        for part in ("gail", "airl")
        if part in found
        for row in found[part]["rows"]
    ]
    if "share" in found:
        ratio = 100 * found["share"]["share_of_bare"]["median"]
        cells = shares(found["share"]["seconds"], parts)
        rows.append(["`gail/hopper`, unchanged", *cells, "bare `env.step`", f"{ratio:.0f} % of its rate"])
    if "reach" in found:
        reach = found["reach"]
        for when, words in (("first", "for the first time"), ("for_good", "for good")):
            theirs = reach["imitation"][when]["seconds"]
            seconds = [math.inf if run[when] is None else run[when]["seconds"] for run in reach["ours"]]
            told = ", ".join("not reached" if one == math.inf else f"{one:.0f} s" for one in seconds)
            if median(seconds) < math.inf:
                told += f"; the median {theirs / median(seconds):.1f} × sooner"
            work = f"GAIL with the settings of the paper's table on {reach['env_id']}, to 0.9 of the expert {words}"
            rows.append([work, "", "", "", "", f"`imitation`, its tuned settings, {theirs:.0f} s", told])
    head = ["work, one thread", "rollout", "discriminator", "updates", "overhead", "compared with", "ratio"]
    return table(head, rows)


def maxent_irl_speed(found: Row | None = None) -> str:
    """Milliseconds of an iteration by number of states; `found` in place of the stored results."""
    found = results("maxent_irl") if found is None else found
    rows = []
    for row in found["together"]:
        over = row["imitation_over_ours"]
        theirs = [f"{1e3 * median(row['seconds'][name]):.1f} ({name.rpartition(' ')[2]})" for name in over]
        times = [f"{ratio['median']:.1f} ×" for ratio in over.values()]
        ours = f"{1e3 * median(row['seconds']['ours']):.2f}"
        rows.append([f"{row['states']:,}", "scattered", ours, ", ".join(theirs), ", ".join(times), ""])
    for row in found["alone"]:
        memory = f"{row['peak_bytes'] / 1e9:.2f} GB"
        rows.append([f"{row['states']:,}", row["kind"], f"{1e3 * median(row['seconds']):.1f}", "", "", memory])
    head = ["states", "world", "ours, ms an iteration", "`imitation`, ms", "ours is faster by", "peak memory"]
    exponents = ", ".join(f"{kind} {value:.2f}" for kind, value in found["exponent"].items())
    return f"{table(head, rows)}\n\nExponent of time in the number of states, from 10,000 states on: {exponents}."


TABLES: dict[str, Callable[[], str]] = {
    "headline": headline,
    "bc_recipes": bc_recipes,
    "head_recipes": head_recipes,
    "push_t": push_t,
    "dagger_recipes": lambda: dagger("dagger_recipes"),
    "dagger_mujoco": lambda: dagger("dagger_mujoco"),
    "bc_table": bc_table,
    "adversarial_recipes": lambda: adversarial_recipes(("gail", "airl")),
    "gcl_recipes": lambda: adversarial_recipes(("gcl",)),
    "gcl_weights": gcl_weights,
    "reoptimize": reoptimize,
    "gail_table": gail_table,
    "airl_table": airl_table,
    "gail_sac_table": gail_sac_table,
    "termination": termination,
    "too_strong": too_strong,
    "modes": modes,
    "maxent_irl_recipes": maxent_irl_recipes,
    "experts": experts,
    "rl_returns": rl_returns,
    "speed": speed,
    "rl_speed": rl_speed,
    "adversarial_speed": adversarial_speed,
    "maxent_irl_speed": maxent_irl_speed,
    "reliability": lambda: reliability.tables(results("reliability"), results("mutants")),
}
"""Each table by the name of its markers."""


# Recipes' first comments


def measured_head(row: Row, time: str) -> str:
    """The first line of a comment's measured part."""
    return f"# Measured, {seeds_of(row)} seed{'s' * (seeds_of(row) > 1)}: {time} a run on 2 cores;\n"


def measured_bc(row: Row) -> str:
    return measured_head(row, f"{row['wall_seconds']:.0f} s") + (
        f"# return {row['return_mean']['mean']:.1f} (expert {row['expert_return']:.1f}), normalized score "
        f"{score_of(row)}.\n"
    )


def measured_head_on_fork(row: Row) -> str:
    variation = row["total_variation"]
    return measured_head(row, f"{row['wall_seconds']:.0f} s") + (
        f"# return {return_of(row)} (expert {row['expert_return']:.1f}), normalized score {score_of(row)};\n"
        f"# total variation of the gates' shares {estimate(variation['mean'], variation['mean_ci95'], '.3f')}.\n"
    )


def measured_push_t(row: Row) -> str:
    best, mean = (estimate(row[part]["mean"], row[part]["mean_ci95"], ".3f") for part in ("max", "mean"))
    return measured_head(row, f"{minutes(row)} minutes") + (
        f"# normalized score {best} of the best of the last ten checkpoints over 50 starts,\n"
        f"# {mean} of all ten (docs/push_t.md).\n"
    )


def measured_dagger(row: Row) -> str:
    return measured_head(row, f"{row['wall_seconds']:.0f} s") + (
        f"# return {return_of(row)} (expert {row['expert_return']:.1f}), normalized score {score_of(row)}\n"
        f"# from {row['labels']:,.0f} labels; behavioral cloning on as many: return {return_of(row['bc'])}, "
        f"{score_of(row['bc'])}.\n"
    )


def measured_adversarial(row: Row) -> str:
    return measured_head(row, f"{minutes(row)} minutes") + (
        f"# return {return_of(row)} (expert {row['expert_return']:.1f}), normalized score {score_of(row)}.\n"
    )


def measured_maxent_irl(row: Row) -> str:
    fresh = f", in fresh worlds {row['fresh_value_share']:.3f}" if "fresh_value_share" in row else ""
    return measured_head(row, f"{row['wall_seconds']:.0f} s") + (
        f"# the recovered reward's policy has {share_of(row)} of the optimal value{fresh};\n"
        f"# return {return_of(row)} (expert {row['expert_return']:.4g}), normalized score {score_of(row)}.\n"
    )


def measured_expert(row: Row) -> str:
    return (
        f"# Measured, seed {row['seed']}: {row['wall_seconds'] / 60:.0f} minutes on 2 cores that did other work too;\n"
        f"# return {row['return_mean']:.1f} ± {row['return_std']:.1f} over {row['episodes']} episodes after "
        f"{row['env_steps']:,} environment steps.\n"
    )


def measured_sac(row: Row) -> str:
    return (
        f"# Measured, {seeds_of(row)} seeds (experiments/tables/rl_returns.yaml): {row['wall_seconds'] / 60:.0f} "
        f"minutes a run on 2 cores that did more;\n# return {return_of(row)} of the last policy.\n"
    )


def comments() -> dict[str, str]:
    """The measured part of each recipe's first comment, by the recipe's name."""

    def own(name: str) -> list[Row]:
        return [row for row in results(name) if row["name"] == row["recipe"]]  # others change the expert

    return {
        row.get("recipe", row["name"]): measured(row)
        for rows, measured in (
            (own("bc_recipes"), measured_bc),
            (results("head_recipes"), measured_head_on_fork),
            ([row for row in results("push_t") if row["task"] == "human"], measured_push_t),
            (own("dagger_recipes"), measured_dagger),
            (results("adversarial_recipes"), measured_adversarial),
            (results("maxent_irl_recipes"), measured_maxent_irl),
            (results("experts"), measured_expert),
            ([row for row in results("rl_returns") if row["method"] == "sac"], measured_sac),
        )
        for row in rows
    }


def study_page(name: str) -> str:
    """A study's page as docs/ has it: its figures lie in docs/figures."""
    summary = json.loads((ROOT / "docs" / "figures" / name / f"{name}.json").read_text(encoding="utf-8"))
    page = import_module(f"experiments.studies.{name}.page").page(summary)
    return re.sub(r"\]\(([a-z_]+\.[a-z]+)\)", rf"](figures/{name}/\1)", page)


def render() -> None:
    """Write every page, table and comment."""
    for name in STUDIES:
        atomic_write(ROOT / "docs" / f"{name}.md", study_page(name))
    made = {name: make() for name, make in TABLES.items()}
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        put_between_markers(page, made)
    for recipe, measured in comments().items():
        put_into_comment(ROOT / "configs" / f"{recipe}.yaml", measured)
