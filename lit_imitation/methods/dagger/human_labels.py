"""`HumanLabels`: a person as DAgger's expert, who fills in a table of states and images."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from lit_imitation.data.checks import ACTION_TOLERANCE, FIELDS
from lit_imitation.data.columns import Metadata
from lit_imitation.data.demonstrations import (
    Demonstrations,
    read_demonstrations,
    write_demonstrations,
)
from lit_imitation.envs import make_single
from lit_imitation.errors import DemonstrationError, UnsupportedSpaceError
from lit_imitation.transitions import Transitions
from lit_imitation.utils.files import atomic_write, temporary_name
from lit_imitation.utils.integrity import check_file, check_within
from lit_imitation.utils.program import resume_command

LARGEST_TABLE = 2**28
"""Maximum size of a filled-in table in bytes."""


class HumanLabels:
    """A person as DAgger's expert, who labels the states of a round in a table, without a time limit.

    The directory of a round, `DIR/to_label/round_003/`, holds

    - `states.npz`: the visited states with the learner's own actions, an ordinary demonstration file;
    - `frames/000000.png` …: an image of each state, if the environment can render;
    - `labels.csv`: the table to fill in, with one line per state. `row` is its row in `states.npz` and the number of
      its frame. The label goes into the column `action` for discrete actions, and into `action_0`, `action_1`, … (the
      elements in C order) for others.
    """

    def write(self, directory: Path, states: Transitions, metadata: Metadata, frames: Path | None = None) -> None:
        """Write the directory of a round, completely or not at all.

        An earlier directory with this name is replaced. If its table is partly filled in, it is kept under the same
        name with a number.

        Args:
            directory: `DIR/to_label/round_003`.
            states: States to label, `[N]`.
            metadata: Metadata of `states.npz`.
            frames: Directory with the images `000000.png` … of the `N` states, which is moved into the new one.
        """
        discrete = not states.action.is_floating_point()
        columns = ["action"] if discrete else [f"action_{i}" for i in range(math.prod(states.action.shape[1:]))]
        lines = [",".join(["row", *columns]), *(f"{row}{',' * len(columns)}" for row in range(len(states)))]
        directory.parent.mkdir(parents=True, exist_ok=True)
        new, old = (temporary_name(directory, ending) for ending in ("tmp", "old"))
        try:
            new.mkdir()
            metadata = {**metadata, "digest": digest(states)}
            write_demonstrations(new / "states.npz", Demonstrations(states, states.episode_returns(), metadata))
            atomic_write(new / "labels.csv", "\n".join(lines) + "\n")
            if frames is not None:
                shutil.move(frames, new / "frames")
            if directory.exists():
                directory.rename(old if _is_template(directory / "labels.csv") else _free_name(directory))
            new.rename(directory)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        shutil.rmtree(old, ignore_errors=True)

    def instructions(self, directory: Path, run_directory: Path, states: int, action_space: Space[Any]) -> str:
        """One line for the person: what to fill in, which values are allowed, and how to continue the run.

        Args:
            directory: `DIR/to_label/round_003`.
            run_directory: `DIR`.
            states: Number of states to label.
            action_space: Action space of one environment.
        """
        allowed = _allowed(action_space)
        columns, ranges = list(allowed), set(allowed.values())
        what = f"column '{columns[0]}'" if len(columns) == 1 else f"columns '{columns[0]}' to '{columns[-1]}'"
        which = ranges.pop() if len(ranges) == 1 else ", ".join(f"{name} {text}" for name, text in allowed.items())
        return (
            f"round {int(directory.name.rpartition('_')[2])} waits for labels: fill in the {what} of "
            f"{directory / 'labels.csv'} ({states} states; allowed: {which}), then resume with: "
            f"{resume_command(run_directory)}"
        )

    def read(
        self, directory: Path, observation_space: Space[Any], action_space: Space[Any], recorded: str | None = None
    ) -> Transitions:
        """Read the states `[N]` of a directory with the person's labels as actions; nothing is written.

        The table may come from a spreadsheet. Lines may be in any order and have any line ending. Empty lines, quotes,
        a byte order mark and `1.0` for 1 are allowed, and semicolons or tabs in place of commas; with these, numbers
        may have decimal commas.

        Args:
            directory: `DIR/to_label/round_003`.
            observation_space: Observation space of one environment.
            action_space: Action space of one environment.
            recorded: `digest` of the states that were written; by default the one in the file's metadata.

        Raises:
            DemonstrationError: The states are not those that were written; or a label is missing, surplus, or not an
                action. The message names file, line and row, the value found, and the values allowed.
        """
        file, path = directory / "states.npz", directory / "labels.csv"
        check_within(file, directory, DemonstrationError)
        check_within(path, directory, DemonstrationError)
        states, _, metadata, _ = read_demonstrations(str(file), observation_space, action_space)
        if digest(states) != (metadata.get("digest") if recorded is None else recorded):
            raise DemonstrationError(
                f"{file}: the states are not those that were written for labeling. Only labels.csv may be changed: "
                "restore the file, or start the round again from an earlier checkpoint"
            )
        allowed = _allowed(action_space)
        lines = _by_row(_table(path, list(allowed), len(states)), path, len(states))
        _check_filled_in(lines, path, allowed)
        labels = np.array([_label(line, path, action_space, allowed) for line in lines])
        if isinstance(action_space, Box):
            # Clips rounding errors; `_label` has refused larger deviations.
            labels = np.clip(labels.reshape(-1, *action_space.shape), action_space.low, action_space.high)
            states.action = torch.from_numpy(labels.astype(np.float32))
        else:
            states.action = torch.from_numpy(labels[:, 0].astype(np.int64))
        return states


def digest(states: Transitions) -> str:
    """SHA-256 of the columns of a record `[N]`."""
    content = hashlib.sha256()
    for field in FIELDS.values():
        value = getattr(states, field)
        if value is not None:
            content.update(f"{field} {value.dtype} {list(value.shape)}".encode())
            content.update(value.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


class FrameRecorder:
    """Writes an image of each state of a rollout.

    Call it once before each step; it renders the environments that are about to be stepped. At the end, `finish` names
    the files by row of `Episodes.transitions()`: first all images of the first environment, in time order.

    Args:
        envs: Environments from `make(…, "sync", render_mode="rgb_array")`.
        directory: Directory of the images; its former content is deleted.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any], directory: Path) -> None:
        assert isinstance(envs, SyncVectorEnv), "only environments in this process can be rendered one by one"
        self.envs, self.directory = envs, directory
        self._taken = np.zeros(envs.num_envs, dtype=np.int64)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)

    def __call__(self, live: NDArray[np.bool_]) -> None:
        """Write an image of each environment where `live: [B]` (`Episodes.live`) is true."""
        from PIL import Image  # slow to import, and the command line imports this module

        for env in np.flatnonzero(live).tolist():
            frame = Image.fromarray(np.asarray(self.envs.envs[env].render()))
            frame.save(self._file(env, int(self._taken[env])), compress_level=1)
            self._taken[env] += 1

    def finish(self, rows: Sequence[int] | None = None) -> Path:
        """Rename the files to `000000.png` …, and return their directory.

        Args:
            rows: Rows of `Episodes.transitions()` whose images are kept, in the order of the new names; by default all.
        """
        ends = self._taken.cumsum()
        for number, row in enumerate(range(int(self._taken.sum())) if rows is None else rows):
            env = int(np.searchsorted(ends, row, side="right"))
            step = row - int(ends[env] - self._taken[env])
            self._file(env, step).rename(self.directory / f"{number:06d}.png")
        for file in self.directory.glob("env*_*.png"):
            file.unlink()
        return self.directory

    def _file(self, env: int, step: int) -> Path:
        return self.directory / f"env{env}_{step}.png"


