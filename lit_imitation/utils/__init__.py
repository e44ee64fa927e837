"""Shared utilities without learning code: files, seeds, caches, statistics, spaces and processes."""
