"""The command line: one module for each command, all of them clients of the same REST paths."""
