"""Which blocks go, and in which order."""
