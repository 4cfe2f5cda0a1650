"""What the numbers of a recipe can be."""

# The deepest released models have a few hundred blocks. A config with millions would fill the memory before it fails.
MAX_BLOCKS = 10_000

# The most of anything that is counted. More is a slip, and would overflow in PyTorch.
MOST = 2**31 - 1

# Of models that have fewer positions, as many as they have.
PUBLISHED_WINDOW_LENGTH = 2048

# One of three windows verifies what was fitted on the others.
FEWEST_WINDOWS_TO_COMPENSATE = 3
