"""Draws people on frames. Only this package uses supervision's drawing."""
