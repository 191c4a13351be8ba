"""Decides: which task runs where, what is prepared and what is owed. A pure core and its shell."""
