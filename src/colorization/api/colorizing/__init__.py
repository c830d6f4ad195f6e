"""Photographs of clients in, colorized ones out."""
