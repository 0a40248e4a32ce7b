"""A page in the browser, on this machine alone: pictures in, segments out; classes taught, models compared."""
