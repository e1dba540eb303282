"""The labels of a column -> class ids with names, or scores."""
