"""What a model is worth, dense or pruned."""
