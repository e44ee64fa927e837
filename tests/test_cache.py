"""Where results that cost time are kept."""

from __future__ import annotations

from pathlib import Path

from lit_imitation.cache import cache_dir


def test_the_variable_wins_then_the_desktops_then_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("LIT_IMITATION_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("LIT_IMITATION_CACHE")
    assert cache_dir() == tmp_path / "xdg" / "lit_imitation"
    for unset in (lambda: monkeypatch.setenv("XDG_CACHE_HOME", ""), lambda: monkeypatch.delenv("XDG_CACHE_HOME")):
        unset()
        assert cache_dir() == Path.home() / ".cache" / "lit_imitation"


def test_tilde_in_the_variable_means_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LIT_IMITATION_CACHE", "~/own")
    assert cache_dir() == tmp_path / "own"
