"""Experiments with the library: studies (figures), score tables, and comparisons of speed."""
