"""What one would use instead of Darkroom, measured beside it: the same requests over HTTP."""
