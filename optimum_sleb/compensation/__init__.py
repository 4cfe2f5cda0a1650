"""Compensating the gaps that removed blocks leave, by folding linear maps into the blocks before them."""
