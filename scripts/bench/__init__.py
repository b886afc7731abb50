"""Measure a whole migration against the tools that one would use instead."""
