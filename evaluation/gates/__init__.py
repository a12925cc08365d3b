"""Shortcut gates: is there anything but the arc that tells injections from controls?"""
