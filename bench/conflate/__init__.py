"""Age of prices at a slow client, direct and behind nginx, and the cost of bounding it."""
