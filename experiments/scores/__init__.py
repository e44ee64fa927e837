"""Measured scores: recipes and published protocols over several seeds."""
