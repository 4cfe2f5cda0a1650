"""Trial of every causal language model of the installed transformers, as tiny random models."""
