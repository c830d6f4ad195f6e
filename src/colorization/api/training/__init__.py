"""Trainings as processes of their own: what may be trained, where it runs, what it says."""
