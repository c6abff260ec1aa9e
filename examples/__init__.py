"""Programs that use holdfast."""
