"""Put the tables that the results in `experiments/results` make into the README and the recipes' first comments.

`python -m experiments.scores.readme`; every benchmark does it when it ends.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments.scores import tables
from experiments.scores.tables import return_of, score_of, share_of
from lit_imitation.utils.files import atomic_write

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"


def into_adversarial_recipe(row: dict[str, Any]) -> None:
    """Put the figures into a recipe's first comment."""
    _into_comment(
        ROOT / "configs" / f"{row['recipe']}.yaml",
        f"# Measured, {_seeds(row)}: {row['wall_seconds'] / 60:.1f} minutes a run on 2 cores;\n"
        f"# return {return_of(row)} (expert {row['expert_return']:.1f}), normalized score {score_of(row)}.\n",
    )


def into_maxent_irl_recipe(row: dict[str, Any]) -> None:
    """Put the figures into a recipe's first comment."""
    fresh = f", in fresh worlds {row['fresh_value_share']:.3f}" if "fresh_value_share" in row else ""
    _into_comment(
        ROOT / "configs" / "maxent_irl" / f"{row['recipe']}.yaml",
        f"# Measured, {_seeds(row)}: {row['wall_seconds']:.0f} s a run on 2 cores;\n"
        f"# the recovered reward's policy has {share_of(row)} of the optimal value{fresh};\n"
        f"# return {return_of(row)} (expert {row['expert_return']:.4g}), normalized score {score_of(row)}.\n",
    )


def into_rl_recipe(row: dict[str, Any]) -> None:
    """Put an expert's figures into the comment of the recipe that made it."""
    _into_comment(
        ROOT / "configs" / f"{row['recipe']}.yaml",
        f"# Measured, seed {row['seed']}: {row['wall_seconds'] / 60:.0f} minutes on 2 cores that did other work too;\n"
        f"# return {row['return_mean']:.1f} ± {row['return_std']:.1f} over {row['episodes']} episodes after "
        f"{row['env_steps']:,} environment steps.\n",
    )


def into_sac_recipe(row: dict[str, Any]) -> None:
    """Put what came out with its settings into the comment of SAC's recipe."""
    ours = row["ours"]
    low, high = ours["ci95"]
    _into_comment(
        ROOT / "configs" / "sac" / f"{row['task'].removeprefix('sac_')}.yaml",
        f"# Measured, {row['seeds']} seeds (experiments/scores/rl_returns.py): {ours['wall_seconds'] / 60:.0f} minutes a run "
        f"on 2 cores that did more;\n# return {ours['mean']:.1f} [{low:.1f}, {high:.1f}] of the last policy.\n",
    )


def into_dagger_recipe(row: dict[str, Any]) -> None:
    """Put the figures into a recipe's first comment."""
    dagger, bc = row["dagger"], row["bc"]
    _into_comment(
        ROOT / "configs" / "dagger" / f"{row['recipe']}.yaml",
        f"# Measured, {_seeds(row)}: {dagger['wall_seconds']:.0f} s a run on 2 cores;\n"
        f"# return {return_of(dagger)} (expert {row['expert_return']:.1f}), normalized score {score_of(dagger)}\n"
        f"# from {row['labels']:,.0f} labels; behavioral cloning on as many: return {return_of(bc)}, "
        f"{score_of(bc)}.\n",
    )


def _seeds(row: dict[str, Any]) -> str:
    count = len(row["seeds"])
    return f"{count} seed{'s' * (count > 1)}"


def _into_comment(path: Path, line: str) -> None:
    """Put `line` in place of the first comment's part from "# Measured" on, or at its end."""
    text = path.read_text()
    head, model, after = text.partition("model:")
    atomic_write(path, head.partition("# Measured")[0] + line + model + after)


def into_recipe(row: dict[str, Any]) -> None:
    """Put the figures into a recipe's first comment."""
    _into_comment(
        ROOT / "configs" / "bc" / f"{row['recipe']}.yaml",
        f"# Measured, {_seeds(row)}: {row['wall_seconds']:.0f} s a run on 2 cores;\n"
        f"# return {row['return_mean']['mean']:.1f} (expert {row['expert_return']:.1f}), normalized score "
        f"{score_of(row)}.\n",
    )


def refresh() -> None:
    """Every table whose results are there."""
    results = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
    made: dict[str, str] = {}
    if "recipes" in results:
        made["recipes"] = tables.recipes(results["recipes"])
        for row in results["recipes"]:
            if row["expert"] in ("scripted", "shipped"):  # else it was measured with more than it says itself
                into_recipe(row)
    if "dagger_recipes" in results:
        made["dagger_recipes"] = tables.beside(results["dagger_recipes"])
        for row in results["dagger_recipes"]:
            into_dagger_recipe(row)
    if "dagger_mujoco" in results:
        made["dagger_mujoco"] = tables.beside(results["dagger_mujoco"])
    if "bc_table" in results:
        made["bc_table"] = tables.bc_table(results["bc_table"])
    if {"bc", "rollout"} <= set(results):
        made["speed"] = tables.speed(results["bc"], results["rollout"], results.get("dagger"))
    if "experts" in results:
        made["experts"] = tables.experts(results["experts"])
        for row in results["experts"]:
            into_rl_recipe(row)
    if "adversarial_recipes" in results:
        guided = [row["recipe"].startswith("gcl/") for row in results["adversarial_recipes"]]
        for name, wanted in (("adversarial_recipes", False), ("gcl_recipes", True)):
            rows = [row for row, one in zip(results["adversarial_recipes"], guided, strict=True) if one == wanted]
            made[name] = tables.adversarial_recipes(rows)
        made["gcl_weights"] = tables.gcl_weights(results["adversarial_recipes"])
        for row in results["adversarial_recipes"]:
            into_adversarial_recipe(row)
    if "reoptimize" in results:
        made["reoptimize"] = tables.reoptimize(results["reoptimize"])
    if "gail_table" in results:
        made["gail_table"] = tables.gail_table(results["gail_table"], results.get("bc_table", []))
        made["airl_table"] = tables.airl_table(results["gail_table"])
        made["gail_sac_table"] = tables.gail_sac_table(results["gail_table"])
    if "termination" in results:
        made["termination"] = tables.termination(results["termination"])
    if "adversarial" in results:
        made["adversarial_speed"] = tables.adversarial_speed(results["adversarial"])
    if "failures" in results:
        made["too_strong"] = tables.too_strong(results["failures"]["too_strong"])
        made["modes"] = tables.modes(results["failures"]["modes"])

    if "maxent_irl" in results:
        made["maxent_irl_speed"] = tables.maxent_irl_speed(results["maxent_irl"])
    if "maxent_irl_recipes" in results:
        made["maxent_irl_recipes"] = tables.maxent_irl_recipes(results["maxent_irl_recipes"])
        for row in results["maxent_irl_recipes"]:
            into_maxent_irl_recipe(row)
    if "rl" in results:
        made["rl_speed"] = tables.rl_speed(results["rl"], results.get("rl_scaling"))
    if "rl_returns" in results:
        made["rl_returns"] = tables.rl_returns(results["rl_returns"])
        for row in results["rl_returns"]:
            if row["algorithm"] == "sac" and "wall_seconds" in row["ours"]:
                into_sac_recipe(row)
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text()
        for name, table in made.items():
            before, mark, rest = text.partition(f"<!-- {name} -->\n")
            _, end, after = rest.partition(f"<!-- /{name} -->")
            if mark:
                text = f"{before}{mark}{table}\n{end}{after}"
        atomic_write(page, text)


if __name__ == "__main__":
    refresh()
