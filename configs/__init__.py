"""The Hydra configuration tree, as a package so that it ships in the wheel."""
