"""Plans, runs and grids: everything is computed once."""
