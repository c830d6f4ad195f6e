"""What every other room stands on: colour, errors, runs, devices, processes."""
