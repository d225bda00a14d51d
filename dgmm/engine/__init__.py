"""Passes over the data, on Dask."""
