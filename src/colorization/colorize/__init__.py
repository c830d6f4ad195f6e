"""Photographs and folders of them in, colorized ones out."""
