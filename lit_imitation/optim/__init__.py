"""Gradient steps: `Descent` takes every one of them."""
