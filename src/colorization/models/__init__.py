"""Trained models: their description, their weights files, and the backends that run them."""
