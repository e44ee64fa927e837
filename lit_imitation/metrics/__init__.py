"""`torchmetrics` metrics of policies and rewards; across processes every episode counts once."""
