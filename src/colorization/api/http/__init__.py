"""Rules of all answers: problems, security, events."""
