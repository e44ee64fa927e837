"""Small tools without knowledge of learning: files, seeds, caches, statistics, spaces, processes."""
