"""Decoder blocks of any model: find them, run them, skip them, and take them out of model and config."""
