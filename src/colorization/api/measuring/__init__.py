"""How good weights are: evaluations and comparisons."""
