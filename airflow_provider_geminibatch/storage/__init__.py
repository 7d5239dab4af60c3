"""Door two, to files: one small protocol over local, fsspec and memory."""
