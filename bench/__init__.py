"""Benchmarks. Every number stands beside a floor that was measured in the same run: `make bench`."""
