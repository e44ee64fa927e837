"""Measures of a policy as `torchmetrics` metrics, so that what several processes saw is counted once."""
