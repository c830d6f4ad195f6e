"""Trainings as separate processes: allowed settings, runners, events."""
