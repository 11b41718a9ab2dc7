"""User-space instructions a message of our servers, counted by callgrind: the figure that is the same on every CPU."""
