"""The weights that ship, as a package so that the wheel has them."""
