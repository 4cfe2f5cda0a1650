"""Every causal language model of the installed transformers, tried on tiny random models."""
