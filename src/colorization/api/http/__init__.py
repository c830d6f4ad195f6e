"""What every answer keeps to: problems, security, events."""
