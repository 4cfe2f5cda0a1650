"""The search: which decoder blocks are removed, and in which order."""
