"""How old prices get on their way to a slow client, direct and behind nginx, and what bounding that costs."""
