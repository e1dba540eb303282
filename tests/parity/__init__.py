"""Tests against the live transformers library, one family a file."""
