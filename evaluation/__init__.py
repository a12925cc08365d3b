"""Proof: scores, figures with their intervals, and the page that shows them."""
