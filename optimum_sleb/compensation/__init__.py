"""Compensation of removed decoder blocks by linear maps that are folded into the blocks below them."""
