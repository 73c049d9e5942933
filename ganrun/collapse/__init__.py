"""Watching for a collapse: the signs, the rules, and the consequences."""
