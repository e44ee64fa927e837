"""The command `inspect`."""

from __future__ import annotations

import json

import foreign_formats as formats
import h5py
import pytest

from lit_imitation.cli import main


def test_tables_name_format_keys_and_faults(tmp_path, capsys):
    path = formats.write_robomimic(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        file["data/demo_0/actions"][0, 0] = 2
    main(["inspect", str(path)])
    out = capsys.readouterr().out
    assert f"{path}: robomimic HDF5" in out
    for text in ("robot0_eef_pos", "[8, 6, 3]", "uint8", "-203 to 203", "3 with 9 steps", "1 terminated, 2 truncated"):
        assert text in out
    assert "wrong: 'actions': 5.6% of the components are out of bounds" in out
    assert "note: images (agentview_image) and vectors are encoded apart" in out


def test_json_holds_the_same(tmp_path, capsys):
    path = formats.write_robomimic(tmp_path / "a.hdf5")
    main(["inspect", str(path), "--json", "--data.filter_key", "train", "--data.observation_keys", "object"])
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["episodes"], found["metadata"]["filter_key"]) == ("robomimic HDF5", 2, "train")
    assert found["lengths"] == {"low": 2, "mean": 2.5, "high": 3}
    assert {"name": "object", "shape": [3], "dtype": "float32"}.items() <= found["keys"][1].items()


def test_bounds_of_an_environment_are_compared(tmp_path, capsys):
    path = formats.write_zarr(tmp_path / "a.zarr")
    main(["inspect", str(path), "--data.env_id", "Pendulum-v1"])
    assert "rows of shape [2], but the action space is Box" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["none.hdf5", "hf:a/b/c", "http://127.0.0.1:9/a.npz"])
def test_unreadable_source_is_one_line(tmp_path, capsys, name):
    with pytest.raises(SystemExit) as caught:
        main(["inspect", name])
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("error: ")
