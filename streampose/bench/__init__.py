"""Measures the speed of the pipeline against the loop of the ViTPose documentation."""
