"""The mathematics: NumPy and SciPy alone, no files, no clock."""