def can_render(env_id: str, env_kwargs: Mapping[str, Any]) -> bool:
    """Whether the environment can render images on this machine; renders one to find out."""
    env = make_single(env_id, **env_kwargs)
    modes = env.metadata.get("render_modes") or ()
    env.close()
    if "rgb_array" not in modes:
        return False
    try:
        env = make_single(env_id, **{**env_kwargs, "render_mode": "rgb_array"})
        env.reset(seed=0)
        frame = env.render()
        env.close()
    except Exception:  # each rendering library raises its own error if it or a display is missing
        return False
    return isinstance(frame, np.ndarray)


class _Line(NamedTuple):
    """Line of the table."""

    number: int
    """Line number in the file, from 1."""
    row: int
    cells: list[str]
    """One cell per column of the label."""
    decimal_comma: bool
    """Whether a comma in a cell is a decimal comma."""


def _allowed(action_space: Space[Any]) -> dict[str, str]:
    """Allowed values of each column of a label, in words."""
    if isinstance(action_space, Discrete):
        first = int(action_space.start)
        return {"action": f"whole numbers {first} to {first + int(action_space.n) - 1}"}
    if not isinstance(action_space, Box):
        raise UnsupportedSpaceError(f"HumanLabels needs a Box or Discrete action space, not {action_space}")
    texts = []
    for low, high in zip(action_space.low.ravel(), action_space.high.ravel(), strict=True):
        # The text of a NumPy number is the shortest exact one: 0.7 for float32 too.
        below, above = str(low).removesuffix(".0"), str(high).removesuffix(".0")
        if np.isfinite(low):
            texts.append(f"numbers from {below} to {above}" if np.isfinite(high) else f"numbers from {below} up")
        else:
            texts.append(f"numbers up to {above}" if np.isfinite(high) else "any number")
    return {f"action_{i}": text for i, text in enumerate(texts)}


