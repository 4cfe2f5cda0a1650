"""Quality and speed of a model, dense or shortened."""
