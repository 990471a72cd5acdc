"""What is measured, against what. `python -m benchmarks` prints it; every ratio is of one run."""
