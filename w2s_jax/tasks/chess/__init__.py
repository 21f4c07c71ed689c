"""Chess puzzles and games."""
