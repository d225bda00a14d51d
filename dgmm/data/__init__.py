"""Rows in blocks, wherever they live."""
