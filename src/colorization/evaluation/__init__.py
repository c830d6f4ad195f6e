"""Weights side by side on photographs that they have not seen: rows, their scores, the report."""
