"""Predictions and their labels as JSON lines, for retraining: sampled, without the features that are private."""
