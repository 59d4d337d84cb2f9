"""Strips: a text token by token, tinted by what is read at each, for a terminal and for a page."""
