"""The decoder blocks of any model: find them, run one, skip one, take one out of model and config."""
