"""Stages, losses and callbacks, and how a run stops and resumes."""
