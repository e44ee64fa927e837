"""Neural networks: MLPs, observation encoders and critics."""
