"""The base of all other packages: colour, errors, runs, devices, processes."""
