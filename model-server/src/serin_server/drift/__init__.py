"""What the model's inputs and predictions looked like in training, and how often live ones fall where."""
