"""Anchors: how many lenses that others found does a finder find, and how many look-alikes does it take for one?"""
