"""Measurements of holdfast: `make bench`, or `make bench NAME=weight ARGS=--json`."""