def _table(path: Path, columns: list[str], count: int) -> list[_Line]:
    """Lines of the file that are not empty, with the right columns and a valid row."""
    header = ["row", *columns]
    wanted = (
        f"{','.join(header)!r} (separated by commas, semicolons or tabs), followed by one line for each state, 0 to "
        f"{count - 1}"
    )
    try:
        if path.exists():
            check_file(path, DemonstrationError, LARGEST_TABLE)
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DemonstrationError(f"{path}: no such file; its first line must be {wanted}") from error
    except OSError as error:
        raise DemonstrationError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DemonstrationError(f"{path}: not text in UTF-8; save the table as CSV (UTF-8)") from error
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = next((one for one in ";\t" if one in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    lines: list[_Line] = []
    headed = False
    try:
        for all_cells in reader:
            cells = [cell.strip() for cell in all_cells]
            while cells and not cells[-1]:
                cells.pop()
            if not cells:
                continue
            if not headed:
                if cells != header:
                    raise DemonstrationError(f"{path}: its first line is {first!r:.200}; it must be {wanted}")
                headed = True
                continue
            if len(cells) > len(header):
                raise DemonstrationError(
                    f"{path}: line {reader.line_num} has {len(cells)} cells ({separator.join(cells)!r}), but the "
                    f"columns are {', '.join(header)}"
                    + ("; in a table with commas, numbers need a decimal point" if separator == "," else "")
                )
            row = _number(cells[0])
            if row is None or not (row.is_integer() and 0 <= row < count):
                raise DemonstrationError(
                    f"{path}: line {reader.line_num}, column 'row' is {cells[0]!r:.80}; the states have rows 0 to "
                    f"{count - 1}"
                )
            padding = [""] * (len(header) - len(cells))
            lines.append(_Line(reader.line_num, int(row), cells[1:] + padding, separator != ","))
    except csv.Error as error:
        raise DemonstrationError(f"{path}: line {reader.line_num} is not valid CSV: {error}") from error
    if not headed:
        raise DemonstrationError(f"{path}: the file is empty; its first line must be {wanted}")
    return lines


def _by_row(lines: list[_Line], path: Path, count: int) -> list[_Line]:
    """Sort the lines by row, one for each of the `count` rows."""
    found: dict[int, _Line] = {}
    for line in lines:
        other = found.setdefault(line.row, line)
        if other is not line:
            raise DemonstrationError(
                f"{path}: row {line.row} appears twice, in line {other.number} and in line {line.number}; each state "
                "has one line"
            )
    missing = [row for row in range(count) if row not in found]
    if missing:
        raise DemonstrationError(
            f"{path}: {len(missing)} of {count} rows are missing, the first is row {missing[0]}; each state needs one "
            "line, in any order"
        )
    return [found[row] for row in range(count)]


def _check_filled_in(lines: list[_Line], path: Path, allowed: Mapping[str, str]) -> None:
    empty = [line for line in lines if "" in line.cells]
    if empty:
        first = empty[0]
        column = list(allowed)[first.cells.index("")]
        raise DemonstrationError(
            f"{path}: {len(empty)} of {len(lines)} rows are not filled in, the first is row {first.row} (line "
            f"{first.number}), column '{column}'; allowed: {allowed[column]}"
        )


def _label(line: _Line, path: Path, action_space: Space[Any], allowed: Mapping[str, str]) -> list[float]:
    """Elements of the action in a line."""
    values = []
    for i, (text, column) in enumerate(zip(line.cells, allowed, strict=True)):
        value = _number(text.replace(",", ".") if line.decimal_comma else text)
        if value is None:
            fault = "which is not a number"
        elif not abs(value) <= float(np.finfo(np.float32).max):  # also true of NaN
            fault = "which is not finite"
        elif isinstance(action_space, Discrete):
            first = int(action_space.start)
            fault = "" if value.is_integer() else "which is not a whole number"
            if not fault and not first <= value < first + int(action_space.n):
                fault = "which is not an action"
        else:
            assert isinstance(action_space, Box)
            low, high = (float(bound.flat[i]) for bound in (action_space.low, action_space.high))
            slack = ACTION_TOLERANCE * (high - low if math.isfinite(high - low) else 1.0)
            fault = "" if low - slack <= value <= high + slack else "which is outside the action space"
        if fault or value is None:
            raise DemonstrationError(
                f"{path}: row {line.row} (line {line.number}), column '{column}' is {text!r:.80}, {fault}; allowed: "
                f"{allowed[column]}"
            )
        values.append(value)
    return values


def _number(text: str) -> float | None:
    """Number in a cell, if it is one; `float` alone would also accept `1_000` and the digits of other scripts."""
    if not re.fullmatch(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf|infinity)", text, re.ASCII | re.IGNORECASE):
        return None
    return float(text)


def _is_template(path: Path) -> bool:
    """Whether no label has been filled in."""
    try:
        return re.fullmatch(rb"row[^\n]*\n(\d+,+\n)*", path.read_bytes()) is not None
    except OSError:
        return False


def _free_name(path: Path) -> Path:
    return next(name for i in itertools.count(1) if not (name := path.with_name(f"{path.name}-{i}")).exists())
