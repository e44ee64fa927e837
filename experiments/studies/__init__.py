"""Studies: what the theory promises, measured by real training runs, with figures, their numbers, and a page."""
