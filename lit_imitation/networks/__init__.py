"""Networks: perceptrons, encoders of observations, critics."""
