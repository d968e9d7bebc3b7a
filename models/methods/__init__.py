"""One folder per paper; the folder is the only declaration."""
