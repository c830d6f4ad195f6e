"""Photographs in, batches of uint8 RGB out: reading, checking, splitting, augmenting."""
