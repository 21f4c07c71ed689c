"""The published experiment again: theirs and ours on the same rows."""
