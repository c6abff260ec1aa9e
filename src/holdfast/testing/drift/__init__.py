"""Vendors' drift: the shapes of a sandbox's answers today, beside those of a baseline. No value is ever kept."""

from holdfast.testing.drift.baseline import Baseline, check, record
from holdfast.testing.drift.sandboxes import SANDBOXES, Sandbox
from holdfast.testing.drift.shapes import Change, Shape, compare, shape_of

__all__ = ["SANDBOXES", "Baseline", "Change", "Sandbox", "Shape", "check", "compare", "record", "shape_of"]
