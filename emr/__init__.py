"""Cluster and step definitions for EMR."""
